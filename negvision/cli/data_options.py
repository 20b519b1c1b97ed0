"""The options of ``negvision train DATA`` and ``negvision init DATA``."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from negvision.cli.arguments import checked
from negvision.errors import ConfigError

# Fields of TrainOptions, which needs libraries that --help does without.
_OPTIONS = (
    "model", "weights", "epochs", "iters", "minutes", "patience", "batch", "lr", "imgsz", "freeze",
    "flip", "negatives", "negative_share", "seed", "track",
)  # fmt: skip
_READING = ("format", "task", "skip_bad", "device")
# Those of negvision.data.formats, which loads slowly.
FORMATS = ("yolo", "coco", "voc", "cvat", "label-studio", "labelme", "csv", "masks", "classes")


def add_data_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that only a folder of annotated images takes."""
    group = parser.add_argument_group("options for a folder of annotated images")
    add = group.add_argument
    add("--model", metavar="NAME", help="`negvision models` lists them")
    start = "checkpoint, work dir, URL or torchvision://NAME to start from; classes match by name"
    add("--weights", metavar="CKPT", help=start)
    add("--epochs", type=int, metavar="N", help="length in passes over the data")
    add("--iters", type=int, metavar="N", help="length in batches")
    add("--minutes", type=float, metavar="N", help="length in minutes, evaluations included")
    patience = "end after N evaluations without a better score (default: 5 of 10); 0: never"
    add("--patience", type=int, metavar="N", help=patience)
    size = checked(_batch, "an integer or auto")
    batch = "images in a batch; auto: the model's batch, halved until its memory is free"
    add("--batch", type=size, metavar="N|auto", help=batch)
    add("--lr", type=float, metavar="RATE", help="learning rate")
    side = "longer side of the images, a multiple of 32"
    add("--imgsz", type=int, metavar="PIXELS", help=side)
    add("--freeze", type=int, metavar="N", help="stages of the backbone that do not train")
    flips = "flips in training (default: horizontal); any also turns images over"
    add("--flip", choices=("horizontal", "any", "none"), help=flips)
    plain = "train on the images of this folder too, none of which shows an object"
    add("--negatives", metavar="DIR", help=plain)
    share = "share of images without an object in each batch (default: as many as there are)"
    add("--negative-share", type=float, metavar="SHARE", help=share)
    add("--seed", type=int, metavar="N", help="default: 0")
    add("--track", choices=("tensorboard", "wandb", "mlflow"), help="where curves are sent")
    add("--format", choices=FORMATS, help="format of the annotations, if it is unclear")
    tasks = ("detection", "classification", "faces", "segmentation")
    add("--task", choices=tasks, help="what a folder for each class means")
    add("--skip-bad", action="store_true", help="leave out images and objects that are unusable")
    device = checked(str, "cpu, cuda, cuda:NUMBER or mps", _is_device)
    where = "cpu, cuda, cuda:NUMBER or mps (default: cuda if there is one, else cpu)"
    add("--device", type=device, help=where)


def _batch(text: str) -> int | str:
    return text if text == "auto" else int(text)


def _is_device(name: str) -> bool:
    kind, _, number = name.partition(":")
    return name in ("cpu", "cuda", "mps") or (kind == "cuda" and number.isdecimal())


def refuse_data_options(args: argparse.Namespace) -> None:
    """Refuse options that a config file would not follow.

    Raises:
        ConfigError: One is given.
    """
    given = [name for name in (*_OPTIONS, *_READING) if getattr(args, name) not in (None, False)]
    if given:
        name = given[0].replace("_", "-")
        raise ConfigError(
            f"--{name} is for a folder of images; {args.config} is a config, which has its own "
            "settings: change them there or with --cfg-options"
        )


def with_config(args: argparse.Namespace, config: str) -> argparse.Namespace:
    """The arguments for a config that was written for the folder with other options of its own.

    Raises:
        UserError: An option has a value that the folder cannot be trained with.
    """
    from negvision.engine.recipes.planning import TrainOptions

    TrainOptions(**{name: getattr(args, name) for name in _OPTIONS})
    return argparse.Namespace(
        **{**vars(args), **dict.fromkeys((*_OPTIONS, *_READING)), "config": config}
    )


def config_of_data(args: argparse.Namespace) -> str:
    """Write the config for the folder ``args.config``, unless a run there is resumed.

    Returns:
        The config file, in the work dir.

    Raises:
        UserError: Nothing can be trained on the folder, or with these options.
    """
    if getattr(args, "launcher", "none") != "none":
        raise ConfigError(
            f"{args.config}: a folder is read by one process. Write the config first, with "
            f"`negvision init {args.config}`, then train that config on many processes"
        )
    _choose_device(args.device)
    from negvision.engine.recipes.planning import TrainOptions
    from negvision.engine.recipes.training import config_to_resume, default_work_dir, write_config

    work_dir = Path(args.work_dir or default_work_dir(args.config))
    args.work_dir = str(work_dir.absolute())  # as the config has it
    options = TrainOptions(**{name: getattr(args, name) for name in _OPTIONS})
    given: tuple = (options, args.format, args.task, args.skip_bad)
    if getattr(args, "resume", None) is not None and (path := config_to_resume(work_dir, *given)):
        return str(path)
    return str(write_config(args.config, work_dir, *given, trust=args.trust_checkpoint))


def _choose_device(name: str | None) -> None:
    kind, _, number = (name or "").partition(":")
    if kind == "cpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    elif number:
        os.environ["CUDA_VISIBLE_DEVICES"] = number  # before torch looks for devices
    import torch
    from mmengine.device import utils

    mps = torch.backends.mps.is_available()
    found = {"cuda": torch.cuda.is_available(), "mps": mps}
    if not found.get(kind, True):
        raise ConfigError(
            f"--device {name}: torch finds no such device; `negvision doctor` shows details"
        )
    if mps and kind != "mps":
        utils.DEVICE = "cpu"  # MMEngine would take the GPU of a Mac without being asked
