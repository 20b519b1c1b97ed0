"""``negvision export CONFIG CKPT --out FILE``: write a model for other runtimes, and compare it."""

from __future__ import annotations

import argparse
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from negvision.cli.arguments import add_model, add_runner_arguments, settle_model
from negvision.errors import ConfigError, ExportError
from negvision.files import check_writable

if TYPE_CHECKING:
    from mmengine.config import Config

HELP = "write a model as ONNX and compare it with PyTorch"
DESCRIPTION = (
    "Write a model as one graph that includes decoding and suppression. The graph is compared with "
    "PyTorch on the same images; if it differs, no file is written and the exit status is 1."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add_model(parser, "checkpoint (.pth) or weights (.safetensors)")
    add("--out", required=True, metavar="FILE", help="the file, e.g. atss.onnx")
    formats, precisions = ("onnx", "torchexport", "openvino"), ("fp32", "fp16", "int8")
    add("--format", choices=formats, default="onnx", help="default: onnx")
    precision = "of the network; decoding stays in float32. int8 needs --calibration"
    add("--precision", choices=precisions, default="fp32", help=precision)
    add("--calibration", metavar="DIR", help="images on which the 8-bit ranges are measured")
    images = "at least 8 images to compare on; default: digits and photographs of negvision"
    add("--images", metavar="DIR", help=images)
    add("--opset", type=int, default=18, help="ONNX opset; default: 18")
    add("--legacy", action="store_true", help="use torch's exporter from before 2.9")
    add_runner_arguments(parser)


def require_exporting() -> None:
    """Raise ExportError if a package that exporting needs is missing."""
    missing = [name for name in ("onnx", "onnxruntime", "onnxscript") if find_spec(name) is None]
    if missing:
        raise ExportError(
            f"{missing[0]} is not installed; exporting needs\n"
            "  pip install -r requirements/export.txt -c requirements/constraints.txt"
        )


def config_of_model(args: argparse.Namespace) -> Config:
    """The checked config of the arguments; ConfigError if it has no model."""
    from negvision.engine.config.check import check_config
    from negvision.engine.prepare import prepare_config

    cfg = prepare_config(args)
    if cfg.get("model") is None:
        raise ConfigError(f"config {args.config!r} has no model")
    check_config(cfg)
    return cfg


def run(args: argparse.Namespace) -> int:
    """Export; 0, or 1 if the export differs from the model."""
    require_exporting()
    from negvision.compat.patches import captured_pycocotools
    from negvision.engine.config.data_files import check_data
    from negvision.engine.prepare import build_runner
    from negvision.export.exporting import ParityError, Request, export
    from negvision.inference.exported_network import put_in_place

    request = Request(
        out=Path(args.out),
        format=args.format,
        precision=args.precision,
        opset=args.opset,
        legacy=args.legacy,
        images=args.images and Path(args.images),
        calibration=args.calibration and Path(args.calibration),
    )
    request.check()
    check_writable(request.out)
    settle_model(args)
    cfg = config_of_model(args)
    int8 = request.precision == "int8"
    if int8:
        check_data(cfg, ("test",))

    def evaluate(file: Path) -> dict[str, float]:
        """The metrics of an ONNX file on the test set of the config."""
        tested = cfg.copy()
        put_in_place(tested, file)
        with captured_pycocotools():
            return build_runner(tested, ("test",)).test()

    try:
        trust = args.trust_checkpoint
        export(cfg, args.checkpoint, request, print, trust, evaluate if int8 else None)
    except ParityError as error:
        sys.stdout.flush()
        print(f"\n{type(error).__name__}: {error}\n", file=sys.stderr)
        return 1
    return 0
