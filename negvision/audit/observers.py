"""What the head of each kind of model computes of every annotation while it trains.

An observer wraps functions of one model. It reads detached tensors on their device, runs no part of
the network again, and never waits for the device.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from negvision.audit.sample_numbers import REGIONS
from negvision.classification.classifier import ScoredClassifier
from negvision.engine.config.model_parts import replace_method
from negvision.errors import ConfigError
from negvision.face.centers import ClassCenters
from negvision.face.recognizer import FaceRecognizer

# Classes of which the cosines with a batch are held at once.
_BLOCK = 1 << 14


class Means(NamedTuple):
    """Of n annotations of a batch; NaN for those without anything to observe."""

    loss: Tensor  # (n,) float32
    own: Tensor
    other: Tensor
    other_class: Tensor  # (n,) int64
    iou: Tensor


class Found(NamedTuple):
    """The strongest predictions on background, K of each of B images; score 0 where fewer."""

    scores: Tensor  # (B, K)
    labels: Tensor  # (B, K)
    boxes: Tensor  # (B, K, 4), in the image as it is trained


class Observer:
    """Observe one model; ``means`` and ``found`` hold what the last training step showed.

    Attributes:
        samples: Data samples of the batch, set before the step.
        wants_found: Whether detections on background are looked for.
    """

    task = ""
    wants_found = True

    def __init__(self) -> None:
        self.samples: Sequence[Any] | None = None
        self.means: Means | None = None
        self.found: Found | None = None
        self._undo: list[Callable[[], None]] = []

    def numbers(self) -> Tensor:
        """(n,) int64 on the CPU: numbers of the annotations of ``means``, -1 for none."""
        return torch.tensor([sample.origin.number for sample in self.samples or ()])

    def close(self) -> None:
        """Give the model its own functions back."""
        for undo in self._undo:
            undo()
        self._undo = []

    def _wrap(self, owner: Any, name: str, observe: Callable) -> None:
        """Call ``observe(result, *args)`` after ``owner.name`` in training steps."""
        function = getattr(owner, name)

        @functools.wraps(function)
        def wrapped(*args, **kwargs):
            result = function(*args, **kwargs)
            if self.samples is not None:
                with torch.no_grad():
                    observe(result, *args, **kwargs)
            return result

        self._undo.append(replace_method(owner, name, wrapped))


def means_of(
    slots: Tensor,
    labels: Tensor,
    probabilities: Tensor,
    losses: Tensor,
    ious: Tensor | None = None,
) -> Means:
    """Means over the rows of each annotation.

    Args:
        slots: (r,) int64, the annotation of each row, from 0; n for rows of none.
        labels: (n,) int64, the class of each annotation.
        probabilities: (r, K).
        losses: (r,).
        ious: (r,), or None.
    """
    n, classes = len(labels), probabilities.shape[1]
    columns = [probabilities, losses[:, None], losses.new_ones(len(losses), 1)]
    columns += [] if ious is None else [ious[:, None]]
    rows = torch.cat([column.float() for column in columns], 1)
    sums = rows.new_zeros(n + 1, rows.shape[1]).index_add_(0, slots, rows)[:n]
    counts = sums[:, classes + 1 : classes + 2]
    means = torch.where(counts > 0, sums / counts, torch.nan)
    own, other, other_class = own_and_other(means[:, :classes], labels)
    iou = torch.full_like(own, torch.nan) if ious is None else means[:, classes + 2]
    return Means(means[:, classes], own, other, other_class, iou)


def own_and_other(scores: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Score of the own class of rows (n, K), and the best other with its class; NaN for K = 1."""
    own = scores.gather(1, labels[:, None])
    if scores.shape[1] == 1:
        return own[:, 0], torch.full_like(own[:, 0], torch.nan), torch.full_like(labels, -1)
    other, other_class = scores.scatter(1, labels[:, None], -torch.inf).max(1)
    return own[:, 0], other, other_class


class ClassificationObserver(Observer):
    """Softmax probabilities and cross-entropy of each image."""

    task = "classification"

    def __init__(self, model: ScoredClassifier) -> None:
        super().__init__()
        self._loss = model.loss
        self._undo.append(model.head.register_forward_hook(self._observe).remove)

    def _observe(self, head: Any, args: tuple, output: Any) -> None:
        if self.samples is None:
            return
        logits = getattr(output, "logits", output).detach().float()
        labels = torch.stack([sample.label for sample in self.samples])
        labels = labels.to(logits.device, non_blocking=True)
        if isinstance(self._loss, torch.nn.CrossEntropyLoss):
            losses = functional.cross_entropy(logits, labels, reduction="none")
        else:
            losses = self._loss(logits, labels, reduction_override="none")
        scores = own_and_other(logits.softmax(1), labels)
        self.means = Means(losses, *scores, torch.full_like(losses, torch.nan))


class FaceObserver(Observer):
    """Cosines of each face with its own center and the nearest other, and its loss."""

    task = "faces"

    def __init__(self, model: FaceRecognizer) -> None:
        super().__init__()
        head = model.head
        if not isinstance(head, ClassCenters) or head.sharded or not hasattr(head, "mean_loss"):
            raise ConfigError(
                "SampleHistoryHook needs class centers that every rank holds in full: "
                "head=dict(type='negvision.UNPGLoss', sharded=False); the head is "
                f"{type(head).__name__}. Change it, or remove the hook from custom_hooks"
            )
        self._losses: Tensor | None = None
        self._wrap(head, "mean_loss", self._keep_losses)
        self._wrap(head, "forward", functools.partial(self._observe, head))

    def _keep_losses(self, mean: Tensor, losses: Tensor) -> None:
        self._losses = losses.detach()

    def _observe(self, head: Any, loss: Tensor, embeddings: Tensor, labels: Tensor) -> None:
        units = functional.normalize(embeddings.detach().float(), dim=1)
        labels = labels.long()
        own = (units * functional.normalize(head.weight[labels], dim=1)).sum(1)
        best, nearest = torch.full_like(own, -torch.inf), torch.full_like(labels, -1)
        for first in range(0, len(head.weight), _BLOCK):
            centers = functional.normalize(head.weight[first : first + _BLOCK].float(), dim=1)
            with torch.autocast(units.device.type, enabled=False):
                cosines = units @ centers.T
            inside = (labels >= first) & (labels < first + len(centers))
            place = (labels - first).clamp(0, len(centers) - 1)[:, None]
            # Only the own center is no other.
            hidden = torch.where(inside[:, None], -torch.inf, cosines.gather(1, place))
            value, index = cosines.scatter_(1, place, hidden).max(1)
            nearest = torch.where(value > best, index + first, nearest)
            best = torch.maximum(best, value)
        best = best.masked_fill(nearest < 0, torch.nan)  # one person alone
        # The losses are those of all ranks in their order.
        losses = torch.full_like(own, torch.nan)
        world, rank = 1, 0
        if torch.distributed.is_initialized():
            world, rank = torch.distributed.get_world_size(), torch.distributed.get_rank()
        if self._losses is not None and len(self._losses) == world * len(own):
            losses = self._losses[rank * len(own) :][: len(own)].float()
        self.means = Means(losses, own, best, nearest, torch.full_like(own, torch.nan))


class SegmentationObserver(Observer):
    """Mean probabilities and cross-entropy of each connected region of a class.

    Pixels are those of the decode head's output, before it is scaled to the size of the labels.
    """

    task = "segmentation"

    def __init__(self, model: Any) -> None:
        super().__init__()
        heads = model.decode_head
        head = heads[-1] if isinstance(heads, torch.nn.ModuleList) else heads
        if not hasattr(head, "loss_by_feat") or getattr(head, "out_channels", 0) < 2:
            raise ConfigError(
                "SampleHistoryHook needs a decode head with a softmax over pixels; the model has "
                f"{type(head).__name__}. Use a head such as FCNHead or UPerHead, or remove the "
                "hook from custom_hooks"
            )
        self._wrap(head, "loss_by_feat", self._observe)

    def numbers(self) -> Tensor:
        origins = [sample.origin for sample in self.samples or ()]
        numbers = [torch.arange(len(one.regions)) + one.number * REGIONS for one in origins]
        return torch.cat(numbers) if numbers else torch.zeros(0, dtype=torch.int64)

    def _observe(self, result: dict, seg_logits: Tensor, batch_data_samples: list) -> None:
        logits = seg_logits.detach()
        of = [label for sample in self.samples or () for label in sample.origin.regions]
        of = torch.tensor(of, dtype=torch.int64).to(logits.device, non_blocking=True)
        slots, own, first = [], [], 0
        for sample in batch_data_samples:
            labels, regions = sample.gt_sem_seg.data[0], sample.gt_regions[0]
            rows, columns = (
                ((torch.arange(n, device=logits.device) + 0.5) * (size / n)).long()
                for n, size in zip(logits.shape[2:], labels.shape, strict=True)
            )
            labels = labels[rows][:, columns]
            rows, columns = (
                i.clamp(max=size - 1)
                for i, size in zip((rows, columns), regions.shape, strict=True)
            )
            slots.append(regions[rows][:, columns].long() - 1 + first)
            # No region: a number before the first of this image.
            slots[-1] = torch.where(slots[-1] < first, len(of), slots[-1])
            own.append(labels.long())
            first += len(sample.origin.regions)
        slots, own = torch.stack(slots).flatten(), torch.stack(own).flatten()
        # A region stands for blocks of pixels, which other labels may reach into.
        padded = functional.pad(of, (0, 1), value=-1)
        slots = torch.where(padded[slots] == own, slots, len(of))
        log = logits.float().log_softmax(1).permute(0, 2, 3, 1).flatten(0, 2)
        place = own.clamp(0, log.shape[1] - 1)[:, None]
        hits = (log.argmax(1) == own).float()
        self.means = means_of(slots, of, log.exp(), -log.gather(1, place)[:, 0], hits)
