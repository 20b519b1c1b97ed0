"""The ONNX forms of :mod:`negvision.export.graphs.operators`, for both of torch's exporters.

Each form is written once, in terms of ``emit``, which adds a node to a graph.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from onnxscript import FLOAT, INT64
from onnxscript import opset18 as op

from negvision.export.graphs import operators  # noqa: F401  (the operators are registered)
from negvision.export.graphs.operators import ABSENT

# The version that torch's exporter writes; it converts to others afterwards.
OPSET = 18

Emit = Callable[..., Any]


def table() -> dict[Callable, Callable]:
    """``custom_translation_table`` of :func:`torch.onnx.export`."""
    own = torch.ops.negvision_export
    return {
        own.suppress.default: _suppress,
        own.pool_regions.default: _pool_regions,
        own.fit_to.default: _fit_to,
    }


@contextlib.contextmanager
def registered_for_legacy(opset: int) -> Iterator[None]:
    """Register the operators with the TorchScript exporter."""
    names = {
        "suppress": _legacy_suppress,
        "pool_regions": _legacy_pool_regions,
        "fit_to": _legacy_fit_to,
    }
    for name, symbolic in names.items():
        torch.onnx.register_custom_op_symbolic(f"negvision_export::{name}", symbolic, opset)
    try:
        yield
    finally:
        for name in names:
            torch.onnx.unregister_custom_op_symbolic(f"negvision_export::{name}", opset)


def _write_suppress(emit: Emit, boxes, scores, iou_threshold: float, limit: int):
    kept = emit(
        "NonMaxSuppression",
        boxes,
        emit("Unsqueeze", scores, _constant(emit, [1])),
        _constant(emit, limit),
        _constant(emit, iou_threshold),
        _constant(emit, ABSENT / 2),
    )
    # (n, 3) as image, class, box, with a single class.
    places = emit("Gather", kept, _constant(emit, [0, 2]), axis=1)
    none = emit("Expand", _constant(emit, ABSENT), emit("Shape", scores))
    return emit("ScatterND", none, places, emit("GatherND", scores, places))


def _write_pool_regions(
    emit: Emit, features: Sequence, regions, levels, scales, size, sampling_ratio, aligned
):
    column, first, last = (_constant(emit, value) for value in ([1], [1], [5]))
    images = emit("Cast", emit("Gather", regions, _constant(emit, 0), axis=1), to=7)  # int64
    boxes = emit("Slice", regions, first, last, column)
    rows, pooled = [], []
    for level, (feature, scale) in enumerate(zip(features, scales, strict=True)):
        own = emit("NonZero", emit("Equal", levels, _constant(emit, level)))
        own = emit("Reshape", own, _constant(emit, [-1]))
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


def _write_fit_to(emit: Emit, values, size, out_size, align_corners: bool):
    shape = emit("Shape", values)
    zero, two, four = (_constant(emit, [number]) for number in (0, 2, 4))
    part = emit("Min", size, emit("Slice", shape, two, four))
    cut = emit("Slice", values, _constant(emit, [0, 0]), part, _constant(emit, [2, 3]))
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


def _constant(emit: Emit, value: int | float | list[int]):
    dtype = torch.float32 if isinstance(value, float) else torch.int64
    return emit("Constant", value=torch.tensor(value, dtype=dtype))


def _suppress(boxes: FLOAT, scores: FLOAT, iou_threshold: float, limit: int) -> FLOAT:
    return _write_suppress(_emit_script, boxes, scores, iou_threshold, limit)


def _pool_regions(
    features: Sequence[FLOAT],
    regions: FLOAT,
    levels: INT64,
    scales: Sequence[float],
    size: int,
    sampling_ratio: int,
    aligned: bool,
) -> FLOAT:
    return _write_pool_regions(
        _emit_script, features, regions, levels, scales, size, sampling_ratio, aligned
    )


def _fit_to(values: FLOAT, size: INT64, out_size: INT64, align_corners: bool) -> FLOAT:
    return _write_fit_to(_emit_script, values, size, out_size, align_corners)


def _emit_script(name: str, *inputs, value: torch.Tensor | None = None, **attributes):
    if value is None:
        return getattr(op, name)(*inputs, **attributes)
    numbers = value.tolist()
    kind = "float" if value.is_floating_point() else "int"
    constant: Any = op.Constant
    return constant(**{f"value_{kind}{'s' if isinstance(numbers, list) else ''}": numbers})


def _legacy_suppress(graph, boxes, scores, iou_threshold, limit):
    numbers = _number(iou_threshold), _number(limit)
    return _write_suppress(_emit_to(graph), boxes, scores, *numbers)


def _legacy_pool_regions(graph, features, regions, levels, *options):
    unpacked = list(features.node().inputs())
    return _write_pool_regions(
        _emit_to(graph), unpacked, regions, levels, *(_number(option) for option in options)
    )


def _legacy_fit_to(graph, values, size, out_size, align_corners):
    return _write_fit_to(_emit_to(graph), values, size, out_size, _number(align_corners))


def _emit_to(graph) -> Emit:
    # The last letter of the name of an attribute is its type.
    letters = {int: "i", float: "f", str: "s", torch.Tensor: "t"}

    def emit(name: str, *inputs, **attributes):
        inputs = [_left_out(graph) if value is None else value for value in inputs]
        named = {f"{key}_{letters[type(value)]}": value for key, value in attributes.items()}
        return graph.op(name, *inputs, **named)

    return emit


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
