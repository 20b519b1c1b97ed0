"""Weights and operations of a model."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode


def parameters_of(module: nn.Module) -> int:
    """How many numbers a model learns."""
    return sum(parameter.numel() for parameter in module.parameters())


def weights_of(file: Path) -> int:
    """How many floating-point numbers an ONNX file holds: also what normalisation became."""
    kinds = {onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.INT8}
    graph = onnx.load(file).graph
    tensors = [one for one in graph.initializer if one.data_type in kinds]
    return sum(torch.Size(tensor.dims).numel() for tensor in tensors)


def operations_of(run: Callable[[], Any]) -> int:
    """Floating-point operations of a call, as torch counts them.

    Those of convolutions and matrix products, two for each multiplication with its addition, and
    nothing else: normalisation, activations, RoIAlign, suppression and deformable convolutions
    count as 0.
    """
    with FlopCounterMode(display=False) as counter:
        run()
    return counter.get_total_flops()
