"""Priors, boxes and the slow oracle of the assignment tests."""

import math

import numpy as np
import torch

from negvision.ops import extension_info

COMPILED = extension_info()["loaded"]
STRIDES = (8, 16, 32, 64, 128)


def grid(height, width, strides=STRIDES, scale=8, offset=0.0, shapes=((1.0, 1.0),)):
    """Anchors on grids, as mmdet's AnchorGenerator lays them out; and how many a level has."""
    levels = []
    for stride in strides:
        rows, columns = -(-height // stride), -(-width // stride)
        y, x = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
        centers = (torch.stack([x, y], -1).reshape(-1, 1, 2) + offset) * stride
        half = torch.tensor(shapes) * scale * stride / 2
        levels.append(torch.cat([centers - half, centers + half], -1).reshape(-1, 4))
    return torch.cat(levels).float(), [len(level) for level in levels]


def random_boxes(generator, count, height, width, largest=300.0):
    """Boxes with real coordinates, of sizes from 2 pixels to ``largest``."""
    centers = torch.rand(count, 2, generator=generator) * torch.tensor([width, height])
    half = (torch.rand(count, 2, generator=generator) ** 2 * largest + 2) / 2
    return torch.cat([centers - half, centers + half], 1)


def integer_boxes(generator, count, height, width):
    """Boxes with integer coordinates: their centers tie in distance all the time."""
    low = torch.stack(
        [
            torch.randint(0, width - 8, (count,), generator=generator),
            torch.randint(0, height - 8, (count,), generator=generator),
        ],
        1,
    )
    size = torch.randint(1, 25, (count, 2), generator=generator) * 8
    return torch.cat([low, low + size], 1).float()


SIMILARITIES = (("nwd", None), ("nwd", 40.0), ("simd", None), ("simd", (1.0, 2.0)))


def similarity(kind, scale=None):
    """A function of two boxes, as the papers define it."""
    if kind == "iou":
        return _iou
    c, m, n = 12.8, *((6.13, 4.59) if scale is None or kind == "nwd" else scale)
    c = scale or c

    def similar(a, b):
        a, b = a.astype(np.float64), b.astype(np.float64)
        x, y = ((a[i] + a[i + 2] - b[i] - b[i + 2]) / 2 for i in (0, 1))
        (wa, ha), (wb, hb) = ((max(q[2] - q[0], 0), max(q[3] - q[1], 0)) for q in (a, b))
        w, h = wa - wb, ha - hb
        if kind == "nwd":
            return np.float32(np.exp(-np.sqrt(x * x + y * y + (w / 2) ** 2 + (h / 2) ** 2) / c))
        m_, n_ = m / (wa + wb), n / (ha + hb)
        place = np.sqrt((x * m_) ** 2 + (y * n_) ** 2)
        return np.float32(np.exp(-(place + np.sqrt((w * m_) ** 2 + (h * n_) ** 2))))

    return similar


def oracle(
    priors, num_level_priors, gt, topk=9, valid=None, ignored=None, iof_thr=-1.0, predicted=None,
    similar=None, min_size=0.0,
):  # fmt: skip
    """ATSS of one image, box by box, as the specification reads. Returns gt_inds, max_overlaps."""
    f = np.float32
    p = priors.float().numpy()
    boxes = gt.float().numpy()
    takes_part = np.ones(len(p), bool) if valid is None else valid.numpy().copy()
    for i in range(len(p)) if ignored is not None and iof_thr > 0 else ():
        for box in ignored.float().numpy():
            takes_part[i] &= not _intersection(p[i], box) / max(_area(p[i]), f(1e-6)) > f(iof_thr)
    winners: dict[int, tuple[float, int]] = {}
    with np.errstate(all="ignore"):
        for g, box in enumerate(boxes):
            if not (box[2] > box[0] and box[3] > box[1] and np.isfinite(_area(box))):
                continue
            cx, cy = (box[0] + box[2]) * f(0.5), (box[1] + box[3]) * f(0.5)
            px, py = (p[:, 0] + p[:, 2]) * f(0.5), (p[:, 1] + p[:, 3]) * f(0.5)
            distance = (px - cx) * (px - cx) + (py - cy) * (py - cy)
            candidates, begin = [], 0
            for size in num_level_priors:
                level = [
                    (distance[i], i)
                    for i in range(begin, begin + size)
                    if takes_part[i] and np.isfinite(distance[i])
                ]
                candidates += [i for _, i in sorted(level)[:topk]]
                begin += size
            overlaps = [_overlap(p[i], box, predicted, i, g, similar or _iou) for i in candidates]
            if len(overlaps) < 2:
                continue
            mean = sum(map(float, overlaps)) / len(overlaps)
            variance = sum((float(o) - mean) ** 2 for o in overlaps) / (len(overlaps) - 1)
            x, y = (max(f(min_size) - (box[k + 2] - box[k]), f(0)) * f(0.5) for k in (0, 1))
            low, high = box[:2] - [x, y], box[2:] + [x, y]
            for i, overlap in zip(candidates, overlaps, strict=True):
                inside = min(px[i] - low[0], py[i] - low[1], high[0] - px[i], high[1] - py[i])
                positive = float(overlap) >= mean + math.sqrt(variance) and inside > f(0.01)
                if positive and (i not in winners or overlap > winners[i][0]):
                    winners[i] = (overlap, g)
    inds = torch.from_numpy(np.where(takes_part, 0, -1)).long()
    best = torch.zeros(len(p))
    for i, (overlap, g) in winners.items():
        inds[i], best[i] = g + 1, float(overlap)
    return inds, best


def _area(box):
    return (box[2] - box[0]) * (box[3] - box[1])


def _intersection(a, b):
    width = max(min(a[2], b[2]) - max(a[0], b[0]), np.float32(0))
    return width * max(min(a[3], b[3]) - max(a[1], b[1]), np.float32(0))


def _iou(a, b):
    inter = _intersection(a, b)
    return inter / max(_area(a) + _area(b) - inter, np.float32(1e-6))


def _overlap(prior, box, predicted, i, g, similar):
    if predicted is None:
        return similar(prior, box)
    boxes, logits, labels, alpha = predicted
    score = 1 / (1 + math.exp(-float(logits[i, labels[g]])))
    iou = float(similar(boxes[i].numpy(), box))
    return np.float32(score ** (1 - alpha) * iou**alpha)
