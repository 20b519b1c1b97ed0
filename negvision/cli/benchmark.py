"""``negvision benchmark CONFIG|MODEL.onnx``: measure the cost of a model."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from negvision.cli.arguments import add_cfg_options, add_device, positive, positive_int
from negvision.cli.export import config_of_model, require_exporting
from negvision.errors import UserError
from negvision.files import check_writable

HELP = "weights, operations, memory, and images per second of a model"
DESCRIPTION = (
    "Count weights and operations, and measure memory and images per second: in PyTorch, with "
    "torch.compile, and in ONNX Runtime, interleaved on the same images."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("model", help="config file, or an exported model (.onnx)")
    add("--checkpoint", metavar="FILE", help="weights of the config; default: random")
    size = "of the images, in pixels; default: the size in the test pipeline"
    add("--size", type=positive_int, nargs=2, metavar=("HEIGHT", "WIDTH"), help=size)
    add("--batch-size", type=positive_int, default=1, metavar="N", help="images; default: 1")
    add_device(parser)
    add("--threads", type=positive_int, metavar="N", help="on a CPU; default: one per core")
    add("--seconds", type=positive, default=20, metavar="S", help="for each runtime; default: 20")
    add("--json", metavar="FILE", help="also write the results as JSON")
    add_cfg_options(parser, "model.test_cfg.score_thr=0.3")
    parser.set_defaults(launcher="none", trust_checkpoint=False, work_dir=None, data_root=None)


def run(args: argparse.Namespace) -> int:
    """Measure and print; 0, or 1 if two ways to run the model disagree."""
    if args.model.endswith(".onnx") and (args.checkpoint or args.cfg_options):
        raise UserError(
            f"{args.model} contains its weights: --checkpoint and --cfg-options need a config"
        )
    require_exporting()
    import torch

    from negvision.benchmark.cost import cost_of_config, cost_of_file
    from negvision.engine.checkpoints.finding import find_model
    from negvision.inference.torch_model import torch_device

    if args.json is not None:
        check_writable(Path(args.json))
    if args.checkpoint is None and not args.model.endswith((".py", ".onnx")):
        args.model = args.checkpoint = find_model(args.model)
    if torch_device(args.device).type == "mps":
        raise UserError("--device mps: negvision benchmark measures on cpu and cuda")
    options = {
        "seconds": args.seconds,
        "size": args.size and tuple(args.size),
        "batch_size": args.batch_size,
        "device": args.device,
        "threads": args.threads or torch.get_num_threads(),
    }
    if args.model.endswith(".onnx"):
        cost = cost_of_file(Path(args.model), _log, **options)
    else:
        args.config = args.model
        cfg = config_of_model(args)
        cost = cost_of_config(cfg, Path(args.model).name, args.checkpoint, _log, **options)
    print(cost.text())
    if args.json is not None:
        Path(args.json).write_text(json.dumps(cost.to_dict(), indent=2) + "\n", encoding="utf-8")
    return 1 if cost.differs else 0


def _log(step: str) -> None:
    print(f"... {step}", file=sys.stderr, flush=True)
