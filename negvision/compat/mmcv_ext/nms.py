"""Non-maximum suppression: hard, soft, and with the suppressed boxes grouped."""

import numpy as np
import torch
from torch import Tensor

from negvision.compat.mmcv_ext.kernels import load_torchvision_kernels
from negvision.compat.mmcv_ext.precision import upcast

load_torchvision_kernels()


def nms(boxes: Tensor, scores: Tensor, iou_threshold: float, offset: int) -> Tensor:
    """Indices of the boxes that survive hard NMS, by falling score.

    Args:
        boxes: (N, 4) as x1, y1, x2, y2.
        scores: (N,).
        iou_threshold: a box goes where its IoU with a kept one is greater than this.
        offset: 0, or 1 where x2 and y2 are the last pixels inside: a width is x2 - x1 + offset.

    Returns:
        (K,) int64. Equal scores keep the order of the input.
    """
    boxes, scores = upcast(boxes, scores)
    # Moving x2 and y2 makes every width, height and overlap longer by the offset.
    boxes = boxes + boxes.new_tensor([0, 0, offset, offset])
    return torch.ops.torchvision.nms(boxes, scores, iou_threshold)


def nms_match(dets: Tensor, iou_threshold: float) -> list[list[int]]:
    """Group every box with the kept box that suppresses it.

    Unlike :func:`nms`, an IoU equal to the threshold suppresses, as in mmcv.

    Args:
        dets: (N, 5) as x1, y1, x2, y2, score.
        iou_threshold: a box joins the group of a kept one from this IoU on.

    Returns:
        One list of indices into ``dets`` per kept box, by falling score; the kept box is first,
        those it suppresses follow by falling score.
    """
    from torchvision.ops import box_iou  # loads slowly

    (dets,) = upcast(dets)
    boxes = dets[:, :4]
    remaining = dets[:, 4].sort(descending=True, stable=True).indices
    groups = []
    while len(remaining):
        kept, others = remaining[:1], remaining[1:]
        iou = box_iou(boxes[kept], boxes[others])[0]
        suppressed = iou >= iou_threshold
        groups.append(kept.tolist() + others[suppressed].tolist())
        remaining = others[~suppressed]
    return groups


def softnms(boxes, scores, dets, iou_threshold, sigma, min_score, method, offset) -> Tensor:
    """Soft-NMS (Bodla et al., "Soft-NMS: improving object detection with one line of code",
    ICCV 2017), on CPU tensors as mmcv passes them.

    The box with the highest score is taken, the scores of the others decay with their IoU with
    it, and boxes below ``min_score`` go; this repeats until no box is left. As in mmcv, the
    first box taken stays whatever its score. Equal scores are taken in the order of the input
    (mmcv: in an order that depends on its swaps).

    Args:
        boxes: (N, 4) as x1, y1, x2, y2.
        scores: (N,).
        dets: (N, 5), the output: box and decayed score in the first K rows.
        iou_threshold: IoU from which the methods 0 and 1 act.
        sigma: width of the Gaussian of method 2, which acts on every overlap.
        min_score: boxes with a lower score go.
        method: 0 naive (a score becomes 0), 1 linear (1 - IoU), 2 Gaussian (exp(-IoU^2 / sigma)).
        offset: 0 or 1, added to every width and height.

    Returns:
        (K,) int64, indices into ``boxes`` in the order they were taken.
    """
    # Many small steps, each depending on the one before: NumPy has the lower cost per step.
    remaining_boxes, remaining_scores = (t.numpy() for t in upcast(boxes.detach(), scores.detach()))
    remaining_scores = remaining_scores.copy()
    remaining = np.arange(len(remaining_boxes))
    taken, taken_scores = [], []
    while len(remaining):
        best = int(remaining_scores.argmax())
        taken.append(int(remaining[best]))
        taken_scores.append(float(remaining_scores[best]))
        iou = _iou_with(remaining_boxes[best], remaining_boxes, offset)
        if method == 0:
            remaining_scores[iou >= iou_threshold] = 0
        elif method == 1:
            remaining_scores *= np.where(iou >= iou_threshold, 1 - iou, 1)
        else:
            remaining_scores *= np.exp(-(iou**2) / sigma)
        stays = remaining_scores >= min_score
        stays[best] = False
        remaining = remaining[stays]
        remaining_boxes = remaining_boxes[stays]
        remaining_scores = remaining_scores[stays]
    indices = torch.tensor(taken, dtype=torch.long)
    dets[: len(taken), :4] = boxes[indices]
    dets[: len(taken), 4] = torch.tensor(taken_scores, dtype=torch.float64)
    return indices


def _iou_with(box: np.ndarray, boxes: np.ndarray, offset: int) -> np.ndarray:
    """IoU of one box with many; two boxes without any area have an IoU of 0."""
    top_left = np.maximum(box[:2], boxes[:, :2])
    bottom_right = np.minimum(box[2:], boxes[:, 2:])
    intersection = (bottom_right - top_left + offset).clip(min=0).prod(axis=1)
    areas = (boxes[:, 2:] - boxes[:, :2] + offset).prod(axis=1)
    union = (box[2:] - box[:2] + offset).prod() + areas - intersection
    return np.divide(intersection, union, out=np.zeros_like(union), where=union != 0)
