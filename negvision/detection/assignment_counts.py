"""How many positive priors boxes get in training, by their size and by level."""

from __future__ import annotations

import functools
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from mmengine.hooks import Hook
from torch import Tensor

from negvision.engine.config.model_parts import replace_method, unwrapped
from negvision.errors import text_table
from negvision.registry import HOOKS

SIZES = ("small", "medium", "large")
# Areas in square pixels where medium and large begin, as in COCO.
_AREAS = (32**2, 96**2)
_PREFIX = "train/boxes"
# Counted iterations of which a point of a curve is the mean.
_RECENT = 20


@dataclass
class AssignmentCounts:
    """Sums over images.

    Args:
        by_size: (3, 3) int64 by size: boxes, boxes without a positive, positives. A box is small
            below 32 x 32 pixels, large from 96 x 96, as large as the network sees it.
        by_level: (L,) int64, positives on each level; empty if the levels are not known.
    """

    by_size: Tensor
    by_level: Tensor

    @classmethod
    def of(
        cls, gt_inds: Tensor, boxes: Tensor, level_sizes: Sequence[int] = ()
    ) -> AssignmentCounts:
        """Count one image; nothing waits for the device.

        Args:
            gt_inds: (A,), i + 1 for a positive of box i.
            boxes: (G, 4), x1, y1, x2, y2.
            level_sizes: Priors of each level; () if not known.

        Example:
            >>> boxes = torch.tensor([[0.0, 0.0, 8.0, 8.0], [0.0, 0.0, 99.0, 99.0]])
            >>> counts = AssignmentCounts.of(torch.tensor([0, 2, 2, -1]), boxes, (3, 1))
            >>> counts.by_size.tolist(), counts.by_level.tolist()
            ([[1, 1, 0], [0, 0, 0], [1, 0, 2]], [2, 0])
        """
        own = gt_inds.clamp(min=0)
        count = torch.zeros(len(boxes) + 1, dtype=torch.int64, device=gt_inds.device)
        # More than the boxes are of ignored ones (negvision.IgnoringAssigner).
        count.scatter_add_(0, own * (own <= len(boxes)), torch.ones_like(own))
        positives = count[1:]
        area = (boxes[:, 2:] - boxes[:, :2]).prod(1)
        size = (area >= _AREAS[0]).long() + (area >= _AREAS[1])
        rows = torch.stack([torch.ones_like(positives), (positives == 0).long(), positives], 1)
        by_size = rows.new_zeros(len(SIZES), 3).index_add_(0, size, rows)
        if not level_sizes:
            return cls(by_size, by_size.new_zeros(0))
        levels = [(level > 0).sum() for level in gt_inds.split(list(level_sizes))]
        return cls(by_size, torch.stack(levels))

    def __add__(self, other: AssignmentCounts) -> AssignmentCounts:
        if len(self.by_level) != len(other.by_level):  # of another model, or not known
            return AssignmentCounts(self.by_size + other.by_size, self.by_level[:0])
        return AssignmentCounts(self.by_size + other.by_size, self.by_level + other.by_level)

    def means(self) -> dict[str, float]:
        """``without``: share of boxes without a positive; ``positives``: positives of a box, both
        also by size; ``level_N``: share of the positives that lie on level N. Where there are any.
        """
        rows = {"": self.by_size.sum(0), **dict(zip(SIZES, self.by_size, strict=True))}
        found = {}
        for size, (boxes, without, positives) in ((k, v.tolist()) for k, v in rows.items()):
            if boxes:
                end = f"_{size}" * bool(size)
                found[f"without{end}"] = without / boxes
                found[f"positives{end}"] = positives / boxes
        levels = self.by_level.tolist()
        if sum(levels):
            found |= {f"level_{n}": here / sum(levels) for n, here in enumerate(levels)}
        return found

    def table(self) -> str:
        """A table of the boxes by size."""
        rows = [
            [name, boxes, f"{without} ({without / boxes:.1%})" if boxes else "-"]
            + [f"{positives / boxes:.1f}" if boxes else "-"]
            for name, (boxes, without, positives) in zip(SIZES, self.by_size.tolist(), strict=True)
        ]
        return text_table(["boxes", "number", "without a positive", "positives a box"], rows)


def similarity_scales(
    images: Iterable[tuple[Tensor, Tensor]],
) -> tuple[float, float, float] | None:
    """C of NWD, and m and n of SimD, for boxes (G, 4) and priors (A, 4) of each image.

    C is the mean of the root of the boxes' areas; m and n are the means, over all pairs of a box
    and a prior of an image, of the distance of their centers in x and y in sums of their sides.
    None without boxes; see :func:`negvision.ops.box_similarity`.

    Example:
        >>> similarity_scales([(torch.tensor([[0.0, 0, 4, 4]]), torch.tensor([[4.0, 0, 12, 16]]))])
        (4.0, 0.5, 0.3)
    """
    sizes, ratios = [], []
    for boxes, priors in images:
        (low, high), (near, far) = ((x[:, :2].double(), x[:, 2:].double()) for x in (boxes, priors))
        sizes.append((high - low).prod(1).sqrt())
        for own_low, own_high in zip(low, high, strict=True):
            offset = (own_low + own_high - near - far).abs() / 2
            ratios.append((offset / (own_high - own_low + far - near)).mean(0))
    if not ratios:
        return None
    m, n = torch.stack(ratios).mean(0).tolist()
    return torch.cat(sizes).mean().item(), m, n


@HOOKS.register_module()
class AssignmentCountHook(Hook):
    """Log which boxes get positives in training, by size, and on which levels.

    A box without a positive teaches the network nothing, and most of them are small: see
    ``docs/small-objects.md``. In one of ``every`` iterations the hook counts what the assigner of
    the dense head (or RPN) returns. Curves ``boxes/without`` (the share of boxes without a
    positive), ``boxes/positives`` (positives of a box), both also by size, and ``boxes/level_N``
    (share of the positives), over the last 20 counted iterations, go to the log file, the trackers
    and the report; the console shows a table at the end. With several processes the counts are
    those of the first. Sizes are in pixels of the network's input: small below 32 x 32, large from
    96 x 96.

    The runner adds this hook to any config; ``default_hooks=dict(assignments=None)`` removes it.
    Models without such an assigner are left alone.

    Args:
        every: Iterations of which one is counted.

    Raises:
        ValueError: ``every`` is below 1.

    Example:
        >>> default_hooks = dict(assignments=dict(type="negvision.AssignmentCountHook", every=1))
    """

    priority = "NORMAL"

    def __init__(self, every: int = 10) -> None:
        if every < 1:
            raise ValueError(f"every must be at least 1, got {every}")
        self.every = every
        self._new: list[AssignmentCounts] = []
        self._recent: deque[AssignmentCounts] = deque(maxlen=_RECENT)
        self._total: AssignmentCounts | None = None
        self._counts = False
        self._undo: list[Callable[[], None]] = []

    def before_train(self, runner) -> None:
        """Listen to the assigner."""
        model = unwrapped(runner.model)
        heads = [getattr(model, name, None) for name in ("bbox_head", "rpn_head")]
        assigners = [getattr(head, "assigner", None) for head in heads]
        assigner = next((one for one in assigners if one is not None), None)
        for name, count in (("assign_batch", self._count_batch), ("assign", self._count_image)):
            if hasattr(assigner, name):
                listening = self._listening(getattr(assigner, name), count)
                self._undo.append(replace_method(assigner, name, listening))

    def after_train(self, runner) -> None:
        """Show the table, and listen no more."""
        while self._undo:
            self._undo.pop()()
        if self._total is not None and self._total.by_size[:, 0].any():
            part = f", one iteration in {self.every} counted" * (self.every > 1)
            runner.logger.info(f"positives in training{part}:\n{self._total.table()}")

    def before_train_iter(self, runner, batch_idx, data_batch=None) -> None:
        self._counts = runner.iter % self.every == 0

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        self._counts = False
        if not self._new:
            return
        new = functools.reduce(AssignmentCounts.__add__, self._new)
        self._new.clear()
        new = AssignmentCounts(new.by_size.cpu(), new.by_level.cpu())
        self._total = new if self._total is None else self._total + new
        self._recent.append(new)
        shown = functools.reduce(AssignmentCounts.__add__, self._recent)
        for name, value in shown.means().items():
            runner.message_hub.update_scalar(f"{_PREFIX}/{name}", value)

    def _listening(self, assign, count):
        @functools.wraps(assign)
        def listened(*args, **kwargs):
            # An assigner may call its own other method.
            active, self._counts = self._counts, False
            try:
                result = assign(*args, **kwargs)
            finally:
                self._counts = active
            if active:
                count(result, args, kwargs)
            return result

        return listened

    @torch.no_grad()
    def _count_batch(self, result, args: tuple, kwargs: dict) -> None:
        _, sizes, gts, *_ = *args, *kwargs.values()
        for gt_inds, gt in zip(result[0], gts, strict=True):
            self._add(gt_inds, gt, sizes)

    @torch.no_grad()
    def _count_image(self, result, args: tuple, kwargs: dict) -> None:
        # Heads for ATSS pass the numbers of priors before the boxes.
        sizes = kwargs.get("num_level_priors") or next(
            (one for one in args if isinstance(one, list)), ()
        )
        gts = [kwargs.get("gt_instances"), *args[1:]]
        gt = next((one for one in gts if hasattr(one, "bboxes")), None)
        if gt is not None:
            self._add(result.gt_inds, gt, sizes)

    def _add(self, gt_inds: Tensor, gt, sizes: Sequence[int]) -> None:
        boxes = getattr(gt.bboxes, "tensor", gt.bboxes)
        if boxes.dim() == 2 and boxes.shape[-1] == 4:  # not rotated
            self._new.append(AssignmentCounts.of(gt_inds, boxes.float(), sizes))
