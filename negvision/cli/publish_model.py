"""``negvision publish-model CKPT OUT``: write the weights of a checkpoint for others to use."""

import argparse
from pathlib import Path

from negvision.engine.calibration import check_writable
from negvision.engine.checkpoints.loading import load_checkpoint_file
from negvision.engine.checkpoints.weights_file import SUFFIX, publish
from negvision.errors import UserError, reports_user_errors


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="negvision publish-model",
        description="Write the weights of a checkpoint, with its config as text, classes and OOD "
        "threshold, as a safetensors file, in which no code can hide. tools/test.py and load_from "
        "take it in the place of the checkpoint.",
    )
    parser.add_argument("checkpoint", help="checkpoint file (.pth)")
    parser.add_argument(
        "out", help=f"NAME{SUFFIX}; a part of the file's SHA-256 is put behind NAME"
    )
    parser.add_argument(
        "--without-ema",
        action="store_true",
        help="of a checkpoint with averaged weights take those of the last step",
    )
    parser.add_argument(
        "--trust-checkpoint",
        action="store_true",
        help="unpickle whatever the checkpoint holds; it can run any code",
    )
    return parser.parse_args(argv)


@reports_user_errors
def main(argv: list[str] | None = None) -> int:
    """Publish; 0, or 2 after a user error, which is printed."""
    args = _parse(argv)
    target = Path(args.out)
    if target.suffix != SUFFIX or target.name == SUFFIX:
        raise UserError(f"out is {args.out!r}; give a file NAME{SUFFIX}")
    check_writable(target)
    checkpoint = load_checkpoint_file(args.checkpoint, "cpu", args.trust_checkpoint)
    print(publish(checkpoint, target, args.checkpoint, ema=not args.without_ema))
    return 0
