"""What the assignment operators share: their arguments and how they are run."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from negvision.ops._extension import is_compiled_for

# Thresholds and costs are computed in float64; these devices hand the assignment to the CPU.
_WITHOUT_FLOAT64 = {"mps"}


def run_operator(name: str, fallback: Callable, arguments: tuple) -> Any:
    """Call the compiled operator ``name``, or the function that computes the same without it.

    The first argument is on the device of all tensors. Returns the tuple of results.
    """
    device = arguments[0].device
    on = "cpu" if device.type in _WITHOUT_FLOAT64 else device.type
    if on != device.type:
        arguments = tuple(each.cpu() if isinstance(each, Tensor) else each for each in arguments)
    # An operator is absent from libraries built before it.
    compiled = getattr(torch.ops.negvision, name, None) if is_compiled_for(on) else None
    results = (compiled or fallback)(*arguments)
    return tuple(each.to(device) for each in results) if on != device.type else results


# Similarities of the operators, each with its scales by default: for NWD and SimD the values for
# AI-TOD, whose objects are 12.8 pixels large on average.
SIMILARITIES: dict[str, tuple[float, ...]] = {"iou": (), "nwd": (12.8,), "simd": (6.13, 4.59)}


def similarity_arguments(
    similarity: str, scale: float | Sequence[float] | None
) -> tuple[int, list[float]]:
    """The number of a similarity and its scales, as the operators take them.

    Raises:
        ValueError: Unknown similarity, another number of scales, or one that is not above 0.

    Example:
        >>> similarity_arguments("nwd", None), similarity_arguments("simd", (5, 4))
        ((1, [12.8]), (2, [5.0, 4.0]))
    """
    if similarity == "iou" and scale is None:
        return 0, []
    if similarity not in SIMILARITIES:
        raise ValueError(
            f"similarity is {similarity!r}; it must be one of {', '.join(SIMILARITIES)}"
        )
    if scale is None:
        scale = SIMILARITIES[similarity]
    scales = [float(each) for each in (scale if isinstance(scale, Sequence) else [scale])]
    wanted = len(SIMILARITIES[similarity])
    if len(scales) != wanted or not all(0 < each < float("inf") for each in scales):
        kind = ("takes no scale", "takes one scale (C, in pixels)", "takes two scales (m and n)")
        raise ValueError(
            f"similarity_scale is {scale!r}; {similarity} {kind[wanted]}"
            + " above 0" * (wanted > 0)
        )
    return list(SIMILARITIES).index(similarity), scales


def per_image(values: Sequence[Tensor], count: int, name: str) -> Sequence[Tensor]:
    """The values, of which there must be ``count``."""
    if len(values) != count:
        raise ValueError(f"{name} are of {len(values)} images, not {count}")
    return values


def flattened(boxes: Sequence[Tensor], like: Tensor, name: str) -> tuple[Tensor, list[int]]:
    """The boxes of all images in one float32 tensor, and their number per image."""
    for i, own in enumerate(boxes):
        if own.dim() != 2 or own.shape[1] != 4:
            raise ValueError(f"{name}[{i}] must have shape (n, 4), got {tuple(own.shape)}")
        if own.device != like.device:
            raise ValueError(f"{name}[{i}] are on {own.device}, the priors on {like.device}")
    if not boxes:
        return like.new_zeros((0, 4), dtype=torch.float32), []
    return constant(joined(boxes, like)), [len(own) for own in boxes]


def joined(tensors: Sequence[Tensor], like: Tensor) -> Tensor:
    if not tensors:
        return like.new_zeros(0)
    return torch.cat(list(tensors)) if len(tensors) > 1 else tensors[0]


def constant(values: Tensor) -> Tensor:
    """In float32 without a gradient; the tensor itself if it already is."""
    return (values.detach() if values.requires_grad else values).float()


def require_shape(
    tensor: Tensor, expected: tuple[int | None, ...], name: str, like: Tensor | None = None
) -> None:
    shape = tensor.shape
    fits = len(shape) == len(expected)
    for want, have in zip(expected, shape, strict=False):
        fits = fits and want in (None, have)
    if not fits:
        shown = ", ".join("*" if size is None else str(size) for size in expected)
        raise ValueError(f"{name} must have shape ({shown}), got {tuple(tensor.shape)}")
    if like is not None and tensor.device != like.device:
        raise ValueError(f"{name} is on {tensor.device}, the priors on {like.device}")
