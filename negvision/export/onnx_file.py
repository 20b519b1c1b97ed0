"""Write a graph as an ONNX file, with either of torch's exporters."""

import tempfile
from pathlib import Path

import onnx
import torch
from torch import Tensor

from negvision.compat.patches import replace_pool_size_rule
from negvision.engine.quiet import muted
from negvision.errors import ExportError
from negvision.export.graphs import translation
from negvision.export.graphs.choice import Exportable
from negvision.inference.runtime.metadata import KEY, Metadata

# The oldest that torch's exporter writes. The newest is what onnx knows; see `check_opset`.
OLDEST_OPSET = translation.OPSET


def check_opset(opset: int) -> None:
    """Raise ExportError unless ``opset`` is a version that can be written and run here."""
    newest = onnx.defs.onnx_opset_version()
    if not OLDEST_OPSET <= opset <= newest:
        raise ExportError(
            f"--opset {opset}: give a version from {OLDEST_OPSET}, the oldest that torch's "
            f"exporter writes, to {newest}, the newest that onnx {onnx.__version__} knows"
        )


def write_onnx(
    graph: Exportable, metadata: Metadata, opset: int, legacy: bool = False
) -> onnx.ModelProto:
    """``graph`` as an ONNX model with ``metadata`` in it.

    Args:
        graph: Of :func:`negvision.export.graphs.choice.choose_graph`.
        metadata: See :func:`negvision.export.describe.graph_and_metadata`.
        opset: Version of ONNX's operators.
        legacy: Trace with TorchScript, the way of torch before 2.9.

    Raises:
        ExportError: torch could not export it.
    """
    try:
        with torch.no_grad(), muted("torch.onnx", "onnxscript", "onnx_ir"):
            model = (_write_legacy if legacy else _write)(graph, opset)
    except Exception as error:  # whatever a component does that cannot be traced
        raise ExportError(exporter_message(error, legacy)) from error
    _give_defaults(model, graph.defaults)
    onnx.helper.set_model_props(model, {KEY: metadata.to_json()})
    return model


def save(model: onnx.ModelProto, path: Path) -> None:
    """Write ``model``, without what exporters note beside nodes, such as paths of this machine."""
    onnx.checker.check_model(model)
    kept = onnx.ModelProto()
    kept.CopyFrom(model)
    for node in kept.graph.node:
        node.doc_string = ""
        del node.metadata_props[:]
    for value in (*kept.graph.value_info, *kept.graph.input, *kept.graph.output):
        del value.metadata_props[:]
    for weights in kept.graph.initializer:
        del weights.metadata_props[:]
    del kept.graph.metadata_props[:]
    path.write_bytes(kept.SerializeToString())


def _write(graph: Exportable, opset: int) -> onnx.ModelProto:
    with replace_pool_size_rule():
        program = torch.onnx.export(
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
    _name_axes(model, graph)
    return model


def _write_legacy(graph: Exportable, opset: int) -> onnx.ModelProto:
    with (
        tempfile.TemporaryDirectory() as folder,
        translation.registered_for_legacy(opset),
    ):
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
        model = onnx.load(file)
    _name_axes(model, graph)
    return model


def _name_axes(model: onnx.ModelProto, graph: Exportable) -> None:
    """Give the axes that vary their names; the exporters' own are numbers of symbols."""
    for value in (*model.graph.input, *model.graph.output):
        for axis, name in graph.dynamic.get(value.name, {}).items():
            value.type.tensor_type.shape.dim[axis].dim_param = name


def _give_defaults(model: onnx.ModelProto, defaults: dict[str, Tensor]) -> None:
    """Make inputs optional: one that is also an initializer has its value where none is given."""
    for name, value in defaults.items():
        model.graph.initializer.append(onnx.numpy_helper.from_array(value.numpy(), name))


def exporter_message(error: Exception, legacy: bool = False) -> str:
    cause = error
    while cause.__cause__ is not None:
        cause = cause.__cause__
    lines = [line.strip() for line in str(cause).splitlines() if line.strip()]
    which = "TorchScript exporter" if legacy else "exporter"
    way_out = "" if legacy else "\nAnother way that may do: --legacy"
    reason = lines[0] if lines else type(cause).__name__
    return f"torch's {which} could not write the model: {reason}{way_out}"
