"""The formats beside ONNX: torch's own, OpenVINO's and TensorRT's."""

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path

import numpy as np
import torch

from negvision.compat.patches import replace_pool_size_rule
from negvision.errors import ExportError
from negvision.export.graphs.choice import Exportable
from negvision.export.onnx_file import exporter_message
from negvision.inference.runtime.metadata import KEY, Metadata
from negvision.inference.runtime.model import Graph

# By format the suffix of the file.
SUFFIXES = {"onnx": ".onnx", "torchexport": ".pt2", "openvino": ".xml", "tensorrt": ".engine"}
# Sides of images that a TensorRT engine takes, in pixels: the least, the best and the largest.
_ENGINE_SIDES = (64, 640, 1344)
_ENGINE_BATCH = (1, 1, 8)


def require_package(kind: str) -> None:
    """Raise ExportError where what writes format ``kind`` is not installed."""
    if kind in ("onnx", "torchexport"):
        return
    try:
        import_module(kind)
    except ImportError:
        note = " (it needs an NVIDIA GPU)" if kind == "tensorrt" else ""
        raise ExportError(
            f"--format {kind} needs the package {kind}, which is not installed: "
            f"pip install {kind}{note}"
        ) from None


def write_torchexport(graph: Exportable, metadata: Metadata, path: Path) -> Graph:
    """Write ``path`` as torch.export's archive, and open it again.

    It is opened by ``torch.export.load`` after ``import negvision.export.graphs.operators``. All
    inputs have to be given.
    """
    dynamic = torch.export.Dim.DYNAMIC
    shapes = tuple(
        dict.fromkeys(graph.dynamic.get(name, ()), dynamic) or None for name in graph.inputs
    )
    try:
        with torch.no_grad(), replace_pool_size_rule():
            program = torch.export.export(
                graph.module, tuple(graph.inputs.values()), dynamic_shapes=shapes, strict=False
            )
    except Exception as error:  # whatever a component does that cannot be traced
        raise ExportError(exporter_message(error)) from error
    torch.export.save(program, path, extra_files={KEY: metadata.to_json()})
    module = torch.export.load(path).module()

    def run(inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        with torch.no_grad():
            outputs = module(*(torch.from_numpy(inputs[name]) for name in graph.inputs))
        return {name: o.numpy() for name, o in zip(graph.outputs, outputs, strict=True)}

    return run


def write_openvino(onnx_path: Path, graph: Exportable, metadata: Metadata, path: Path) -> Graph:
    """Convert an ONNX file to ``path`` (and the weights beside it), and open it again."""
    openvino = import_module("openvino")
    converted = openvino.convert_model(onnx_path)
    converted.set_rt_info(metadata.to_json(), [KEY])
    openvino.save_model(converted, path, compress_to_fp16=metadata.precision == "fp16")
    # As asked for: a CPU with bfloat16 would use that for all of it.
    options = {"INFERENCE_PRECISION_HINT": "f32"} if metadata.precision == "fp32" else {}
    compiled = openvino.compile_model(path, "CPU", options)

    def run(inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        return dict(zip(graph.outputs, compiled(dict(inputs)).values(), strict=True))

    return run


def write_tensorrt(onnx_path: Path, metadata: Metadata, path: Path) -> None:
    """Parse an ONNX file and build an engine for the GPU of this machine.

    Raises:
        ExportError: TensorRT does not know an operator, or cannot build the engine.
    """
    trt = import_module("tensorrt")
    builder = trt.Builder(trt.Logger(trt.Logger.ERROR))
    network = builder.create_network(0)
    parser = trt.OnnxParser(network, trt.Logger(trt.Logger.ERROR))
    if not parser.parse_from_file(str(onnx_path)):
        errors = [str(parser.get_error(number)) for number in range(parser.num_errors)]
        raise ExportError(f"TensorRT cannot read the model: {'; '.join(errors)}")
    options = builder.create_builder_config()
    if metadata.precision == "fp16":
        options.set_flag(trt.BuilderFlag.FP16)
    profile = builder.create_optimization_profile()
    for number in range(network.num_inputs):
        tensor = network.get_input(number)
        shapes = [_engine_shape(tuple(tensor.shape), place) for place in range(3)]
        profile.set_shape(tensor.name, *shapes)
    options.add_optimization_profile(profile)
    engine = builder.build_serialized_network(network, options)
    if engine is None:
        raise ExportError("TensorRT could not build an engine; its log says why")
    path.write_bytes(bytes(engine))
    path.with_suffix(".json").write_text(metadata.to_json())


def _engine_shape(shape: tuple[int, ...], place: int) -> tuple[int, ...]:
    """``shape`` with batch and sides, which are -1, at the least, the best or the largest."""
    sides = [_ENGINE_BATCH[place], *[_ENGINE_SIDES[place]] * len(shape)]
    return tuple(sides[axis] if side == -1 else side for axis, side in enumerate(shape))
