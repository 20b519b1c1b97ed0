"""``negvision export CONFIG CKPT --out FILE``: write a model for others to run, and compare it."""

import argparse
import sys
from pathlib import Path

from negvision.engine.calibration import check_writable
from negvision.engine.config.check import check_config
from negvision.engine.config.data_files import check_data
from negvision.engine.config.reading import add_common_arguments
from negvision.engine.prepare import build_runner, prepare_config
from negvision.engine.quiet import captured_pycocotools
from negvision.errors import ConfigError, ExportError, reports_user_errors

try:
    import onnx  # noqa: F401
    import onnxruntime  # noqa: F401
    import onnxscript  # noqa: F401

    _MISSING = None
except ImportError as error:
    _MISSING = error.name

FORMATS = ("onnx", "torchexport", "openvino", "tensorrt")


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="negvision export",
        description="Write a model as one graph, decoding and suppression inside. It is run beside "
        "PyTorch on the same images; where it differs there is no file and the exit status is 1.",
    )
    parser.add_argument("config", help="config file, e.g. configs/atss_r50.py")
    parser.add_argument("checkpoint", help="checkpoint file (.pth) or weights (.safetensors)")
    parser.add_argument("--out", required=True, metavar="FILE", help="the file, e.g. atss.onnx")
    parser.add_argument("--format", choices=FORMATS, default="onnx", help="default: onnx")
    parser.add_argument(
        "--precision",
        choices=("fp32", "fp16", "int8"),
        default="fp32",
        help="of the network; decoding stays in float32. int8 needs --calibration",
    )
    parser.add_argument(
        "--calibration", metavar="DIR", help="images to measure the ranges of 8 bits on"
    )
    parser.add_argument(
        "--images",
        metavar="DIR",
        help="at least 8 images to compare on, of things that the model knows; default: digits "
        "and photographs that come with the suite",
    )
    parser.add_argument("--opset", type=int, default=18, help="version of ONNX; default: 18")
    parser.add_argument(
        "--legacy", action="store_true", help="torch's exporter of before 2.9, for what fails"
    )
    add_common_arguments(parser)
    return parser.parse_args(argv)


def require_exporting() -> None:
    """Raise ExportError where a package is missing that exporting takes."""
    if _MISSING is not None:
        raise ExportError(
            f"{_MISSING} is not installed; exporting takes\n"
            "  pip install -r requirements/export.txt -c requirements/constraints.txt"
        )


def _evaluator(cfg):
    """Figures of an ONNX file on the test set of ``cfg``."""
    from negvision.inference.exported_network import put_in_place

    def evaluate(file: Path) -> dict[str, float]:
        tested = cfg.copy()
        put_in_place(tested, file)
        with captured_pycocotools():
            return build_runner(tested, ("test",)).test()

    return evaluate


@reports_user_errors
def main(argv: list[str] | None = None) -> int:
    """Export; 0, 1 where the export differs from the model, or 2 after a user error."""
    args = _parse(argv)
    require_exporting()
    from negvision.export.exporting import ParityError, Request, export

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
