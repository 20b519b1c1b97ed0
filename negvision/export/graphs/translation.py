"""The ONNX forms of :mod:`negvision.export.graphs.operators`, for both of torch's exporters.

Each form is written once, in :func:`_forms`, in terms of a function that adds a node to a graph.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import torch
from onnxscript import FLOAT, INT64
from onnxscript import opset18 as op

from negvision.export.graphs import operators  # noqa: F401  (the operators are registered)
from negvision.export.graphs.operators import ABSENT

# The version that torch's exporter writes; it converts to others afterwards.
OPSET = 18

# The operators, and how many of their arguments are tensors.
_OPERATORS = {"suppress": 2, "pool_regions": 3, "fit_to": 3}


def table() -> dict[Callable, Callable]:
    """``custom_translation_table`` of :func:`torch.onnx.export`."""
    own = torch.ops.negvision_export
    return {getattr(own, name).default: form for name, form in _forms(_emit).items()}


@contextlib.contextmanager
def registered_for_legacy(opset: int) -> Iterator[None]:
    """Register the operators with the TorchScript exporter."""
    for name in _OPERATORS:
        torch.onnx.register_custom_op_symbolic(
            f"negvision_export::{name}", partial(_legacy, name), opset
        )
    try:
        yield
    finally:
        for name in _OPERATORS:
            torch.onnx.unregister_custom_op_symbolic(f"negvision_export::{name}", opset)


def _forms(emit: Callable[..., Any]) -> dict[str, Callable]:
    """The operators in ONNX, by name; the current exporter reads their annotations.

    Args:
        emit: Adds a node to a graph, and returns its output.
    """

    def constant(value: int | float | list[int]):
        dtype = torch.float32 if isinstance(value, float) else torch.int64
        return emit("Constant", value=torch.tensor(value, dtype=dtype))

    def suppress(boxes: FLOAT, scores: FLOAT, iou_threshold: float, limit: int) -> FLOAT:
        kept = emit(
            "NonMaxSuppression",
            boxes,
            emit("Unsqueeze", scores, constant([1])),
            constant(limit),
            constant(iou_threshold),
            constant(ABSENT / 2),
        )
        # (n, 3) as image, class, box, with a single class.
        places = emit("Gather", kept, constant([0, 2]), axis=1)
        none = emit("Expand", constant(ABSENT), emit("Shape", scores))
        return emit("ScatterND", none, places, emit("GatherND", scores, places))

    def pool_regions(
        features: Sequence[FLOAT],
        regions: FLOAT,
        levels: INT64,
        scales: Sequence[float],
        size: int,
        sampling_ratio: int,
        aligned: bool,
    ) -> FLOAT:
        column, first, last = (constant(value) for value in ([1], [1], [5]))
        images = emit("Cast", emit("Gather", regions, constant(0), axis=1), to=7)  # int64
        boxes = emit("Slice", regions, first, last, column)
        rows, pooled = [], []
        for level, (feature, scale) in enumerate(zip(features, scales, strict=True)):
            own = emit("NonZero", emit("Equal", levels, constant(level)))
            own = emit("Reshape", own, constant([-1]))
            pooled.append(
                emit(
                    "RoiAlign",
                    feature,
                    emit("Gather", boxes, own, axis=0),
                    emit("Gather", images, own, axis=0),
                    coordinate_transformation_mode="half_pixel" if aligned else "output_half_pixel",
                    output_height=size,
                    output_width=size,
                    sampling_ratio=sampling_ratio,
                    spatial_scale=float(scale),
                )
            )
            rows.append(own)
        joined = emit("Concat", *pooled, axis=0)
        # Each row is written once, to its own index.
        places = emit("Unsqueeze", emit("Concat", *rows, axis=0), column)
        return emit("ScatterND", joined, places, joined)

    def fit_to(values: FLOAT, size: INT64, out_size: INT64, align_corners: bool) -> FLOAT:
        shape = emit("Shape", values)
        zero, two, four = (constant([number]) for number in (0, 2, 4))
        part = emit("Min", size, emit("Slice", shape, two, four))
        cut = emit("Slice", values, constant([0, 0]), part, constant([2, 3]))
        out = emit("Where", emit("Greater", out_size, zero), out_size, part)
        return emit(
            "Resize",
            cut,
            None,
            None,
            emit("Concat", emit("Slice", shape, zero, two), out, axis=0),
            coordinate_transformation_mode="align_corners" if align_corners else "half_pixel",
            mode="linear",
        )

    return {form.__name__: form for form in (suppress, pool_regions, fit_to)}


def _emit(name: str, *inputs, value: torch.Tensor | None = None, **attributes):
    """Add a node for the current exporter."""
    if value is None:
        return getattr(op, name)(*inputs, **attributes)
    numbers = value.tolist()
    kind = "float" if value.is_floating_point() else "int"
    constant: Any = op.Constant
    return constant(**{f"value_{kind}{'s' if isinstance(numbers, list) else ''}": numbers})


def _legacy(name: str, graph, *arguments):
    """Write an operator for the TorchScript exporter."""
    # The last letter of the name of an attribute is its type.
    letters = {int: "i", float: "f", str: "s", torch.Tensor: "t"}

    def emit(kind: str, *inputs, **attributes):
        inputs = [_left_out(graph) if value is None else value for value in inputs]
        named = {f"{key}_{letters[type(value)]}": value for key, value in attributes.items()}
        return graph.op(kind, *inputs, **named)

    count = _OPERATORS[name]
    tensors = [
        list(value.node().inputs()) if value.node().kind() == "prim::ListConstruct" else value
        for value in arguments[:count]
    ]
    return _forms(emit)[name](*tensors, *map(_number, arguments[count:]))


def _left_out(graph):
    """The value for an input that is not given."""
    nothing = graph.op("prim::Constant")
    nothing.setType(torch._C.OptionalType.ofTensor())
    return nothing


def _number(value) -> Any:
    """The value of a constant of a TorchScript graph."""
    return (
        value.node().t("value").tolist() if value.type().isSubtypeOf(_TENSOR) else value.toIValue()
    )


_TENSOR = torch._C.TensorType.get()
