"""From the boxes of a head to those that are put out: thresholds, suppression, a fixed number.

Shapes depend on the size of the input alone: what takes no part stays, with the score ``ABSENT``.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from negvision.export.graphs.operators import ABSENT, suppress

# mmdet's clip of the factor by which a box may grow (its wh_ratio_clip).
_LARGEST_LOG_RATIO = abs(math.log(16 / 1000))


def image_sizes(image: Tensor, sizes: Tensor) -> Tensor:
    """Height and width (B, 2) or (1, 2), float32, up to which boxes of an image may reach.

    Args:
        image: (B, 3, H, W).
        sizes: (B, 2) or (1, 2) int64: without the padding; larger values count as H and W.
    """
    height, width = image.shape[-2:]
    whole = torch.stack(
        [torch.full((), side, dtype=torch.int64, device=image.device) for side in (height, width)]
    )
    return torch.minimum(sizes, whole).float()


def clip_boxes(boxes: Tensor, sizes: Tensor) -> Tensor:
    """``boxes`` (B, K, 4) moved into images of ``sizes`` (B, 2) or (1, 2)."""
    most = torch.stack([sizes[:, 1], sizes[:, 0], sizes[:, 1], sizes[:, 0]], 1)
    return torch.minimum(boxes.clamp(min=0), most[:, None])


def decode(coder, priors: Tensor, deltas: Tensor, sizes: Tensor) -> Tensor:
    """Boxes (B, K, 4) of deltas (B, K, 4) to priors (B, K, 4), as mmdet's DeltaXYWHBBoxCoder."""
    means, stds = (deltas.new_tensor(values) for values in (coder.means, coder.stds))
    shift, stretch = (deltas * stds + means).split(2, -1)
    centre = (priors[..., :2] + priors[..., 2:]) * 0.5
    size = priors[..., 2:] - priors[..., :2]
    centre = centre + size * shift
    half = size * stretch.clamp(-_LARGEST_LOG_RATIO, _LARGEST_LOG_RATIO).exp() * 0.5
    boxes = torch.cat([centre - half, centre + half], -1)
    return clip_boxes(boxes, sizes) if coder.clip_border else boxes


def best(scores: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The ``count`` highest of ``scores`` (B, K), falling, and their places, both (B, count).

    Where there are fewer, the rest is ``ABSENT`` at place 0: so ``count`` needs no look at K.
    """
    values, places = F.pad(scores, (0, count), value=ABSENT).topk(count)
    return values, torch.where(values > ABSENT / 2, places, 0)


def gather(values: Tensor, places: Tensor) -> Tensor:
    """Rows ``places`` (B, M) of ``values`` (B, K, D): (B, M, D)."""
    return values.gather(1, places[..., None].expand(-1, -1, values.shape[-1]))


def large_enough(boxes: Tensor, least: float) -> Tensor:
    """(B, K) bool: whether both sides are longer than ``least``; a negative one asks nothing."""
    if least < 0:
        return torch.ones_like(boxes[..., 0], dtype=torch.bool)
    return ((boxes[..., 2:] - boxes[..., :2]) > least).all(-1)


def suppress_by_group(
    boxes: Tensor, scores: Tensor, groups: Tensor, nms: dict, limit: int
) -> tuple[Tensor, Tensor]:
    """Suppression among boxes of the same group, and the ``limit`` boxes that remain.

    Args:
        boxes: (B, K, 4).
        scores: (B, K), ``ABSENT`` for what takes no part.
        groups: (B, K), classes or levels.
        nms: As in ``test_cfg``: ``iou_threshold``, ``class_agnostic``.
        limit: M.

    Returns:
        Scores, falling, and places in K, both (B, M); see :func:`best`.
    """
    if not nms.get("class_agnostic", False):
        # As mmcv: groups lie so far apart that their boxes do not meet.
        present = (scores > ABSENT / 2)[..., None]
        side = torch.where(present, boxes, 0).amax((1, 2)) + 1
        boxes = boxes + (groups.to(boxes) * side[:, None])[..., None]
    return best(suppress(boxes, scores, float(nms["iou_threshold"]), limit), limit)


def padded_outputs(
    boxes: Tensor, scores: Tensor, labels: Tensor, ood_scores: Tensor | None
) -> tuple[Tensor, ...]:
    """The outputs of a detector, with zeros behind the last box of each image, labels -1.

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
