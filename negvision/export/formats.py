"""Write a graph as ONNX, as an archive of torch.export, or for OpenVINO."""

import contextlib
import tempfile
from collections.abc import Iterator, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch

from negvision.compat.patches import replace_pool_size_rule
from negvision.engine.quiet import muted
from negvision.errors import ExportError
from negvision.export.graphs import translation
from negvision.export.graphs.choice import Exportable
from negvision.inference.runtime.metadata import KEY, Metadata
from negvision.inference.runtime.model import Graph

# File suffix of each format.
SUFFIXES = {"onnx": ".onnx", "torchexport": ".pt2", "openvino": ".xml"}
# The oldest version that torch's exporter writes; the newest is the one that onnx knows.
OLDEST_OPSET = translation.OPSET


def write_onnx(
    graph: Exportable, metadata: Metadata, opset: int, legacy: bool = False
) -> onnx.ModelProto:
    """``graph`` as an ONNX model with ``metadata``.

    Args:
        graph: See :func:`negvision.export.graphs.choice.graph_and_metadata`.
        metadata: See the same.
        opset: Version of the ONNX operators.
        legacy: Use the TorchScript exporter, the default of torch before 2.9.

    Raises:
        ExportError: torch cannot export the graph.
    """
    with _exporting(legacy), muted("torch.onnx", "onnxscript", "onnx_ir"):
        model = (_write_legacy if legacy else _write)(graph, opset)
    # Name the dynamic axes; the exporters' own names are numbers of symbols.
    for value in (*model.graph.input, *model.graph.output):
        for axis, name in graph.dynamic.get(value.name, {}).items():
            value.type.tensor_type.shape.dim[axis].dim_param = name
    # An input that is also an initializer is optional.
    for name, value in graph.defaults.items():
        model.graph.initializer.append(onnx.numpy_helper.from_array(value.numpy(), name))
    onnx.helper.set_model_props(model, {KEY: metadata.to_json()})
    return model


def save(model: onnx.ModelProto, path: Path) -> None:
    """Write ``model``, without the notes of exporters, such as paths of this machine."""
    onnx.checker.check_model(model)
    kept = onnx.ModelProto()
    kept.CopyFrom(model)
    graph = kept.graph
    for node in graph.node:
        node.doc_string = ""
    for part in (*graph.node, *graph.value_info, *graph.input, *graph.output, *graph.initializer):
        del part.metadata_props[:]
    del graph.metadata_props[:]
    path.write_bytes(kept.SerializeToString())


def _write(graph: Exportable, opset: int) -> onnx.ModelProto:
    program: Any = torch.onnx.export(
        graph.module,
        tuple(graph.inputs.values()),
        dynamo=True,
        opset_version=opset,
        input_names=list(graph.inputs),
        output_names=list(graph.outputs),
        dynamic_shapes=tuple(graph.dynamic.get(name) for name in graph.inputs),
        custom_translation_table=translation.table(),
        verbose=False,
    )
    model = program.model_proto
    written = {entry.domain: entry.version for entry in model.opset_import}
    if written.get("") != opset:
        raise ValueError(f"the graph needs operators of opset {written.get('')}, not {opset}")
    return model


def _write_legacy(graph: Exportable, opset: int) -> onnx.ModelProto:
    with tempfile.TemporaryDirectory() as folder, translation.registered_for_legacy(opset):
        file = Path(folder) / "model.onnx"
        torch.onnx.export(
            graph.module,
            tuple(graph.inputs.values()),
            str(file),
            dynamo=False,
            opset_version=opset,
            input_names=list(graph.inputs),
            output_names=list(graph.outputs),
            dynamic_axes=graph.dynamic,
        )
        return onnx.load(file)


def write_torchexport(graph: Exportable, metadata: Metadata, path: Path) -> Graph:
    """Write an archive of torch.export, and load it again.

    Others load it with ``torch.export.load`` after ``import negvision.export.graphs.operators``.
    All inputs have to be given.

    Raises:
        ExportError: torch cannot export the graph.
    """
    dynamic = torch.export.Dim.DYNAMIC
    shapes = tuple(
        dict.fromkeys(graph.dynamic.get(name, ()), dynamic) or None for name in graph.inputs
    )
    with _exporting():
        program = torch.export.export(
            graph.module, tuple(graph.inputs.values()), dynamic_shapes=shapes, strict=False
        )
    torch.export.save(program, path, extra_files={KEY: metadata.to_json()})
    module = torch.export.load(path).module()

    def run(inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        with torch.no_grad():
            outputs = module(*(torch.from_numpy(inputs[name]) for name in graph.inputs))
        return {name: o.numpy() for name, o in zip(graph.outputs, outputs, strict=True)}

    return run


def write_openvino(onnx_path: Path, graph: Exportable, metadata: Metadata, path: Path) -> Graph:
    """Convert an ONNX file to ``path``, with the weights next to it, and load it again."""
    openvino = import_module("openvino")  # optional

    converted = openvino.convert_model(onnx_path)
    converted.set_rt_info(metadata.to_json(), [KEY])
    openvino.save_model(converted, path, compress_to_fp16=metadata.precision == "fp16")
    # Otherwise a CPU with bfloat16 uses that for everything.
    options = {"INFERENCE_PRECISION_HINT": "f32"} if metadata.precision == "fp32" else {}
    compiled = openvino.compile_model(path, "CPU", options)

    def run(inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        return dict(zip(graph.outputs, compiled(dict(inputs)).values(), strict=True))

    return run


@contextlib.contextmanager
def _exporting(legacy: bool = False) -> Iterator[None]:
    """Report any error as ExportError, and write graphs for even and odd sizes."""
    try:
        with torch.no_grad(), replace_pool_size_rule():
            yield
    except Exception as error:  # components that cannot be traced raise any kind
        cause: BaseException = error
        while cause.__cause__ is not None:
            cause = cause.__cause__
        lines = [line.strip() for line in str(cause).splitlines() if line.strip()]
        raise ExportError(
            f"torch's {'TorchScript exporter' if legacy else 'exporter'} cannot write the model: "
            + (lines[0] if lines else type(cause).__name__)
            + ("" if legacy else "\nThe other exporter may work: --legacy")
        ) from error
