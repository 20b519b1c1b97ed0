"""The operators in plain PyTorch, used without compiled kernels.

The assignment gives the same bits as the kernels: elementwise operations of PyTorch round once, as
those of the kernels do, and every sum has the same order.
"""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

_UNION_FLOOR = 1e-6
_CENTER_MARGIN = 0.01
# Pairs of boxes at a time: they are processed in chunks to bound the memory.
_PAIRS_AT_ONCE = 1 << 21
_NEVER = torch.iinfo(torch.int64).max


def box_iou(boxes1: Tensor, boxes2: Tensor, mode: str, eps: float) -> Tensor:
    """Overlap of boxes whose leading dimensions broadcast; see :mod:`negvision.ops.boxes`."""
    ax1, ay1, ax2, ay2 = boxes1.unbind(-1)
    bx1, by1, bx2, by2 = boxes2.unbind(-1)
    zero = boxes1.new_zeros(())
    floor = boxes1.new_full((), eps)
    width = torch.maximum(torch.minimum(ax2, bx2) - torch.maximum(ax1, bx1), zero)
    height = torch.maximum(torch.minimum(ay2, by2) - torch.maximum(ay1, by1), zero)
    inter = width * height
    area1 = (ax2 - ax1) * (ay2 - ay1)
    if mode == "iof":
        return inter / torch.maximum(area1, floor)
    union = torch.maximum(area1 + (bx2 - bx1) * (by2 - by1) - inter, floor)
    iou = inter / union
    if mode == "iou":
        return iou
    enclosing_w = torch.maximum(ax2, bx2) - torch.minimum(ax1, bx1)
    enclosing_h = torch.maximum(ay2, by2) - torch.minimum(ay1, by1)
    if mode == "giou":
        enclosing = torch.maximum(enclosing_w * enclosing_h, floor)
        return iou - (enclosing - union) / enclosing
    diagonal = torch.maximum(enclosing_w * enclosing_w + enclosing_h * enclosing_h, floor)
    dx = 0.5 * ((ax1 + ax2) - (bx1 + bx2))
    dy = 0.5 * ((ay1 + ay2) - (by1 + by2))
    penalty = (dx * dx + dy * dy) / diagonal
    if mode == "ciou":
        angle1 = _arctan((ax2 - ax1) / torch.maximum(ay2 - ay1, floor))
        angle2 = _arctan((bx2 - bx1) / torch.maximum(by2 - by1, floor))
        v = (4 / math.pi**2) * (angle1 - angle2) ** 2
        with torch.no_grad():
            weight = v / torch.maximum(1 - iou + v, floor)
        penalty = penalty + weight * v
    return iou - penalty


def similarity_of(kind: int, scale: Sequence[float]) -> Callable[[Tensor, Tensor], Tensor]:
    """The similarity of boxes whose leading dimensions broadcast, as csrc/similarity.h has it."""
    if kind == 0:
        return lambda boxes1, boxes2: box_iou(boxes1, boxes2, "iou", _UNION_FLOOR)

    def similar(boxes1: Tensor, boxes2: Tensor) -> Tensor:
        distance = similarity_distance(boxes1.double(), boxes2.double(), kind, scale)
        return (-distance).exp().to(torch.float32)

    return similar


def similarity_distance(
    boxes1: Tensor, boxes2: Tensor, kind: int, scale: Sequence[float]
) -> Tensor:
    """The negative logarithm of NWD (``kind`` 1) or SimD (2), in the dtype of the boxes."""
    (low1, high1), (low2, high2) = ((b[..., :2], b[..., 2:]) for b in (boxes1, boxes2))
    offset = 0.5 * ((low1 + high1) - (low2 + high2))
    size1, size2 = (high1 - low1).clamp(min=0), (high2 - low2).clamp(min=0)
    change = size1 - size2
    if kind == 1:
        return _root(_squares(offset) + 0.25 * _squares(change)) / scale[0]
    unit = offset.new_tensor(scale) / (size1 + size2)
    return _root(_squares(offset * unit)) + _root(_squares(change * unit))


def _squares(pair: Tensor) -> Tensor:
    square = pair * pair
    return square[..., 0] + square[..., 1]


def _root(square: Tensor) -> Tensor:
    """With a gradient of 0 at 0, where the root has none."""
    return square.clamp(min=torch.finfo(square.dtype).tiny).sqrt()


def _arctan(ratio: Tensor) -> Tensor:
    return torch.atan(ratio.double()).to(ratio.dtype)


def pairwise_box_iou(boxes1: Tensor, boxes2: Tensor, mode: str, eps: float) -> Tensor:
    """See :func:`negvision.ops.boxes.pairwise_box_iou`."""
    rows = max(1, _PAIRS_AT_ONCE // max(1, len(boxes2)))
    parts = [box_iou(some[:, None], boxes2[None], mode, eps) for some in boxes1.split(rows)]
    return torch.cat(parts)


def atss_assign(
    priors: Tensor,
    num_level_priors: list[int],
    gt_boxes: Tensor,
    num_gts: list[int],
    topk: int,
    valid: Tensor | None,
    ignore_boxes: Tensor | None,
    num_ignored: list[int],
    ignore_iof_thr: float,
    pred_boxes: Tensor | None,
    pred_scores: Tensor | None,
    gt_labels: Tensor | None,
    alpha: float,
    similarity: int = 0,
    scale: Sequence[float] = (),
    min_size: float = 0.0,
) -> tuple[Tensor, Tensor, Tensor]:
    """See :func:`negvision.ops.atss.atss_assign`; the arguments are those of the operator."""
    shape = (len(num_gts), priors.shape[1])
    gt_inds = torch.zeros(shape, dtype=torch.int64, device=priors.device)
    max_overlaps = torch.zeros(shape, dtype=torch.float32, device=priors.device)
    labels_of = torch.full_like(gt_inds, -1)
    gts = gt_boxes.split(num_gts)
    if gt_labels is None:
        gt_labels = torch.zeros(len(gt_boxes), dtype=torch.int64, device=priors.device)
    labels = gt_labels.split(num_gts)
    ignored = ignore_boxes.split(num_ignored) if ignore_boxes is not None else None
    rules = (topk, similarity_of(similarity, scale), min_size)
    for image, (gt, label) in enumerate(zip(gts, labels, strict=True)):
        own = priors[image if len(priors) > 1 else 0]
        candidate = own.new_ones(len(own), dtype=torch.bool)
        if valid is not None:
            candidate = candidate & valid[image]
        if ignored is not None and len(ignored[image]) and ignore_iof_thr > 0:
            iof = pairwise_box_iou(own, ignored[image], "iof", _UNION_FLOOR)
            candidate = candidate & ~(iof > ignore_iof_thr).any(1)
        predicted = None
        if pred_boxes is not None and pred_scores is not None:
            predicted = (pred_boxes[image], pred_scores[image], label, alpha)
        claims = _claims(own, num_level_priors, gt, candidate, predicted, *rules)
        taken = claims > 0
        gt_inds[image] = torch.where(taken, _claim_box(claims) + 1, candidate.long() - 1)
        max_overlaps[image] = torch.where(taken, _claim_overlap(claims), 0.0)
        if len(label):
            choice = torch.where(taken, _claim_box(claims), 0)
            labels_of[image] = torch.where(taken, label[choice], -1)
    return gt_inds, max_overlaps, labels_of


def _claims(priors, num_level_priors, gt, candidate, predicted, topk, similar, min_size) -> Tensor:
    """The highest claim on each prior, (A,): overlap bits above the inverted box index."""
    claims = torch.zeros(len(priors), dtype=torch.int64, device=priors.device)
    if not len(gt) or not len(priors):
        return claims
    at_once = max(1, _PAIRS_AT_ONCE // len(priors))
    for first in range(0, len(gt), at_once):
        some = gt[first : first + at_once]
        index, found = _nearest(priors, num_level_priors, some, topk, candidate)
        label = None
        if predicted is None:
            overlap = similar(priors[index], some[:, None])
        else:
            boxes, logits, labels, alpha = predicted
            label = labels[first : first + at_once]
            known = (label >= 0) & (label < logits.shape[1])
            iou = similar(boxes[index], some[:, None]).double()
            score = logits[index, (label * known)[:, None]].double().neg().exp()
            score = 1.0 / (1.0 + score)
            overlap = (score ** (1.0 - alpha) * iou**alpha).float()
            found = found & known[:, None]
        threshold = _thresholds(overlap, found)
        positive = found & (overlap.double() >= threshold[:, None])
        positive &= _inside(priors[index], some, min_size) & _proper(some)[:, None]
        boxes_of = torch.arange(first, first + len(some), device=priors.device)
        key = overlap.view(torch.int32).long() << 32 | (0xFFFFFFFF - boxes_of)[:, None]
        claims.scatter_reduce_(0, index[positive], key[positive], "amax")
    return claims


def _centers(boxes: Tensor) -> Tensor:
    return (boxes[..., :2] + boxes[..., 2:]) * 0.5


def _nearest(priors, num_level_priors, gt, topk, candidate) -> tuple[Tensor, Tensor]:
    """Prior indices (G, C), by level and then (distance, index), and which of them are valid.

    A level may have fewer candidates than places.
    """
    indices, found, begin = [], [], 0
    for size in num_level_priors:
        rows = slice(begin, begin + size)
        offset = _centers(priors[rows])[None] - _centers(gt)[:, None]
        square = offset * offset
        distance = square[..., 0] + square[..., 1]
        index = torch.arange(begin, begin + size, device=priors.device)
        # The bits of a non-negative float sort like its value, so one key holds both orders.
        key = distance.view(torch.int32).long() << 32 | index
        key = torch.where(distance.isfinite() & candidate[rows], key, _NEVER)
        nearest = key.topk(min(topk, size), largest=False, sorted=True).values
        found.append(nearest != _NEVER)
        indices.append(torch.where(found[-1], nearest & 0xFFFFFFFF, begin))
        begin += size
    return torch.cat(indices, 1), torch.cat(found, 1)


def _thresholds(overlap: Tensor, found: Tensor) -> Tensor:
    """Mean plus unbiased standard deviation of each row, summed in order, in float64."""
    values = overlap.double()
    count = found.sum(1).double()
    total = values.new_zeros(len(values))
    for column, there in zip(values.unbind(1), found.unbind(1), strict=True):
        total = torch.where(there, total + column, total)
    mean = total / count
    squares = torch.zeros_like(total)
    for column, there in zip(values.unbind(1), found.unbind(1), strict=True):
        squares = torch.where(there, squares + (column - mean) * (column - mean), squares)
    return mean + torch.sqrt(squares / (count - 1))


def _inside(priors: Tensor, gt: Tensor, min_size: float) -> Tensor:
    center = _centers(priors)
    more = (gt.new_tensor(min_size) - (gt[:, 2:] - gt[:, :2])).clamp(min=0) * 0.5
    low = center - (gt[:, :2] - more)[:, None]
    high = (gt[:, 2:] + more)[:, None] - center
    margin = priors.new_full((), _CENTER_MARGIN)
    return ((low > margin) & (high > margin)).all(-1)


def _proper(gt: Tensor) -> Tensor:
    size = gt[:, 2:] - gt[:, :2]
    return (size > 0).all(1) & size.prod(1).isfinite()


def _claim_overlap(claims: Tensor) -> Tensor:
    return (claims >> 32).int().view(torch.float32)


def _claim_box(claims: Tensor) -> Tensor:
    return 0xFFFFFFFF - (claims & 0xFFFFFFFF)


def negatives_logsumexp(
    similarities: Tensor,
    row_labels: Tensor,
    column_labels: Tensor,
    diagonal: int,
    bounds: Tensor | None,
    scale: float,
) -> tuple[Tensor, Tensor]:
    """The log-sum of the negatives of each row, (n,), and their number, (n,) int64."""
    kept = _kept(similarities, row_labels, column_labels, diagonal, bounds)
    return (similarities * scale).masked_fill(~kept, -torch.inf).logsumexp(1), kept.sum(1)


def negatives_softmax_(
    similarities: Tensor,
    row_labels: Tensor,
    column_labels: Tensor,
    diagonal: int,
    bounds: Tensor | None,
    scale: float,
    logsumexp: Tensor,
    grad: Tensor,
) -> None:
    """Replace the similarities by the gradient of the log-sums."""
    kept = _kept(similarities, row_labels, column_labels, diagonal, bounds)
    weight = similarities.mul_(scale).sub_(logsumexp[:, None]).clamp_(max=0).exp_()
    weight.mul_(scale * grad[:, None]).masked_fill_(~kept, 0)


def negatives_histogram(
    similarities: Tensor,
    row_labels: Tensor,
    column_labels: Tensor,
    diagonal: int,
    prefixes: Tensor,
    shift: int,
) -> Tensor:
    """Count each byte at ``shift`` in the sortable integers that begin with a prefix."""
    kept = _kept(similarities, row_labels, column_labels, diagonal, None)
    keys = _sortable(similarities[kept])
    above = keys >> shift + 8 if shift + 8 < 64 else torch.zeros_like(keys)
    if similarities.dtype == torch.float64 and shift + 8 < 64:
        above &= (1 << (56 - shift)) - 1  # shifting a signed integer copies its sign
    byte = keys >> shift & 255
    return torch.stack([byte[above == prefix].bincount(minlength=256) for prefix in prefixes])


def _kept(similarities, row_labels, column_labels, diagonal, bounds) -> Tensor:
    kept = row_labels[:, None] != column_labels
    kept = kept & torch.ones_like(kept).triu(diagonal + 1)
    if bounds is not None:
        kept &= ~(similarities < bounds[0]) & ~(similarities > bounds[1])
    return kept


def _sortable(values: Tensor) -> Tensor:
    if values.dtype == torch.float64:
        bits = values.view(torch.int64)
        return torch.where(bits < 0, ~bits, bits | torch.iinfo(torch.int64).min)
    bits = values.view(torch.int32).long()
    return torch.where(bits < 0, -1 - bits, bits + (1 << 31))
