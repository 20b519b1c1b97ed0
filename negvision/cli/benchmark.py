"""``negvision benchmark CONFIG|MODEL.onnx``: what a model costs, beside ways to run it faster."""

import argparse
import json
import sys
from pathlib import Path

from mmengine.config import DictAction

from negvision.cli.export import require_exporting
from negvision.engine.calibration import check_writable
from negvision.engine.config.check import check_config
from negvision.engine.prepare import prepare_config
from negvision.errors import ConfigError, UserError, reports_user_errors


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="negvision benchmark",
        description="Count weights and operations, and measure memory and images a second: in "
        "PyTorch, compiled by it, and in ONNX Runtime, in turns on the same pictures.",
    )
    parser.add_argument("model", help="config file, or an exported model (.onnx)")
    parser.add_argument(
        "--checkpoint", metavar="FILE", help="weights for the config; default: random ones"
    )
    parser.add_argument(
        "--size",
        type=int,
        nargs=2,
        metavar=("HEIGHT", "WIDTH"),
        help="of the pictures; default: what the test pipeline resizes to",
    )
    parser.add_argument(
        "--batch-size", type=int, default=1, metavar="N", help="pictures at once; default: 1"
    )
    parser.add_argument("--device", default="cpu", help="cpu or cuda; default: cpu")
    parser.add_argument(
        "--threads", type=int, metavar="N", help="on a CPU; default: one for each core"
    )
    parser.add_argument(
        "--seconds",
        type=float,
        default=20,
        metavar="S",
        help="to time each way to run the model; default: 20",
    )
    parser.add_argument("--json", metavar="FILE", help="write the figures as well")
    parser.add_argument(
        "--cfg-options",
        nargs="+",
        action=DictAction,
        metavar="KEY=VALUE",
        help="change the config, e.g. model.test_cfg.score_thr=0.3",
    )
    # What prepare_config asks for beside them.
    parser.set_defaults(launcher="none", trust_checkpoint=False, work_dir=None, data_root=None)
    return parser.parse_args(argv)


def _check(args: argparse.Namespace) -> None:
    exported = args.model.endswith(".onnx")
    if exported and (args.checkpoint or args.cfg_options):
        raise UserError(
            f"{args.model} has its weights in it: --checkpoint and --cfg-options go with a config"
        )
    for name in ("batch_size", "threads", "seconds"):
        value = getattr(args, name)
        if value is not None and value <= 0:
            raise UserError(f"--{name.replace('_', '-')} {value:g}: give a number above 0")
    if args.size and min(args.size) < 1:
        raise UserError(f"--size {args.size[0]} {args.size[1]}: give sides of 1 pixel or more")
    if args.json is not None:
        check_writable(Path(args.json))


def _measure(args: argparse.Namespace):
    from negvision.benchmark.whole import Options, cost_of_config, cost_of_file
    from negvision.inference.from_config import torch_device

    torch_device(args.device)
    options = Options(
        size=args.size and tuple(args.size),
        batch_size=args.batch_size,
        device=args.device,
        threads=args.threads,
        seconds=args.seconds,
    )
    if args.model.endswith(".onnx"):
        return cost_of_file(Path(args.model), options, _tell)
    args.config = args.model
    cfg = prepare_config(args)
    if cfg.get("model") is None:
        raise ConfigError(f"config {args.model!r} has no model")
    check_config(cfg)
    return cost_of_config(cfg, Path(args.model).name, args.checkpoint, options, _tell)


def _tell(step: str) -> None:
    print(f"... {step}", file=sys.stderr, flush=True)


@reports_user_errors
def main(argv: list[str] | None = None) -> int:
    """Measure and print; 0, 1 where a way to run the model finds something else, or 2."""
    args = _parse(argv)
    _check(args)
    require_exporting()
    cost = _measure(args)
    print(cost.text())
    if args.json is not None:
        Path(args.json).write_text(json.dumps(cost.to_dict(), indent=2) + "\n")
    return 1 if cost.differs else 0
