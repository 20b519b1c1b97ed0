"""Assignments by predictions in plain PyTorch, as csrc/prediction_math.h computes them."""

from collections.abc import Sequence

import torch
from torch import Tensor

from negvision.ops.fallback import _UNION_FLOOR, box_iou, similarity_of

_TASK_ALIGNED, _CONTAINED, _SIM_OTA, _SOFT_LABEL = range(4)
_MARGINS = (0.01, 1e-9, 0.0, 0.0)
_COST_OF_NONE = 16.118095650958319788  # -log(1e-7)
_PAIRS_AT_ONCE = 1 << 18
_NEVER = torch.iinfo(torch.int64).max


def assign_by_predictions(
    priors: Tensor,
    boxes: Tensor,
    scores: Tensor,
    class_costs: Tensor | None,
    gt_boxes: Tensor,
    num_gts: list[int],
    gt_labels: Tensor,
    gt_centers: Tensor | None,
    rule: int,
    topk: int,
    weights: list[float],
    similarity: int = 0,
    scale: Sequence[float] = (),
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """See :mod:`negvision.ops.predictions`; the arguments are those of the operator."""
    gt_inds = torch.zeros(boxes.shape[:2], dtype=torch.int64, device=boxes.device)
    labels = torch.full_like(gt_inds, -1)
    overlaps = torch.zeros_like(gt_inds, dtype=torch.float32)
    metrics = torch.zeros_like(overlaps)
    if gt_centers is None:
        gt_centers = (gt_boxes[:, :2] + gt_boxes[:, 2:]) * 0.5
    each = (x.split(num_gts) for x in (gt_boxes, gt_labels, gt_centers))
    for image, (gt, label, center) in enumerate(zip(*each, strict=True)):
        if not len(gt) or not boxes.shape[1]:
            continue
        costs = None if class_costs is None else class_costs[image].double()
        own = priors[image if len(priors) > 1 else 0]
        similar = similarity_of(similarity, scale)
        pairs = _Pairs(
            rule, own, boxes[image], scores[image], costs, gt, label, center, weights, similar
        )
        taken, box = pairs.settled(topk)
        i = taken.nonzero().squeeze(1)
        overlap, key = pairs.keys(i, box[i][None])
        value = _value(key[0])
        gt_inds[image, i] = box[i] + 1
        labels[image, i] = label[box[i]]
        overlaps[image, i] = overlap[0]
        value = value if rule >= _SIM_OTA else -value
        metrics[image, i] = torch.where(key[0] == _NEVER, 0.0, value)
    return gt_inds, overlaps, labels, metrics


class _Pairs:
    """The priors and boxes of one image: what each pair is worth."""

    def __init__(
        self, rule, priors, boxes, scores, costs, gt, label, center, weights, similar
    ) -> None:
        self.rule, self.priors, self.boxes, self.scores = rule, priors, boxes, scores
        self.costs, self.gt, self.label, self.center = costs, gt, label, center
        self.weights, self.similar = weights, similar
        self.places = priors[:, :2] if rule >= _SIM_OTA else (priors[:, :2] + priors[:, 2:]) * 0.5
        size = gt[:, 2:] - gt[:, :2]
        self.proper = (size > 0).all(1) & size.prod(1).isfinite()
        self.proper &= (label >= 0) & (label < scores.shape[1])
        self.label = torch.where(self.proper, label, 0)

    def settled(self, topk: int) -> tuple[Tensor, Tensor]:
        """Which priors are positive, and the box of each."""
        count, device = len(self.priors), self.priors.device
        claims = torch.zeros(count, dtype=torch.int64, device=device)
        number = torch.zeros_like(claims)
        admitted = self._admitted() if self.rule >= _SIM_OTA else None
        everything = torch.arange(count, device=device)
        for some in self._chunks(len(self.gt), count):
            measure, key = self.keys(everything, some[:, None])
            touching = measure > 0
            if admitted is None:
                key = torch.where(touching, key, _NEVER)
            else:
                key, touching = torch.where(admitted, key, _NEVER), touching & admitted
            key = torch.where(key == _NEVER, key, key | everything)
            best = key.topk(min(topk, count), largest=False, sorted=True).values
            chosen = best != _NEVER
            if admitted is not None:
                highest = torch.where(touching, measure, 0).topk(best.shape[1]).values.double()
                total = highest.new_zeros(len(some))
                for column in highest.unbind(1):
                    total = total + column
                places = torch.arange(best.shape[1], device=device)
                chosen &= places < total.long().clamp(min=1)[:, None]
            index = torch.where(chosen, best & 0x7FFFFFFF, 0)
            if self.rule == _TASK_ALIGNED:
                chosen &= self._inside(index, some[:, None])
            claim = measure.gather(1, index).view(torch.int32).long() << 32
            claim |= (0xFFFFFFFF - some)[:, None]
            claims.scatter_reduce_(0, index[chosen], claim[chosen], "amax")
            number.index_add_(0, index[chosen], torch.ones_like(index[chosen]))
        taken = claims > 0
        box = torch.where(taken, 0xFFFFFFFF - (claims & 0xFFFFFFFF), 0)
        if self.rule != _TASK_ALIGNED:
            contested = (number > 1).nonzero().squeeze(1)
            every_box = torch.arange(len(self.gt), device=device)[:, None]
            for part in self._chunks(len(contested), len(self.gt)):
                i = contested[part]
                measure, key = self.keys(i, every_box)
                if self.rule == _CONTAINED:
                    free = self._inside(i, every_box) & self.proper[:, None]
                    key = torch.where(free, _key(torch.zeros_like(free), -measure), _NEVER)
                # The first of equals, on every device.
                box[i] = torch.where(key == key.amin(0), every_box, len(self.gt)).amin(0)
        return taken, box

    def _chunks(self, count: int, others: int) -> tuple[Tensor, ...]:
        at_once = max(1, _PAIRS_AT_ONCE // max(1, others))
        return torch.arange(count, device=self.gt.device).split(at_once) if count else ()

    def _inside(self, i: Tensor, g: Tensor) -> Tensor:
        margin = self.places.new_full((), _MARGINS[self.rule])
        low, high = self.places[i] - self.gt[g, :2], self.gt[g, 2:] - self.places[i]
        return ((low > margin) & (high > margin)).all(-1)

    def _central(self, i: Tensor, g: Tensor) -> Tensor:
        reach, place, middle = self.priors[i, 2:] * self.weights[2], self.places[i], self.center[g]
        return ((place - (middle - reach) > 0) & ((middle + reach) - place > 0)).all(-1)

    def _admitted(self) -> Tensor:
        admitted = torch.zeros(len(self.priors), dtype=torch.bool, device=self.priors.device)
        everything = torch.arange(len(self.priors), device=self.priors.device)
        for some in self._chunks(len(self.gt), len(self.priors)):
            g = some[:, None]
            free = self._inside(everything, g)
            if self.rule == _SIM_OTA:
                free = free | self._central(everything, g)
            admitted |= (free & self.proper[g]).any(0)
        return admitted

    def keys(self, i: Tensor, g: Tensor) -> tuple[Tensor, Tensor]:
        """Overlaps and keys without an index of priors ``i`` and boxes ``g``, broadcast."""
        gt, boxes = self.gt[g], self.boxes[i]
        iou = measure = self.similar(boxes, gt)
        if self.rule == _CONTAINED:
            complete = box_iou(gt, boxes, "ciou", _UNION_FLOOR)
            measure = torch.where((iou > 0) & (complete > 0), complete, 0.0)
        score = self.scores[i, self.label[g]].double()
        overlap, second = measure.double(), torch.zeros_like(measure, dtype=torch.bool)
        if self.rule <= _CONTAINED:
            metric = _power(score, self.weights[0]) * _power(overlap, self.weights[1])
            value = -metric.float()
            free = measure > 0
            if self.rule == _CONTAINED:
                free &= self._inside(i, g)
            self._refuse(score, free)
            free &= (score >= 0) & (score <= 1) & (value < 0)
        else:
            value, second = self._cost(i, g, score, overlap)
            free = torch.ones_like(second)
        free = free & value.isfinite() & self.proper[g]
        return measure, torch.where(free, _key(second, value), _NEVER)

    def _cost(self, i: Tensor, g: Tensor, s: Tensor, overlap: Tensor) -> tuple[Tensor, Tensor]:
        cost = torch.where(overlap == 0, _COST_OF_NONE, -(overlap + 1e-7).log()) * self.weights[1]
        if self.rule == _SIM_OTA:
            self._refuse(s, overlap > 0)
            outside = (s < 0) | (s > 1)
            without, chosen = (x.clamp(min=-100) for x in (torch.log1p(-s), s.log()))
            rest = (self.costs[i] + without - chosen).clamp(min=0)
            cost = torch.where(outside, torch.nan, cost + self.weights[0] * rest)
            return cost.float(), ~(self._inside(i, g) & self._central(i, g))
        share, rest, hinge = 1 / (1 + (-s).exp()), torch.log1p((-s.abs()).exp()), s.clamp(min=0)
        cost = cost + (self.costs[i] - (hinge + rest) * share * share).clamp(min=0)
        cost = cost + (hinge - s * overlap + rest) * (overlap - share) * (overlap - share)
        x, y = (self.places[i].double() - self.center[g].double()).unbind(-1)
        distance = (x * x + y * y).sqrt() / self.priors[i, 2].double() - self.weights[2]
        value = (cost + torch.pow(10.0, distance)).float()
        return value, torch.zeros_like(value, dtype=torch.bool)

    def _refuse(self, score: Tensor, used: Tensor) -> None:
        if score.is_cpu and (used & ((score < 0) | (score > 1))).any():
            raise RuntimeError(
                "a score lies outside [0, 1]: scores must be probabilities, not logits"
            )


def _power(base: Tensor, exponent: float) -> Tensor:
    whole = int(exponent) if exponent <= 16 else 0
    if exponent not in (whole, whole + 0.5):
        return base**exponent
    result = torch.ones_like(base)
    for _ in range(whole):
        result = result * base
    return result if exponent == whole else result * base.sqrt()


def _key(second: Tensor, value: Tensor) -> Tensor:
    """The order of pairs: first class, lower value; room for an index in the lower 31 bits."""
    bits = value.view(torch.int32).long() & 0xFFFFFFFF
    sortable = torch.where(bits >= 1 << 31, 0xFFFFFFFF - bits, bits + (1 << 31))
    return torch.where(second, 0, torch.iinfo(torch.int64).min) | sortable << 31


def _value(key: Tensor) -> Tensor:
    sortable = key >> 31 & 0xFFFFFFFF
    bits = torch.where(sortable >= 1 << 31, sortable - (1 << 31), 0xFFFFFFFF - sortable)
    return torch.where(bits >= 1 << 31, bits - (1 << 32), bits).int().view(torch.float32)
