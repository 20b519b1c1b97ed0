"""Overlaps of axis-aligned boxes: IoU, IoF, GIoU, DIoU, CIoU, pairwise and aligned."""

import torch
from torch import Tensor

from negvision.ops import fallback
from negvision.ops._extension import is_compiled_for

MODES = ("iou", "iof", "giou", "diou", "ciou")


def pairwise_box_iou(
    boxes1: Tensor, boxes2: Tensor, mode: str = "iou", eps: float = 1e-6
) -> Tensor:
    """Overlap of every box of one set with every box of another.

    Coordinates are continuous: a box is ``x2 - x1`` wide. Half-precision boxes are computed in
    float32, which is also the dtype of the result. Gradients reach both sets and are deterministic
    on every device. No epsilon is added: it only bounds denominators from below.

    Args:
        boxes1: Shape (N, 4), (x1, y1, x2, y2).
        boxes2: Shape (M, 4).
        mode: ``"iou"``: intersection over union, in [0, 1]. ``"iof"``: intersection over the area
            of ``boxes1``, in [0, 1]. ``"giou"``: in (-1, 1] (Rezatofighi et al., CVPR 2019).
            ``"diou"`` and ``"ciou"``: IoU minus the normalized center distance, and for the second
            minus a term for different aspect ratios, whose weight takes no gradient (Zheng et al.,
            AAAI 2020, eq. 7 and 10).
        eps: Floor of every denominator.

    Returns:
        Shape (N, M).

    Raises:
        ValueError: Wrong shape, unknown mode, or the two sets on different devices.
        TypeError: Boxes that are not floating-point.

    Example:
        >>> boxes = torch.tensor([[0.0, 0.0, 2.0, 2.0], [1.0, 0.0, 3.0, 2.0]])
        >>> pairwise_box_iou(boxes, boxes)
        tensor([[1.0000, 0.3333],
                [0.3333, 1.0000]])
    """
    boxes1, boxes2, code = _checked(boxes1, boxes2, mode)
    if is_compiled_for(boxes1.device.type):
        return torch.ops.negvision.pairwise_box_iou(boxes1, boxes2, code, eps)
    return fallback.pairwise_box_iou(boxes1, boxes2, mode, eps)


def aligned_box_iou(boxes1: Tensor, boxes2: Tensor, mode: str = "iou", eps: float = 1e-6) -> Tensor:
    """Overlap of box i of one set with box i of another.

    Args:
        boxes1: Shape (N, 4), (x1, y1, x2, y2).
        boxes2: Shape (N, 4).
        mode: As in :func:`pairwise_box_iou`.
        eps: Floor of every denominator.

    Returns:
        Shape (N,).

    Raises:
        ValueError: Wrong shape, sets of different sizes, unknown mode, or different devices.
        TypeError: Boxes that are not floating-point.

    Example:
        >>> box = torch.tensor([[0.0, 0.0, 2.0, 2.0]])
        >>> aligned_box_iou(box, box + 2, mode="giou")
        tensor([-0.5000])
    """
    boxes1, boxes2, code = _checked(boxes1, boxes2, mode)
    if len(boxes1) != len(boxes2):
        raise ValueError(f"aligned needs equally many boxes, got {len(boxes1)} and {len(boxes2)}")
    if is_compiled_for(boxes1.device.type):
        return torch.ops.negvision.aligned_box_iou(boxes1, boxes2, code, eps)
    return fallback.box_iou(boxes1, boxes2, mode, eps)


def _checked(boxes1: Tensor, boxes2: Tensor, mode: str) -> tuple[Tensor, Tensor, int]:
    if mode not in MODES:
        raise ValueError(f"mode is {mode!r}; it must be one of {', '.join(MODES)}")
    for name, boxes in (("boxes1", boxes1), ("boxes2", boxes2)):
        if boxes.dim() != 2 or boxes.shape[1] != 4:
            raise ValueError(f"{name} must have shape (N, 4), got {tuple(boxes.shape)}")
        if not boxes.is_floating_point():
            raise TypeError(f"{name} must be floating-point, got {boxes.dtype}")
    if boxes1.device != boxes2.device:
        raise ValueError(f"boxes1 are on {boxes1.device} and boxes2 on {boxes2.device}")
    dtype = torch.promote_types(torch.promote_types(boxes1.dtype, boxes2.dtype), torch.float32)
    return boxes1.to(dtype), boxes2.to(dtype), MODES.index(mode)
