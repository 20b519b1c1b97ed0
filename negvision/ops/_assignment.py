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
    compiled = is_compiled_for(on) and hasattr(torch.ops.negvision, name)
    results = (getattr(torch.ops.negvision, name) if compiled else fallback)(*arguments)
    return tuple(each.to(device) for each in results) if on != device.type else results


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
    if len(shape) != len(expected) or any(
        want is not None and want != have for want, have in zip(expected, shape, strict=True)
    ):
        shown = ", ".join("*" if size is None else str(size) for size in expected)
        raise ValueError(f"{name} must have shape ({shown}), got {tuple(tensor.shape)}")
    if like is not None and tensor.device != like.device:
        raise ValueError(f"{name} is on {tensor.device}, the priors on {like.device}")
