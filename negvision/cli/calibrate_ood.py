"""``negvision calibrate-ood CONFIG CKPT``: choose the threshold above which samples are unknown."""

import argparse
from pathlib import Path

from negvision.cli.arguments import (
    add_model,
    add_runner_arguments,
    checked,
    positive_int,
    settle_model,
)
from negvision.errors import CheckpointError, ConfigError
from negvision.files import check_writable

HELP = "choose the OOD threshold above which samples are unknown"
DESCRIPTION = (
    "Choose an OOD threshold on in-distribution images and store it, with the weights, in a "
    "checkpoint. `negvision test` applies it."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add_model(parser)
    kind = checked(float, "a number above 0 and at most 1, e.g. 0.95", lambda x: 0 < x <= 1)
    keep = "fraction of the in-distribution samples to keep (default: 0.95)"
    add("--tpr", type=kind, default=0.95, help=keep)
    split = "dataset to use; its OOD images are ignored (default: val)"
    add("--split", choices=["val", "test"], default="val", help=split)
    low = "ignore boxes with a lower class score (default: 0.3)"
    add("--min-score", type=float, default=0.3, help=low)
    score = (
        "OOD score to compute and store in place of the config's; auto compares all on the split, "
        "whose data set must have OOD images"
    )
    add("--score", metavar="NAME", help=score)
    fit = "images of the training set from which a score takes its statistics (default: 2000)"
    add("--fit-images", type=positive_int, default=2000, metavar="N", help=fit)
    add("--out", metavar="FILE", help="default: <checkpoint>_ood.pth")
    add_runner_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Calibrate; 0."""
    settle_model(args)
    source = Path(args.checkpoint)
    if not source.is_file():
        raise CheckpointError(f"checkpoint {args.checkpoint!r} does not exist")
    from negvision.compat.patches import captured_pycocotools
    from negvision.engine.calibration import (
        calibrate,
        choose_score,
        fit_on_training_set,
        save_with_meta,
        set_score,
    )
    from negvision.engine.checkpoints.loading import load_checkpoint_file
    from negvision.engine.config.stored import config_from_text
    from negvision.engine.prepare import build_runner, prepare_config

    target = Path(args.out) if args.out else source.with_name(f"{source.stem}_ood.pth")
    check_writable(target)
    cfg = prepare_config(args)
    cfg.load_from, cfg.resume = str(source), False
    if args.score is not None:
        _set_score(cfg, args.score)
    with captured_pycocotools():
        runner = build_runner(cfg, (args.split,))
    runner.load_or_resume()
    if args.score == "auto":
        best, table = choose_score(runner, args.split, args.fit_images)
        runner.logger.info(f"{table}\n")
        set_score(cfg.model, best)
    else:
        fit_on_training_set(runner, args.split, args.fit_images)
    threshold = calibrate(runner, args.split, args.tpr, args.min_score)
    added: dict = {"ood": threshold.as_meta()}
    stored = (load_checkpoint_file(source, "cpu", args.trust_checkpoint).get("meta") or {}).get(
        "cfg"
    )
    if args.score is not None and stored:
        # The file alone computes this score.
        own = config_from_text(stored, str(source))
        own.model = cfg.model
        added["cfg"] = own.pretty_text
    save_with_meta(source, target, added, runner.model, args.trust_checkpoint)
    runner.logger.info(
        f"threshold  {threshold.value:.6g}: higher scores are unknown\n"
        f"score      {threshold.score}, higher is more OOD\n"
        f"kept       {args.tpr:.2%} of {threshold.num_samples:,} in-distribution samples\n"
        f"saved      {target}"
    )
    return 0


def _set_score(cfg, name: str) -> None:
    from negvision.engine.calibration import set_score
    from negvision.ood.scores import FEATURE_SCORE_NAMES

    try:
        # With "auto", the model is built for a score of features, which others replace.
        found = set_score(cfg.get("model"), FEATURE_SCORE_NAMES[0] if name == "auto" else name)
    except ValueError as error:
        raise ConfigError(f"--score: {error}, or auto") from None
    if not found:
        raise ConfigError(
            "--score: the model of the config has no OOD score. Set one in the config, e.g. "
            "bbox_head.type='negvision.AbeTBBoxHead', model.type='negvision.AbeTEncoderDecoder' or "
            "model.type='negvision.AbeTClassifier'"
        )
