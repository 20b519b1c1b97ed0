"""``negvision calibrate-ood CONFIG CKPT``: choose the threshold above which all is unknown."""

import argparse
from pathlib import Path

from negvision.engine.calibration import calibrate, check_writable, save_with_threshold
from negvision.engine.config.reading import add_common_arguments
from negvision.engine.prepare import build_runner, prepare_config
from negvision.engine.quiet import captured_pycocotools
from negvision.errors import CheckpointError, UserError, reports_user_errors


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="negvision calibrate-ood",
        description="Choose an OOD threshold on in-distribution images and store it, with the "
        "weights, in a checkpoint. tools/test.py applies it.",
    )
    parser.add_argument("config", help="config file, e.g. configs/abet_faster_rcnn_r50.py")
    parser.add_argument("checkpoint", help="checkpoint file (.pth)")
    parser.add_argument(
        "--tpr",
        type=float,
        default=0.95,
        help="share of the in-distribution samples to keep (default: %(default)s)",
    )
    parser.add_argument(
        "--split",
        choices=["val", "test"],
        default="val",
        help="whose images to use; OOD images among them take no part (default: %(default)s)",
    )
    parser.add_argument(
        "--min-score",
        type=float,
        default=0.3,
        help="boxes of a lower class score take no part (default: %(default)s)",
    )
    parser.add_argument("--out", metavar="FILE", help="default: <checkpoint>_ood.pth")
    add_common_arguments(parser)
    return parser.parse_args(argv)


@reports_user_errors
def main(argv: list[str] | None = None) -> int:
    """Calibrate; 0, or 2 after a user error, which is printed."""
    args = _parse(argv)
    if not 0 < args.tpr <= 1:
        raise UserError(f"--tpr {args.tpr:g}: the share must be above 0 and at most 1, e.g. 0.95")
    source = Path(args.checkpoint)
    if not source.is_file():
        raise CheckpointError(f"checkpoint {args.checkpoint!r} does not exist")
    target = Path(args.out) if args.out else source.with_name(f"{source.stem}_ood.pth")
    check_writable(target)
    cfg = prepare_config(args)
    cfg.load_from, cfg.resume = str(source), False
    with captured_pycocotools():
        runner = build_runner(cfg, (args.split,))
    runner.load_or_resume()
    threshold = calibrate(runner, args.split, args.tpr, args.min_score)
    save_with_threshold(source, target, threshold, runner.model, args.trust_checkpoint)
    runner.logger.info(
        f"threshold  {threshold.value:.6g}: above it is unknown\n"
        f"score      {threshold.score}, higher is more OOD\n"
        f"kept       {args.tpr:.2%} of {threshold.num_samples:,} in-distribution samples\n"
        f"saved      {target}"
    )
    return 0
