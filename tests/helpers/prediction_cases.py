"""Predictions, boxes and the slow oracle of assignments by predictions."""

import math

import numpy as np
import torch

from helpers.atss_cases import similarity
from negvision.ops import (
    aligned_box_iou,
    dynamic_soft_label_assign,
    sim_ota_assign,
    tal_assign,
)
from negvision.ops import (
    predictions as module,
)

RULES = ("task_aligned", "contained", "sim_ota", "soft_label")
WEIGHTS = {
    "task_aligned": (1.0, 6.0, 0.0),
    "contained": (0.5, 6.0, 0.0),
    "sim_ota": (1.0, 3.0, 2.5),
    "soft_label": (1.0, 3.0, 3.0),
}


def arguments(rule, case):
    """Priors, boxes, scores and boxes of ``case`` for the public function of a rule."""
    points, squares, boxes, logits, gt, labels = case
    priors = points if rule in ("sim_ota", "soft_label") else squares
    if rule == "contained":
        priors = points[:, [0, 1, 0, 1]]
    return priors, boxes, logits if rule == "soft_label" else logits.sigmoid(), gt, labels


def assign(
    rule, priors, boxes, scores, gts, labels, topk=5, weights=None, centers=None, alike=None
):
    """A batch: gt_inds, overlaps, labels, and metrics where there are any."""
    a, b, r = weights or WEIGHTS[rule]
    given = priors, boxes, scores, gts, labels, topk
    if rule == "task_aligned":
        kind, scale = alike or ("iou", None)
        return tal_assign(*given, alpha=a, beta=b, similarity=kind, similarity_scale=scale)
    if rule == "contained":
        return module._assign(*given, module._CONTAINED, [a, b, 0.0])
    if rule == "sim_ota":
        return sim_ota_assign(*given, center_radius=r, cls_weight=a, iou_weight=b)
    return dynamic_soft_label_assign(*given, center_radius=r, iou_weight=b, gt_centers=centers)


def predictions(seed, count=5, size=64, classes=4, strides=(8, 16, 32), dtype=torch.float32):
    """Points with strides, their squares, predicted boxes and logits, boxes, and labels.

    Half of the predictions lie about a box, the others about their prior.
    """
    g = torch.Generator().manual_seed(seed)
    points = torch.cat(
        [
            torch.cartesian_prod(torch.arange(0, size, s), torch.arange(0, size, s))
            .flip(1).add(s / 2)[:, [0, 1, 0, 1]]
            .mul(torch.tensor([1, 1, 0, 0])).add(torch.tensor([0, 0, s, s]))
            for s in strides
        ]
    )  # fmt: skip
    squares = torch.cat([points[:, :2] - 2 * points[:, 2:], points[:, :2] + 2 * points[:, 2:]], 1)
    middle = torch.rand(count, 2, generator=g) * size
    half = (torch.rand(count, 2, generator=g) ** 2 * size + 3) / 2
    gt = torch.cat([middle - half, middle + half], 1)
    about = squares
    if count:
        chosen = gt[torch.randint(count, (len(points),), generator=g)]
        about = torch.where(torch.rand(len(points), 1, generator=g) < 0.5, chosen, squares)
    boxes = about + torch.randn(len(points), 4, generator=g) * 4
    logits = torch.randn(len(points), classes, generator=g) * 2 - 1
    labels = torch.randint(classes, (count,), generator=g)
    return tuple(x.to(dtype) for x in (points, squares, boxes, logits, gt)) + (labels,)


def oracle(rule, priors, boxes, scores, gt, labels, topk, weights, centers=None, alike=None):
    """One image, pair by pair, as the specification reads: gt_inds, overlaps, metrics."""
    f = np.float32
    priors, boxes, scores, gt = (x.numpy() for x in (priors, boxes, scores, gt))
    dynamic = rule in ("sim_ota", "soft_label")
    place = priors[:, :2] if dynamic else (priors[:, :2] + priors[:, 2:]) * f(0.5)
    margin = f({"task_aligned": 0.01, "contained": 1e-9}.get(rule, 0))
    count = len(priors)

    def inside(i, g):
        low, high = place[i] - gt[g, :2], gt[g, 2:] - place[i]
        return min(*low, *high) > margin

    def central(i, g):
        reach, middle = priors[i, 2:] * f(weights[2]), middles[g]
        return min(*(place[i] - (middle - reach)), *((middle + reach) - place[i])) > 0

    def iou(i, g):
        a, b = boxes[i], gt[g]
        if alike is not None:
            return similarity(*alike)(a, b)
        w = max(min(a[2], b[2]) - max(a[0], b[0]), f(0))
        h = max(min(a[3], b[3]) - max(a[1], b[1]), f(0))
        union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - w * h
        return f(w * h / max(union, f(1e-6)))

    def measure(i, g):
        plain = iou(i, g)
        if rule != "contained" or not plain > 0:
            return plain
        pair = torch.from_numpy(gt[g])[None], torch.from_numpy(boxes[i])[None]
        return f(max(aligned_box_iou(*pair, "ciou").item(), 0))

    def value(i, g):
        """Lower is better; None: no candidate."""
        overlap, s = float(measure(i, g)), float(scores[i, labels[g]])
        if not dynamic:
            metric = f(s ** weights[0] * overlap ** weights[1]) if overlap > 0 else f(0)
            return (False, -metric) if metric > 0 else None
        if not any_box[i]:
            return None
        cost, logits = -math.log(overlap + 1e-7) * weights[1], scores[i].astype(float)
        if rule == "sim_ota":
            wanted = np.arange(len(logits)) == int(labels[g])
            with np.errstate(divide="ignore"):
                terms = -np.maximum(np.log(np.where(wanted, logits, 1 - logits)), -100)
            return not (inside(i, g) and central(i, g)), f(cost + terms.sum() * weights[0])
        for c, logit in enumerate(logits):
            target = overlap if c == int(labels[g]) else 0.0
            share = 1 / (1 + math.exp(-logit))
            entropy = -target * math.log(share) - (1 - target) * math.log1p(-share)
            cost += entropy * (target - share) ** 2
        distance = math.dist(map(float, place[i]), map(float, middles[g])) / float(priors[i, 2])
        return False, f(cost + 10.0 ** (distance - weights[2]))

    middles = (gt[:, :2] + gt[:, 2:]) * f(0.5) if centers is None else centers.numpy()
    proper = [(b[2:] > b[:2]).all() and np.isfinite((b[2:] - b[:2]).prod()) for b in gt]
    real = [g for g in range(len(gt)) if proper[g]]
    any_box = [
        any(inside(i, g) or (rule == "sim_ota" and central(i, g)) for g in real)
        for i in range(count)
    ]
    values = {(i, g): value(i, g) for g in real for i in range(count)}
    claims: dict[int, list[int]] = {}
    for g in real:
        free = [i for i in range(count) if values[i, g] and math.isfinite(values[i, g][1])]
        if rule == "contained":
            free = [i for i in free if inside(i, g)]
        k = topk
        if dynamic:
            found = (float(iou(i, g)) for i in range(count) if any_box[i])
            highest = sorted((x for x in found if x > 0), reverse=True)
            k = max(1, int(sum(highest[:topk])))
        for i in sorted(free, key=lambda i: (*values[i, g], i))[:k]:
            if rule != "task_aligned" or inside(i, g):
                claims.setdefault(i, []).append(g)
    inds, overlaps, metrics = np.zeros(count, int), np.zeros(count, f), np.zeros(count, f)
    for i, wanting in claims.items():
        if len(wanting) == 1 or rule == "task_aligned":
            best = max(wanting, key=lambda g: (measure(i, g), -g))
        elif rule == "contained":
            best = max((g for g in real if inside(i, g)), key=lambda g: (measure(i, g), -g))
        else:
            best = min((g for g in real if values[i, g]), key=lambda g: (*values[i, g], g))
        inds[i], overlaps[i] = best + 1, measure(i, best)
        worth = values[i, best]
        metrics[i] = abs(worth[1]) if worth else 0
    return tuple(map(torch.from_numpy, (inds, overlaps, metrics)))
