"""``negvision export CONFIG CKPT --out FILE``: write a model for other runtimes, and compare it."""

from __future__ import annotations

import argparse
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from negvision.cli.arguments import add_config, add_runner_arguments
from negvision.errors import ConfigError, ExportError

if TYPE_CHECKING:
    from mmengine.config import Config

HELP = "write a model as ONNX and compare it with PyTorch"
DESCRIPTION = (
    "Write a model as one graph that includes decoding and suppression. The graph is compared with "
    "PyTorch on the same images; if it differs, no file is written and the exit status is 1."
)
_FORMATS = ("onnx", "torchexport", "openvino")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_config(parser)
    parser.add_argument("checkpoint", help="checkpoint file (.pth) or weights (.safetensors)")
    parser.add_argument("--out", required=True, metavar="FILE", help="the file, e.g. atss.onnx")
    parser.add_argument("--format", choices=_FORMATS, default="onnx", help="default: onnx")
    parser.add_argument(
        "--precision",
        choices=("fp32", "fp16", "int8"),
        default="fp32",
        help="of the network; decoding stays in float32. int8 needs --calibration",
    )
    parser.add_argument(
        "--calibration", metavar="DIR", help="images on which the 8-bit ranges are measured"
    )
    parser.add_argument(
        "--images",
        metavar="DIR",
        help="at least 8 images to compare on, showing classes of the model; default: digits and "
        "photographs that ship with negvision",
    )
    parser.add_argument("--opset", type=int, default=18, help="ONNX opset; default: 18")
    parser.add_argument(
        "--legacy", action="store_true", help="use torch's exporter from before 2.9"
    )
    add_runner_arguments(parser)


def require_exporting() -> None:
    """Raise ExportError if a package that exporting needs is missing."""
    missing = [name for name in ("onnx", "onnxruntime", "onnxscript") if find_spec(name) is None]
    if missing:
        raise ExportError(
            f"{missing[0]} is not installed; exporting needs\n"
            "  pip install -r requirements/export.txt -c requirements/constraints.txt"
        )


def run(args: argparse.Namespace) -> int:
    """Export; 0, or 1 if the export differs from the model."""
    require_exporting()
    from negvision.engine.config.check import check_config
    from negvision.engine.config.data_files import check_data
    from negvision.engine.prepare import prepare_config
    from negvision.export.exporting import ParityError, Request, export
    from negvision.files import check_writable

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
    cfg = prepare_config(args)
    if cfg.get("model") is None:
        raise ConfigError(f"config {args.config!r} has no model")
    check_config(cfg)
    evaluate = None
    if request.precision == "int8":
        check_data(cfg, ("test",))
        evaluate = _evaluator(cfg)
    try:
        export(cfg, args.checkpoint, request, print, args.trust_checkpoint, evaluate)
    except ParityError as error:
        sys.stdout.flush()
        print(f"\n{type(error).__name__}: {error}\n", file=sys.stderr)
        return 1
    return 0


def _evaluator(cfg: Config):
    """A function that returns the metrics of an ONNX file on the test set of ``cfg``."""
    from negvision.compat.patches import captured_pycocotools
    from negvision.engine.prepare import build_runner
    from negvision.inference.exported_network import put_in_place

    def evaluate(file: Path) -> dict[str, float]:
        tested = cfg.copy()
        put_in_place(tested, file)
        with captured_pycocotools():
            return build_runner(tested, ("test",)).test()

    return evaluate
