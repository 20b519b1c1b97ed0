"""``negvision train CONFIG``: train a model, evaluating it as the config says."""

import argparse
from pathlib import Path

from negvision.engine.checkpoints.loading import CheckpointError, find_resume_checkpoint
from negvision.engine.config.reading import add_common_arguments, enable_amp, enable_auto_scale_lr
from negvision.engine.parallel.launch import leave_processes
from negvision.engine.prepare import build_runner, prepare_config
from negvision.engine.quiet import captured_pycocotools
from negvision.errors import reports_user_errors


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="negvision train", description="Train a model.")
    parser.add_argument("config", help="config file, e.g. configs/atss_r50.py")
    parser.add_argument(
        "--resume",
        nargs="?",
        const="",
        metavar="CKPT",
        help="go on from a checkpoint; without a value from the newest in the work dir",
    )
    parser.add_argument("--amp", action="store_true", help="mixed precision (bfloat16 on a CPU)")
    parser.add_argument(
        "--auto-scale-lr",
        action="store_true",
        help="scale the learning rate to the total batch size",
    )
    add_common_arguments(parser)
    return parser.parse_args(argv)


@reports_user_errors
def main(argv: list[str] | None = None) -> int:
    """Train; 0, or 2 after a user error, which is printed."""
    args = _parse(argv)
    cfg = prepare_config(args)
    if args.amp:
        enable_amp(cfg)
    if args.auto_scale_lr:
        enable_auto_scale_lr(cfg)
    if args.resume is not None:
        cfg.resume = True
        cfg.load_from = str(args.resume or find_resume_checkpoint(cfg.work_dir))
        if "://" not in cfg.load_from and not Path(cfg.load_from).is_file():
            raise CheckpointError(f"--resume {cfg.load_from}: there is no such file")
    with captured_pycocotools():
        build_runner(cfg, ("train", "val")).train()
    leave_processes()
    return 0
