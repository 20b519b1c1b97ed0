"""The command-line parser, and the arguments that several commands share."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Sequence
from typing import Any

from negvision import __version__
from negvision.errors import CheckpointError, did_you_mean

# What options were called, and what they are called elsewhere; looked up where the new one exists.
_OTHER_NAMES = {
    "--out-dir": "--out",
    "--output": "--out",
    "--output-dir": "--out",
    "--save-dir": "--out",
    "--conf": "--score-threshold",
    "--score-thr": "--score-threshold",
}
_DATA_ROOT = "folder to use as the data root of every dataset"


class CommandParser(argparse.ArgumentParser):
    """A parser that names the option for a misspelled one, or one of another name."""

    _given: Sequence[str] = ()

    def parse_known_args(self, args=None, namespace=None):
        self._given = list(args or ())
        namespace, unknown = super().parse_known_args(args, namespace)
        if unknown:
            self.error(f"unrecognized arguments: {' '.join(unknown)}")
        return namespace, unknown

    def error(self, message: str):
        known = [option for option in self._option_string_actions if option.startswith("--")]
        for word in self._given:
            option = word.partition("=")[0]
            if option.startswith("--") and not any(name.startswith(option) for name in known):
                name = _OTHER_NAMES.get(option)
                hint = f"; it is {name} here" if name in known else did_you_mean(option, known)
                message += f"\n{option} is not an option{hint}"
        super().error(message)


def checked(
    kind: Callable[[str], Any], wanted: str, fits: Callable[[Any], bool] = lambda value: True
) -> Callable:
    """An argument type for values of ``kind`` for which ``fits`` is true.

    Example:
        >>> parser = argparse.ArgumentParser()
        >>> _ = parser.add_argument("--num", type=checked(int, "a number above 0", lambda n: n > 0))
        >>> parser.parse_args(["--num", "3"]).num
        3
    """

    def convert(text: str) -> Any:
        try:
            value = kind(text)
        except ValueError:
            value = None
        if value is None or not fits(value):
            hint = "; the config comes before the options" if text.endswith(".py") else ""
            raise argparse.ArgumentTypeError(f"{text!r} is not {wanted}{hint}")
        return value

    return convert


positive_int = checked(int, "an integer above 0", lambda value: value > 0)
count = checked(int, "0 or a positive integer", lambda value: value >= 0)
positive = checked(float, "a number above 0", lambda value: 0 < value < float("inf"))
fraction = checked(float, "a number from 0 to 1", lambda value: 0 <= value <= 1)


def add_config(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("config", help="config file, e.g. configs/atss_r50.py")


def add_model(parser: argparse.ArgumentParser, checkpoint: str = "checkpoint") -> None:
    """A model: a config and a checkpoint, or one file or work dir that holds both."""
    model = "config (.py) and a checkpoint; or a checkpoint or work dir alone, which has its config"
    parser.add_argument("config", metavar="model", help=model)
    parser.add_argument("checkpoint", nargs="?", help=f"{checkpoint} for a config")


def add_tiles(parser: argparse.ArgumentParser, verb: str) -> None:
    tiles = (
        f"{verb} in overlapping tiles of large images: SIZE[:OVERLAP[:MERGE]], such as 640:0.2; "
        "none: whole images"
    )
    parser.add_argument("--tiles", metavar="SIZE", help=tiles)


def settle_model(args: argparse.Namespace) -> None:
    """Set the checkpoint that is not named: the one that holds the config too.

    Raises:
        CheckpointError: There is a config alone, or a folder without a checkpoint.
    """
    if args.checkpoint is not None:
        return
    if args.config.endswith(".py"):
        raise CheckpointError(f"{args.config} is a config: name a checkpoint (.pth) after it")
    from negvision.engine.checkpoints.finding import find_model

    args.config = args.checkpoint = find_model(args.config)


def add_runner_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the commands that build a runner or load a checkpoint for a config."""
    parser.add_argument("--work-dir", help="folder of logs and checkpoints")
    parser.add_argument("--data-root", help=_DATA_ROOT)
    add_cfg_options(parser, "model.backbone.depth=18 train_cfg.max_epochs=2")
    starters, start = ["none", "pytorch", "slurm", "mpi"], "how the processes are started"
    parser.add_argument("--launcher", choices=starters, default="none", help=start)
    add_trust_checkpoint(parser)


def add_data_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the commands that read the data of a config in one process."""
    parser.add_argument("--data-root", help=_DATA_ROOT)
    add_cfg_options(parser, "train_dataloader.dataset.filter_cfg=None")
    parser.set_defaults(launcher="none", trust_checkpoint=False, work_dir=None)


def add_cfg_options(parser: argparse.ArgumentParser, example: str) -> None:
    """``--cfg-options``: texts ``KEY=VALUE``, which are parsed once MMEngine is imported."""
    kind = checked(str, "KEY=VALUE", lambda text: "=" in text)
    change = f"change the config, e.g. {example}"
    parser.add_argument(
        "--cfg-options", nargs="+", action="extend", type=kind, metavar="KEY=VALUE", help=change
    )


def add_trust_checkpoint(parser: argparse.ArgumentParser) -> None:
    trust = "unpickle any object in a checkpoint or .pkl file; it can run arbitrary code"
    parser.add_argument("--trust-checkpoint", action="store_true", help=trust)


def add_ood_threshold(parser: argparse.ArgumentParser) -> None:
    """``--ood-threshold``: None, a number, or ``"checkpoint"``."""
    number = checked(
        lambda text: text if text == "checkpoint" else float(text),
        "a number or the word checkpoint",
    )
    mark = (
        "mark as unknown everything that scores higher. By default the threshold stored with the "
        "model is used, if any; 'checkpoint' requires one"
    )
    parser.add_argument("--ood-threshold", type=number, metavar="SCORE", help=mark)


def add_debug(parser: argparse.ArgumentParser) -> None:
    # Of a command and of its own commands: without a default, the inner one keeps the outer's.
    text = "print the traceback of an error"
    parser.add_argument("--debug", action="store_true", default=argparse.SUPPRESS, help=text)


def add_device(parser: argparse.ArgumentParser) -> None:
    places = "cpu, cuda, cuda:NUMBER or mps; default: cpu"
    parser.add_argument("--device", default="cpu", help=places)


def add_face_detector(parser: argparse.ArgumentParser, required: bool = False) -> None:
    """Options of the commands that take photographs of faces."""
    detector = "ONNX file of YuNet, which finds and aligns faces in photographs"
    if not required:
        detector += "; default: images are aligned crops"
    add = parser.add_argument
    add("--face-detector", required=required, metavar="FILE", help=detector)
    main = "of several faces take the one that is large and near the center; else: an error"
    add("--main-face", action="store_true", help=main)


def add_face_model(parser: argparse.ArgumentParser, required: bool = True) -> None:
    """Options of the commands that run a face recognizer."""
    model = "face recognizer: exported model, checkpoint, published weights or work dir"
    if not required:
        model += "; default: that of the gallery"
    parser.add_argument("--model", required=required, metavar="FILE", help=model)
    add_face_detector(parser)
    add_device(parser)
    add_trust_checkpoint(parser)


def announce(config: str) -> None:
    """Print the first line of a run, on the first rank only, before the slow imports."""
    if os.environ.get("RANK", os.environ.get("SLURM_PROCID", "0")) == "0":
        print(f"negvision {__version__}: loading {config}", flush=True)
