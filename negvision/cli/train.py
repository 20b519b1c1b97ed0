"""``negvision train CONFIG`` or ``negvision train DATA``: train a model and evaluate it."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from negvision.cli.arguments import (
    add_runner_arguments,
    add_tiles,
    announce,
    checked,
    positive_int,
)
from negvision.cli.data_options import add_data_options, config_of_data, refuse_data_options
from negvision.errors import CheckpointError

if TYPE_CHECKING:
    from mmengine.config import Config

HELP = "train a model, from a config or on a folder of annotated images"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_source(parser)
    resume = "resume from this checkpoint; no value: the newest complete one; auto: that, if any"
    parser.add_argument("--resume", nargs="?", const="", metavar="CKPT", help=resume)
    add_options(parser)


def add_source(parser: argparse.ArgumentParser) -> None:
    """What is trained."""
    config = "config (.py); or a folder of annotated images, or its data.yaml, JSON or CSV file"
    parser.add_argument("config", metavar="CONFIG|DATA", help=config)


def add_options(parser: argparse.ArgumentParser) -> None:
    """How it is trained."""
    add = parser.add_argument
    kind = checked(str, "auto, bf16 or fp16", ("auto", "bf16", "fp16").__contains__)
    amp = "mixed precision: bf16, fp16 or auto (fp16 on CUDA, bf16 on a CPU)"
    add("--amp", nargs="?", const="auto", type=kind, metavar="KIND", help=amp)
    scale = "scale the learning rate to the number of images per update, over all processes"
    add("--auto-scale-lr", action="store_true", help=scale)
    mean = "update the weights every N iterations, with the mean of their gradients"
    add("--accumulate", type=positive_int, metavar="N", help=mean)
    add("--sync-bn", action="store_true", help="synchronize batch normalization over all processes")
    momentum = checked(float, "a number between 0 and 1", lambda value: 0 < value < 1)
    ema = "evaluate and save a moving average of the weights (default: 0.0002)"
    add("--ema", nargs="?", const=0.0002, type=momentum, metavar="MOMENTUM", help=ema)
    recompute = "recompute activations in the backward pass: of the backbone's blocks, or of these"
    add("--checkpoint-activations", nargs="*", metavar="MODULE", help=recompute)
    add("--compile", action="store_true", help="torch.compile of backbone, neck and heads")
    doubts = "file of `negvision audit`: ignore what it suspects as often as it is likely wrong"
    soft = "background that keeps a high score loses weight: objects without a box"
    add("--soft-negatives", action="store_true", help=soft)
    add("--suspects", metavar="FILE.json", help=doubts)
    history = "record loss and scores of each annotation by epoch, for `negvision audit`"
    add("--history", action="store_true", help=history)
    add_tiles(parser, "train and evaluate")
    add_runner_arguments(parser)
    add_data_options(parser)


def run(args: argparse.Namespace) -> int:
    """Train.

    Returns:
        0; 75 (``EXIT_INTERRUPTED``), or 130 after Ctrl-C, if a signal ended the run after its
        state was saved.
    """
    announce(args.config)
    from negvision.engine.parallel.failures import reports_to_launcher

    return reports_to_launcher(_train)(args)


def training_config(args: argparse.Namespace) -> Config:
    """The config of the arguments, with all options but ``--resume``."""
    if args.config.endswith(".py"):
        refuse_data_options(args)
    else:
        args.config = config_of_data(args)
    from negvision.engine.config.options import apply_training_arguments
    from negvision.engine.prepare import prepare_config

    cfg = prepare_config(args)
    apply_training_arguments(cfg, args)
    return cfg


def _train(args: argparse.Namespace) -> int:
    cfg = training_config(args)
    from negvision.compat.patches import captured_pycocotools
    from negvision.engine.interruption import TrainingInterrupted
    from negvision.engine.machine_errors import machine_errors_explained
    from negvision.engine.parallel.launch import leave_processes
    from negvision.engine.prepare import build_runner

    if args.resume is not None:
        set_resume(cfg, args.resume, args.trust_checkpoint)
    with captured_pycocotools(), machine_errors_explained(cfg.work_dir):
        runner = build_runner(cfg, ("train", "val"))
        # A run that was killed early may have left its best weights and nothing to resume from.
        runner.may_start_anew = args.resume == "auto"
        try:
            runner.train()
        except TrainingInterrupted as interruption:
            runner.logger.warning(str(interruption))
            leave_processes()
            return interruption.status
    leave_processes()
    return 0


def set_resume(cfg: Config, resume: str, trust: bool) -> None:
    """Continue from a checkpoint: a file, or "" or "auto" as ``--resume`` takes them.

    Raises:
        CheckpointError: There is none, or it cannot be resumed.
    """
    from negvision.engine.checkpoints.finding import find_resume_checkpoint

    if resume not in ("", "auto"):
        if "://" not in resume and not Path(resume).is_file():
            raise CheckpointError(f"--resume {resume}: there is no such file")
        if resume.endswith(".safetensors"):
            raise CheckpointError(
                f"--resume {resume}: published weights hold no training state. Start a new run "
                f"from them: --cfg-options load_from={resume}"
            )
        cfg.resume, cfg.load_from = True, resume
        return
    newest = find_resume_checkpoint(cfg.work_dir, trust)
    if newest is not None:
        cfg.resume, cfg.load_from = True, str(newest)
    elif not resume:
        raise CheckpointError(
            f"--resume: no checkpoint (*.pth) in {cfg.work_dir!r}. Train without --resume, name a "
            "file (--resume FILE), or start anew if there is none (--resume auto)"
        )
