"""Overlaps of axis-aligned boxes (IoU, IoF, GIoU, DIoU, CIoU), and similarities."""

from collections.abc import Sequence

import torch
from torch import Tensor

from negvision.ops import fallback
from negvision.ops._assignment import similarity_arguments
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


def box_similarity(
    boxes1: Tensor,
    boxes2: Tensor,
    similarity: str = "nwd",
    scale: float | Sequence[float] | None = None,
) -> Tensor:
    """Similarity of boxes in (0, 1]: it falls with their distance, and boxes apart have one, too.

    With differences of the centers ``x, y`` and of the sides ``w, h``, and sums of the sides
    ``W, H``: ``"nwd"`` is ``exp(-sqrt(x^2 + y^2 + (w^2 + h^2) / 4) / C)``, and ``"simd"`` is
    ``exp(-sqrt((m x / W)^2 + (n y / H)^2) - sqrt((m w / W)^2 + (n h / H)^2))``. NWD depends on the
    size of objects in pixels, so C should be near it; SimD does not. In the papers C is the mean
    size of the objects of a data set, and m and n are the means of ``|x| / W`` and ``|y| / H``
    over all pairs of an object and an anchor of an image.

    Args:
        boxes1, boxes2: Shapes (..., 4) that broadcast, (x1, y1, x2, y2). A box whose sides are
            reversed has no width or height.
        similarity: ``"nwd"``, ``"simd"`` or ``"iou"``.
        scale: C in pixels, or (m, n); None: the papers' values for AI-TOD, 12.8 and (6.13, 4.59).

    Returns:
        Shape (...), in float32 or float64. Gradients reach both; at a distance of 0 they are 0.

    Raises:
        ValueError: Unknown similarity, or a scale that does not fit it.

    Source:
        Wang et al., 2021, "A Normalized Gaussian Wasserstein Distance for Tiny Object Detection",
        arXiv 2110.13389, section 3.2; Shi et al., 2024, "Similarity Distance-Based Label Assignment
        for Tiny Object Detection", arXiv 2407.02394, section III.

    Example:
        >>> box = torch.tensor([0.0, 0.0, 8.0, 8.0])
        >>> apart = box + torch.tensor([12.8, 0.0, 12.8, 0.0])
        >>> box_similarity(box, apart), box_similarity(box, apart, "iou")
        (tensor(0.3679), tensor(0.))
    """
    kind, scales = similarity_arguments(similarity, scale)
    dtype = torch.promote_types(torch.promote_types(boxes1.dtype, boxes2.dtype), torch.float32)
    boxes1, boxes2 = boxes1.to(dtype), boxes2.to(dtype)
    if kind == 0:
        return fallback.box_iou(boxes1, boxes2, "iou", 1e-6)
    return (-fallback.similarity_distance(boxes1, boxes2, kind, scales)).exp()


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
