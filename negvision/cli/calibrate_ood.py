"""``negvision calibrate-ood CONFIG CKPT``: choose the threshold above which samples are unknown."""

import argparse
from pathlib import Path

from negvision.cli.arguments import add_model, add_runner_arguments, checked, settle_model
from negvision.errors import CheckpointError
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
    add("--out", metavar="FILE", help="default: <checkpoint>_ood.pth")
    add_runner_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Calibrate; 0."""
    settle_model(args)
    source = Path(args.checkpoint)
    if not source.is_file():
        raise CheckpointError(f"checkpoint {args.checkpoint!r} does not exist")
    from negvision.compat.patches import captured_pycocotools
    from negvision.engine.calibration import calibrate, save_with_meta
    from negvision.engine.prepare import build_runner, prepare_config

    target = Path(args.out) if args.out else source.with_name(f"{source.stem}_ood.pth")
    check_writable(target)
    cfg = prepare_config(args)
    cfg.load_from, cfg.resume = str(source), False
    with captured_pycocotools():
        runner = build_runner(cfg, (args.split,))
    runner.load_or_resume()
    threshold = calibrate(runner, args.split, args.tpr, args.min_score)
    added = {"ood": threshold.as_meta()}
    save_with_meta(source, target, added, runner.model, args.trust_checkpoint)
    runner.logger.info(
        f"threshold  {threshold.value:.6g}: higher scores are unknown\n"
        f"score      {threshold.score}, higher is more OOD\n"
        f"kept       {args.tpr:.2%} of {threshold.num_samples:,} in-distribution samples\n"
        f"saved      {target}"
    )
    return 0
