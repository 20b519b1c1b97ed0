"""``negvision compress CKPT``: a smaller model that still finds the classes that matter."""

import argparse
from pathlib import Path

from negvision.cli.arguments import (
    add_data_arguments,
    add_model,
    add_trust_checkpoint,
    announce,
    checked,
    positive,
    positive_int,
    settle_model,
)
from negvision.errors import CheckpointError, ConfigError

HELP = "prune a model in rounds, without losing the classes that matter"
DESCRIPTION = (
    "Prune a detector, segmentor or classifier and train it again, round by round. It stops before "
    "a protected class loses more recall than asked, at the false positives of the original on the "
    "validation set, and keeps the best round that holds: compressed.pth, a checkpoint like any "
    "other. If the goal is not reached, the exit status is 2."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add_model(parser)
    goal = parser.add_mutually_exclusive_group(required=True)
    inside = checked(float, "a number between 0 and 1", lambda value: 0 < value < 1)
    zero = "set this share of the weights of every layer to 0"
    goal.add_argument("--sparsity", type=inside, metavar="S", help=zero)
    left = "remove channels until this share of the operations is left (needs torch-pruning)"
    goal.add_argument("--flops", type=inside, metavar="F", help=left)
    size = "remove channels until the checkpoint has so many megabytes (needs torch-pruning)"
    goal.add_argument("--size", type=positive, metavar="MB", help=size)
    kept = "class to protect, and the recall that it must keep (default: the original's less 0.02)"
    add("--protect", nargs="+", default=[], metavar="CLASS[=RECALL]", help=kept)
    add("--rounds", type=positive_int, default=3, metavar="N", help="default: 3")
    iters = "iterations of training in each round (default: a tenth of the original's)"
    add("--iters", type=positive_int, metavar="N", help=iters)
    rewind = (
        "--sparsity: checkpoint from early in the training, with which magnitudes are compared and "
        "from which each round trains (default: those of the same run beside the checkpoint)"
    )
    add("--rewind", type=Path, metavar="CKPT", help=rewind)
    add("--out", type=Path, metavar="DIR", help="default: <checkpoint>_compressed")
    add("--resume", action="store_true", help="continue an interrupted compression in --out")
    add("--export", type=Path, metavar="FILE.onnx", help="export the result too")
    calibration = "--export: in int8, with ranges measured on these images"
    add("--calibration", type=Path, metavar="DIR", help=calibration)
    add_data_arguments(parser)
    add_trust_checkpoint(parser)


def run(args: argparse.Namespace) -> int:
    """Compress, and export.

    Returns:
        0; 2 if the goal was not reached; 1 if the export differs from the model; the status of
        ``negvision train`` after a signal.
    """
    settle_model(args)
    source = Path(args.checkpoint)
    if not source.is_file():
        raise CheckpointError(f"checkpoint {args.checkpoint!r} does not exist")
    if source.suffix == ".onnx":
        raise CheckpointError(f"{source}: compress the checkpoint, and export it again")
    if args.rewind is not None and args.sparsity is None:
        raise ConfigError("--rewind is of --sparsity: pruned channels train on as they are")
    if args.calibration is not None and args.export is None:
        raise ConfigError("--calibration is of --export: name the file to write")
    announce(args.config)
    if args.export is not None:
        from negvision.cli.export import require_exporting

        require_exporting()
        _request(args).check()
    from negvision.engine.config.check import check_config
    from negvision.engine.interruption import TrainingInterrupted
    from negvision.engine.prepare import prepare_config
    from negvision.report.compression import RESULT, Compression, Plan

    cfg = prepare_config(args)
    check_config(cfg)
    goals = {name: getattr(args, name) for name in ("sparsity", "flops", "size")}
    goal, value = next((name, value) for name, value in goals.items() if value is not None)
    plan = Plan(
        goal,
        value,
        args.out or source.with_name(f"{source.stem}_compressed"),
        protect=dict(map(_protected, args.protect)),
        rounds=args.rounds,
        iters=args.iters,
        rewind=args.rewind,
        resume=args.resume,
        trust=args.trust_checkpoint,
    )
    try:
        status = Compression(cfg, source, plan, _say).run()
    except TrainingInterrupted as interruption:
        _say(str(interruption))
        return interruption.status
    result = plan.out / RESULT
    if args.export is not None and result.is_file():
        status = _export(args, result) or status
    return status


def _say(line: str) -> None:
    print(line, flush=True)


def _protected(text: str) -> tuple[str, float | None]:
    """``CLASS`` or ``CLASS=RECALL``."""
    name, _, recall = text.rpartition("=")
    if not name:
        return text, None
    try:
        value = float(recall)
    except ValueError:
        return text, None  # a name with an equals sign
    if not 0 < value <= 1:
        raise ConfigError(f"--protect {text}: a recall is above 0 and at most 1")
    return name, value


def _request(args: argparse.Namespace):
    from negvision.export.exporting import Request

    precision = "fp32" if args.calibration is None else "int8"
    return Request(args.export, precision=precision, calibration=args.calibration)


def _export(args: argparse.Namespace, result: Path) -> int:
    """Export the result as `negvision export` does."""
    from negvision.cli.main import main

    words = ["export", str(result), "--out", str(args.export)]
    if args.calibration is not None:
        words += ["--precision", "int8", "--calibration", str(args.calibration)]
    return main(words)
