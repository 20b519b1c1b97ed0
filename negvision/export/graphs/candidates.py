"""Select the boxes to return: decoding, suppression and a fixed number of boxes.

Shapes depend only on the size of the input: excluded boxes stay, with the score ``ABSENT``.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from negvision.export.graphs.operators import ABSENT, suppress

# mmdet's wh_ratio_clip, which limits the factor by which a box may grow.
_LARGEST_LOG_RATIO = abs(math.log(16 / 1000))


def image_sizes(image: Tensor, sizes: Tensor) -> Tensor:
    """Height and width (B, 2) or (1, 2), float32, to which boxes of an image are clipped.

    Args:
        image: (B, 3, H, W).
        sizes: (B, 2) or (1, 2) int64: sizes without padding; larger values count as H and W.
    """
    height, width = image.shape[-2:]
    full = torch.stack(
        [torch.full((), side, dtype=torch.int64, device=image.device) for side in (height, width)]
    )
    return torch.minimum(sizes, full).float()


def clip_boxes(boxes: Tensor, sizes: Tensor) -> Tensor:
    """``boxes`` (B, K, 4) clipped to images of ``sizes`` (B, 2) or (1, 2)."""
    most = torch.stack([sizes[:, 1], sizes[:, 0], sizes[:, 1], sizes[:, 0]], 1)
    return torch.minimum(boxes.clamp(min=0), most[:, None])


def decode(coder, priors: Tensor, deltas: Tensor, sizes: Tensor) -> Tensor:
    """Boxes (B, K, 4) of deltas (B, K, 4) to priors (B, K, 4), as mmdet's DeltaXYWHBBoxCoder."""
    means, stds = (deltas.new_tensor(values) for values in (coder.means, coder.stds))
    shift, stretch = (deltas * stds + means).split(2, -1)
    center = (priors[..., :2] + priors[..., 2:]) * 0.5
    size = priors[..., 2:] - priors[..., :2]
    center = center + size * shift
    half = size * stretch.clamp(-_LARGEST_LOG_RATIO, _LARGEST_LOG_RATIO).exp() * 0.5
    boxes = torch.cat([center - half, center + half], -1)
    return clip_boxes(boxes, sizes) if coder.clip_border else boxes


def best(scores: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The ``count`` highest of ``scores`` (B, K), descending, and their indices, both (B, count).

    If there are fewer, the rest is ``ABSENT`` at index 0, so that the shape does not depend on K.
    """
    values, indices = F.pad(scores, (0, count), value=ABSENT).topk(count)
    return values, torch.where(values > ABSENT / 2, indices, 0)


def gather(values: Tensor, indices: Tensor) -> Tensor:
    """Rows ``indices`` (B, M) of ``values`` (B, K, D): (B, M, D)."""
    return values.gather(1, indices[..., None].expand(-1, -1, values.shape[-1]))


def large_enough(boxes: Tensor, least: float) -> Tensor:
    """(B, K) bool: whether both sides are longer than ``least``; all are if it is negative."""
    if least < 0:
        return torch.ones_like(boxes[..., 0], dtype=torch.bool)
    return ((boxes[..., 2:] - boxes[..., :2]) > least).all(-1)


def suppress_by_group(
    boxes: Tensor, scores: Tensor, groups: Tensor, nms: dict, limit: int
) -> tuple[Tensor, Tensor]:
    """Non-maximum suppression within each group; returns at most ``limit`` boxes.

    Args:
        boxes: (B, K, 4).
        scores: (B, K), ``ABSENT`` for excluded boxes.
        groups: (B, K), labels or levels.
        nms: As in ``test_cfg``: ``iou_threshold``, ``class_agnostic``.
        limit: M.

    Returns:
        Scores, descending, and indices in K, both (B, M); see :func:`best`.
    """
    if not nms.get("class_agnostic", False):
        # As in mmcv: groups are moved apart so that their boxes do not overlap.
        present = (scores > ABSENT / 2)[..., None]
        side = torch.where(present, boxes, 0).amax((1, 2)) + 1
        boxes = boxes + (groups.to(boxes) * side[:, None])[..., None]
    return best(suppress(boxes, scores, float(nms["iou_threshold"]), limit), limit)


def padded_outputs(
    boxes: Tensor, scores: Tensor, labels: Tensor, ood_scores: Tensor | None
) -> tuple[Tensor, ...]:
    """The outputs of a detector, padded after the last box with zeros, and labels with -1.

    Args:
        boxes: (B, M, 4), ``scores``, ``labels`` and ``ood_scores``: (B, M).

    Returns:
        boxes, scores, labels, ood_scores (unless None), and counts (B,) int64.
    """
    found = scores > ABSENT / 2
    outputs = [
        torch.where(found[..., None], boxes, 0),
        torch.where(found, scores, 0),
        torch.where(found, labels, -1),
    ]
    if ood_scores is not None:
        outputs.append(torch.where(found, ood_scores, 0))
    return *outputs, found.sum(1)
