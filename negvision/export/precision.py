"""Convert the network in an ONNX model to float16 or 8 bits; its decoding stays in float32."""

import ast
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import onnx
import onnxruntime
from onnxruntime import quantization
from onnxruntime.transformers import float16
from onnxruntime.transformers.onnx_model import OnnxModel
from torch import nn

from negvision.engine.quiet import muted
from negvision.inference.runtime import ExportedModel
from negvision.ood import AbeTLogits

# Name of the network in the modules of `graphs`.
_NETWORK = "model"
# Operators with weights; others follow from them.
_QUANTIZED = ("Conv", "MatMul", "Gemm")
# Ranges hardly change with more images.
MOST_CALIBRATION_IMAGES = 200


def network_nodes(model: onnx.ModelProto, module: nn.Module) -> set[str]:
    """Names of the nodes to convert: those of the network, except for AbeT's heads.

    Args:
        model: As torch's exporter writes it, with the scopes of nodes. The TorchScript exporter
            writes none.
        module: The exported module; its network is ``module.model``.
    """
    wide = [name for name, part in module.named_modules() if isinstance(part, AbeTLogits)]
    found = set()
    for node in model.graph.node:
        path = _scope(node)
        inside = any(path == name or path.startswith(f"{name}.") for name in wide)
        if path.startswith(f"{_NETWORK}.") and not inside:
            found.add(node.name)
    return found


def _scope(node: onnx.NodeProto) -> str:
    """The module of a node, e.g. ``model.backbone.conv1.``; "" if it is not known."""
    for entry in node.metadata_props:
        if entry.key == "pkg.torch.onnx.name_scopes":
            scopes = [scope for scope in ast.literal_eval(entry.value)[:-1] if scope]
            return f"{scopes[-1]}." if scopes else ""
    return ""


def to_fp16(model: onnx.ModelProto, network: set[str]) -> onnx.ModelProto:
    """``model`` with the nodes in ``network`` in float16; inputs and outputs stay float32."""
    others = [node.name for node in model.graph.node if node.name not in network]
    with muted("root"):
        half = float16.convert_float_to_float16(model, keep_io_types=True, node_block_list=others)
    # The converter appends its casts at the end.
    ordered = OnnxModel(half)
    ordered.topological_sort()
    # It took the shapes of optional inputs from their defaults, so batches would have one image.
    del ordered.model.graph.value_info[:]
    return ordered.model


def to_int8(model: onnx.ModelProto, network: set[str], images: Sequence[Path]) -> onnx.ModelProto:
    """``model`` with 8-bit weights and activations in ``network``, by static quantization.

    Args:
        model: In float32, with our metadata.
        network: Names of nodes.
        images: Files on which the ranges of activations are measured.
    """
    # Errors only: ONNX Runtime warns about every input with a default.
    onnxruntime.set_default_logger_severity(3)
    with tempfile.TemporaryDirectory() as folder:
        source, shaped, target = (Path(folder) / f"{name}.onnx" for name in ("a", "b", "c"))
        source.write_bytes(model.SerializeToString())
        reader = _Reader(ExportedModel(source), images)
        with muted("root"):
            quantization.shape_inference.quant_pre_process(
                str(source), str(shaped), skip_symbolic_shape=True
            )
            prepared = onnx.load(shaped)
            excluded = [node.name for node in prepared.graph.node if node.name not in network]
            quantization.quantize_static(
                str(shaped),
                str(target),
                reader,
                quant_format=quantization.QuantFormat.QDQ,
                op_types_to_quantize=list(_QUANTIZED),
                nodes_to_exclude=excluded,
                per_channel=True,
            )
        return onnx.load(target)


class _Reader(quantization.CalibrationDataReader):
    """The inputs of a model for each image."""

    def __init__(self, model: ExportedModel, images: Sequence[Path]) -> None:
        batches = model.batches(images[:MOST_CALIBRATION_IMAGES])
        self._inputs = map(model.inputs_of, batches)

    def get_next(self) -> Any:
        """Inputs of the next image, None at the end."""
        return next(self._inputs, None)
