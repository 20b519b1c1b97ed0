"""Max-IoU assignment of a batch in one call."""

from collections.abc import Sequence

import torch
from torch import Tensor

from negvision.ops._assignment import (
    constant,
    flattened,
    joined,
    per_image,
    require_shape,
    run_operator,
)
from negvision.ops.fallback import _PAIRS_AT_ONCE, _UNION_FLOOR, _proper, box_iou


def max_iou_assign(
    priors: Tensor,
    gt_boxes: Sequence[Tensor],
    gt_labels: Sequence[Tensor],
    pos_iou_thr: float,
    neg_iou_thr: float | tuple[float, float],
    *,
    min_pos_iou: float = 0.0,
    match_low_quality: bool = True,
    gt_max_assign_all: bool = True,
    ignore_boxes: Sequence[Tensor] | None = None,
    ignore_iof_thr: float = -1.0,
    ignore_wrt_candidates: bool = True,
) -> tuple[Tensor, Tensor, Tensor]:
    """Choose positive priors by fixed thresholds of their IoU with boxes.

    A prior is positive for the box with which its IoU is highest if it is at least
    ``pos_iou_thr``, negative if it is below ``neg_iou_thr``, and takes no part in between. With
    ``match_low_quality`` the best priors of a box are positive for it if their IoU is at least
    ``min_pos_iou`` and above 0, whatever the thresholds; of several such boxes the last wins.

    Of equal IoUs the box with the lower index wins, so results are the same on every device and
    number of threads. Memory is O(B A + G); the CUDA kernels do not wait for the host.

    Args:
        priors: Shape (A, 4), shared by all images, or (B, A, 4); (x1, y1, x2, y2) in pixels. Any
            floating dtype; computed in float32.
        gt_boxes: One tensor (G_i, 4) per image; G_i may be 0. A box whose width or height is not
            positive, or whose area is not finite, claims nothing.
        gt_labels: One int64 tensor (G_i,) per image.
        pos_iou_thr: In (0, 1].
        neg_iou_thr: In [0, 1], or a pair: negative are overlaps from the first to below the second.
        min_pos_iou: In [0, 1].
        match_low_quality: See above.
        gt_max_assign_all: Whether all priors with a box's highest IoU count as its best, or the
            first of them only.
        ignore_boxes: One tensor (I_i, 4) per image, or None.
        ignore_iof_thr: A prior takes no part if its intersection with an ignored box is more than
            this share of its own area; 0 or below ignores no prior.
        ignore_wrt_candidates: False: the share is of the ignored box's area.

    Returns:
        ``gt_inds``, (B, A) int64: i + 1 for a positive of the image's box i, 0 for a negative, -1
        for a prior that takes no part. ``max_overlaps``, (B, A) float32: the highest IoU of a
        prior, also of a negative; -1 if it is ignored. ``labels``, (B, A) int64: the label of a
        positive's box, else -1.

    Raises:
        ValueError: Arguments do not match; the message names the expected and the given shape.

    Source:
        Ren et al., NeurIPS 2015, "Faster R-CNN", section 3.1.2.

    Example:
        >>> priors = torch.tensor([[0.0, 0.0, 8.0, 8.0], [4.0, 0.0, 12.0, 8.0]])
        >>> gt_inds, overlaps, labels = max_iou_assign(
        ...     priors, [torch.tensor([[0.0, 0.0, 8.0, 8.0]])], [torch.tensor([5])], 0.5, 0.4)
        >>> gt_inds.tolist(), labels.tolist()
        ([[1, 0]], [[5, -1]])
    """
    images = len(gt_boxes)
    if priors.dim() == 2:
        priors = priors[None]
    require_shape(priors, (None, None, 4), "priors")
    if len(priors) not in (1, images):
        raise ValueError(f"priors are of {len(priors)} images, gt_boxes of {images}")
    low, high = neg_iou_thr if isinstance(neg_iou_thr, tuple) else (0.0, neg_iou_thr)
    gts, num_gts = flattened(gt_boxes, priors, "gt_boxes")
    labels = joined(per_image(gt_labels, images, "gt_labels"), gts).long()
    require_shape(labels, (len(gts),), "gt_labels", priors)
    ignored, num_ignored = None, [0] * images
    if ignore_boxes is not None and ignore_iof_thr > 0:
        per_image(ignore_boxes, images, "ignore_boxes")
        ignored, num_ignored = flattened(ignore_boxes, priors, "ignore_boxes")
    thresholds = [float(x) for x in (pos_iou_thr, low, high, min_pos_iou, ignore_iof_thr)]
    arguments = (
        constant(priors), gts, num_gts, labels, ignored, num_ignored, not ignore_wrt_candidates,
        thresholds, match_low_quality, gt_max_assign_all,
    )  # fmt: skip
    return run_operator("max_iou_assign", _in_pytorch, arguments)


def _in_pytorch(
    priors: Tensor,
    gt_boxes: Tensor,
    num_gts: list[int],
    gt_labels: Tensor,
    ignore_boxes: Tensor | None,
    num_ignored: list[int],
    of_ignored: bool,
    thresholds: list[float],
    match_low_quality: bool,
    assign_all: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """The same without compiled kernels; the arguments are those of the operator."""
    positive, low, high, lowest, ignore_iof = thresholds
    shape = (len(num_gts), priors.shape[1])
    gt_inds = torch.full(shape, -1, dtype=torch.int64, device=priors.device)
    overlaps = torch.zeros(shape, device=priors.device)
    labels = torch.full_like(gt_inds, -1)
    ignored = None if ignore_boxes is None else ignore_boxes.split(num_ignored)
    for image, (gt, label) in enumerate(
        zip(gt_boxes.split(num_gts), gt_labels.split(num_gts), strict=True)
    ):
        own = priors[image if len(priors) > 1 else 0]
        best, excluded = torch.zeros_like(gt_inds[image]), torch.zeros_like(own[:, 0]).bool()
        if ignored is not None:
            for box in ignored[image]:
                pair = (box, own) if of_ignored else (own, box)
                excluded |= box_iou(*pair, "iof", _UNION_FLOOR) > ignore_iof
        last = torch.zeros_like(best)
        at_once = max(1, _PAIRS_AT_ONCE // max(1, len(own)))
        rows = torch.arange(len(gt), device=gt.device)
        for some in rows.split(at_once) if len(own) and len(gt) else ():
            iou = box_iou(own, gt[some, None], "iou", _UNION_FLOOR)
            iou = torch.where((iou > 0) & _proper(gt[some])[:, None] & ~excluded, iou, 0.0)
            number = some[:, None] + 1
            most = iou.amax(0)
            first = torch.where(iou == most, number, len(gt) + 1).amin(0)
            best = torch.where(most > overlaps[image], first, best)
            overlaps[image] = torch.maximum(overlaps[image], most)
            highest = iou.amax(1, keepdim=True)
            matches = (iou == highest) & (highest > 0) & (highest >= lowest)
            if not assign_all:
                matches &= matches.cumsum(1) == 1
            last = torch.maximum(last, torch.where(matches, number, 0).amax(0))
        most = overlaps[image]
        negative = (most >= low) & (most < high) if len(gt) else torch.ones_like(excluded)
        inds = torch.where((best > 0) & (most >= positive), best, negative.long() - 1)
        inds = torch.where(last > 0, last, inds) if match_low_quality else inds
        gt_inds[image] = torch.where(excluded, -1, inds)
        overlaps[image] = torch.where(excluded, -1.0, most)
        if len(gt):
            chosen = label[gt_inds[image].clamp(min=1) - 1]
            labels[image] = torch.where(gt_inds[image] > 0, chosen, -1)
    return gt_inds, overlaps, labels
