"""Predict a large image in overlapping tiles, and join what they show."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np

from negvision.data.images.tiles import Tiles, Window
from negvision.errors import ConfigError
from negvision.inference.runtime.results import Detections

# Overlap, within what two tiles share, from which their boxes are of one object.
_SAME = 0.5
# Pixels from an inner edge of its tile within which a box may be cut.
_EDGE = 3


def predict_in_tiles(
    predict: Callable[[Iterable[np.ndarray], int], Iterable],
    image: np.ndarray,
    tiles: Tiles,
    batch_size: int = 1,
) -> Detections:
    """The boxes of an image that a detector finds in its tiles.

    Args:
        predict: The detector's method; called with tiles and the batch size.
        image: (H, W, 3) uint8.
        tiles: If it is one tile, the result is that of the image.
        batch_size: Tiles in a batch.

    Raises:
        ConfigError: The detector predicts masks.
    """
    windows = tiles.windows(*image.shape[:2])
    parts = (np.ascontiguousarray(image[y1:y2, x1:x2]) for x1, y1, x2, y2 in windows)
    found: list[Detections] = list(predict(parts, batch_size))
    if any(one.masks is not None for one in found):
        raise ConfigError(
            "tiles: the model predicts masks, and only boxes are joined. Leave --tiles"
        )
    return found[0] if len(found) == 1 else join(found, windows, tiles.merge)


def join(found: Sequence[Detections], windows: Sequence[Window], merge: str = "nms") -> Detections:
    """Join the boxes of tiles to those of the image, each object once.

    Two boxes of one class and of two tiles are one object if they agree on what both tiles show:
    within the region that the tiles share, the IoU of the boxes is at least 0.5. So a piece of an
    object joins the whole that its neighbor sees, and pieces of an object that no tile shows as a
    whole join each other. Each tile gives at most one box to an object, the pairs of highest IoU
    first; a box that agrees with a better one and is left over is dropped, as in NMS. The object
    has the highest score. Its box is that of the tiles that show it as a whole, as ``merge`` says
    (see :class:`negvision.data.images.tiles.Tiles`), or else the box around its pieces.

    Args:
        found: Of each tile, in its pixels.
        windows: The tiles.
        merge: "nms" or "fusion".

    Example:
        >>> left = Detections(np.array([[6.0, 2, 10, 6]]), np.array([0.9]), np.array([0]))
        >>> right = Detections(np.array([[0.0, 2, 8, 6]]), np.array([0.8]), np.array([0]))
        >>> joined = join([left, right], [(0, 0, 10, 10), (6, 0, 16, 10)])
        >>> joined.boxes.tolist(), joined.scores.tolist()
        ([[6.0, 2.0, 14.0, 6.0]], [0.9])
    """
    tile = np.repeat(np.arange(len(found)), [len(one) for one in found])
    windows_of = np.asarray(windows, np.float64)
    offset = np.array([w[:2] * 2 for w in windows], np.float32)[tile]
    boxes = np.concatenate([one.boxes.reshape(-1, 4) for one in found]) + offset
    columns = {
        name: np.concatenate([getattr(one, name) for one in found])
        for name in ("scores", "labels", "ood_scores", "unknown")
        if getattr(found[0], name) is not None
    }
    scores, labels = columns["scores"], columns["labels"]
    groups = _Groups(tile, scores)
    pairs = _agreeing(boxes, labels, tile, windows_of)
    for one, other in pairs:
        groups.join(one, other)
    dropped = groups.left_over(pairs)

    # A box is a piece if it reaches an edge of its tile that is not one of the image.
    own, around = windows_of[tile], [*windows_of[:, :2].min(0), *windows_of[:, 2:].max(0)]
    gap = np.abs(boxes - own)
    piece = ((gap <= _EDGE) & (own != around)).any(1)
    joined, best = [], []
    for members in groups.members():
        if len(members) == 1 and members[0] in dropped:
            continue
        first = members[np.argmax(scores[members])]
        whole = [i for i in members if not piece[i]]
        if not whole:
            box = np.concatenate([boxes[members, :2].min(0), boxes[members, 2:].max(0)])
        elif merge == "fusion" and scores[whole].sum() > 0:
            box = np.average(boxes[whole], axis=0, weights=scores[whole])
        else:
            box = boxes[whole[int(np.argmax(scores[whole]))]]
        joined.append(box)
        best.append(first)
    if not joined:
        return found[0]._rows(np.zeros(0, np.int64))
    order = np.argsort(-scores[best], kind="stable")
    chosen = {name: values[best][order] for name, values in columns.items()}
    return Detections(boxes=np.array(joined, boxes.dtype)[order], **chosen)


def _agreeing(
    boxes: np.ndarray, labels: np.ndarray, tile: np.ndarray, windows: np.ndarray
) -> list[tuple[int, int]]:
    """Pairs of boxes of two tiles that agree on what both show, by falling IoU there."""
    found: list[tuple[float, int, int]] = []
    places = [np.flatnonzero(tile == number) for number in range(len(windows))]
    lows = np.maximum(windows[:, None, :2], windows[:, :2])
    highs = np.minimum(windows[:, None, 2:], windows[:, 2:])
    for t, u in zip(*np.nonzero(np.triu((highs > lows).all(-1), 1)), strict=True):
        own, others = places[t], places[u]
        region = [*lows[t, u], *lows[t, u]], [*highs[t, u], *highs[t, u]]
        a, b = np.clip(boxes[own], *region)[:, None], np.clip(boxes[others], *region)
        size = np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2])
        shared = size.clip(min=0).prod(-1)
        areas = [(c[..., 2:] - c[..., :2]).prod(-1) for c in (a, b)]
        iou = shared / np.maximum(areas[0] + areas[1] - shared, np.finfo(np.float64).tiny)
        same = (iou >= _SAME) & (labels[own][:, None] == labels[others])
        for i, j in zip(*np.nonzero(same), strict=True):
            found.append((-iou[i, j], int(own[i]), int(others[j])))
    return [(i, j) for _, i, j in sorted(found)]


class _Groups:
    """Boxes of one object: at most one of each tile."""

    def __init__(self, tile: np.ndarray, scores: np.ndarray) -> None:
        self._scores = scores
        self._of = list(range(len(tile)))
        self._members = {i: [i] for i in self._of}
        self._tiles = {i: {int(t)} for i, t in enumerate(tile)}

    def join(self, one: int, other: int) -> None:
        """Unless they are joined, or a tile would give two boxes."""
        kept, moved = self._of[one], self._of[other]
        if kept == moved or self._tiles[kept] & self._tiles[moved]:
            return
        self._tiles[kept] |= self._tiles.pop(moved)
        for i in self._members.pop(moved):
            self._of[i] = kept
            self._members[kept].append(i)

    def left_over(self, pairs: Sequence[tuple[int, int]]) -> set[int]:
        """Of the pairs that are not joined, the ends with the lower score."""
        apart = [pair for pair in pairs if self._of[pair[0]] != self._of[pair[1]]]
        return {i if self._scores[i] < self._scores[j] else j for i, j in apart}

    def members(self) -> list[list[int]]:
        return list(self._members.values())
