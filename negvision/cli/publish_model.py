"""``negvision publish-model CKPT --out FILE``: write the weights of a checkpoint for others."""

import argparse
from pathlib import Path

from negvision.cli.arguments import add_trust_checkpoint
from negvision.errors import UserError

HELP = "write the weights of a checkpoint for others to use"
DESCRIPTION = (
    "Write the weights of a checkpoint, with its config as text, classes and OOD threshold, as a "
    "safetensors file, which cannot contain code. `negvision test` and load_from accept it in "
    "place of the checkpoint."
)
_SUFFIX = ".safetensors"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("checkpoint", help="checkpoint file (.pth)")
    out = f"NAME{_SUFFIX}; part of the file's SHA-256 is appended to NAME"
    add("--out", required=True, metavar="FILE", help=out)
    add(
        "--without-ema",
        action="store_true",
        help="publish the weights of the last step, not the averaged ones",
    )
    add_trust_checkpoint(parser)


def run(args: argparse.Namespace) -> int:
    """Publish; 0."""
    target = Path(args.out)
    if target.suffix != _SUFFIX or target.name == _SUFFIX:
        raise UserError(f"--out {args.out}: give a file NAME{_SUFFIX}")
    from negvision.engine.checkpoints.loading import load_checkpoint_file
    from negvision.engine.checkpoints.safetensors_file import publish
    from negvision.files import check_writable

    check_writable(target)
    checkpoint = load_checkpoint_file(args.checkpoint, "cpu", args.trust_checkpoint)
    print(publish(checkpoint, target, args.checkpoint, ema=not args.without_ema))
    return 0
