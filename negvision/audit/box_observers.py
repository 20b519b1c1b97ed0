"""What detection heads compute of every box while they train, and what they find on background."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import torch
from mmdet.models.dense_heads import ATSSHead as MMDetATSSHead
from mmdet.models.dense_heads import RetinaHead
from mmdet.models.roi_heads.bbox_heads import ConvFCBBoxHead
from mmdet.structures.bbox import get_box_tensor
from mmengine.structures import InstanceData
from torch import Tensor
from torch.nn import functional

from negvision.audit.observers import Found, Means, Observer, means_of
from negvision.detection.heads.atss_heads import ATSSFCOSHead, ATSSHead, ATSSRetinaHead
from negvision.detection.heads.dense import decode_deltas, flatten_level, grid_priors, valid_priors
from negvision.detection.heads.ood_heads import AbeTATSSHead
from negvision.engine.config.model_parts import replace_method
from negvision.errors import ConfigError
from negvision.ops import aligned_box_iou, pairwise_box_iou

# Not their subclasses, which may train in another way.
_DENSE = (ATSSHead, ATSSRetinaHead, ATSSFCOSHead, AbeTATSSHead, MMDetATSSHead, RetinaHead)
# On CUDA, positives per box of the batch that are looked at; their number is not known there.
_POSITIVES = 64
# Predictions on background to keep of an image, and candidates for them.
_KEPT, _CANDIDATES = 8, 32
# Those that overlap an annotation by this IoU are predictions of it.
_KNOWN = 0.3


def box_observer(model: Any) -> Observer:
    """The observer of a detector.

    Raises:
        ConfigError: Its head is none of those that can be observed.
    """
    head = getattr(model, "bbox_head", None)
    roi_head = getattr(getattr(model, "roi_head", None), "bbox_head", None)
    if isinstance(roi_head, torch.nn.ModuleList):
        roi_head = roi_head[-1]
    if type(head) in _DENSE:
        return DenseObserver(head)
    if isinstance(roi_head, ConvFCBBoxHead):
        return RoIObserver(roi_head)
    found = roi_head or head
    raise ConfigError(
        f"SampleHistoryHook cannot observe {type(model).__name__}"
        + (f" with {type(found).__name__}" if found is not None else "")
        + ". It observes negvision.ATSSHead, ATSSRetinaHead, ATSSFCOSHead and AbeTATSSHead, "
        "mmdet's ATSSHead and RetinaHead, and two-stage detectors with a Shared2FCBBoxHead or "
        "another ConvFCBBoxHead (Faster, Mask and Cascade R-CNN). Use one of them, or remove the "
        "hook from custom_hooks"
    )


class _BoxObserver(Observer):
    task = "detection"

    def numbers(self) -> Tensor:
        numbers = [sample.gt_instances.number for sample in self.samples or ()]
        return torch.cat(numbers) if numbers else torch.zeros(0, dtype=torch.int64)


class DenseObserver(_BoxObserver):
    """Scores and boxes of the positives of each box; peaks of the score maps elsewhere."""

    def __init__(self, head: Any) -> None:
        super().__init__()
        self._head, self._inside = head, False
        self._assigned: list[Tensor] = []
        # Sizes of the levels and the device, and the priors for them.
        self._held: tuple[tuple, Tensor] | None = None
        for name in ("assign_batch", "assign"):
            if hasattr(head.assigner, name):
                self._watch(head.assigner, name)
        self._wrap(head, "loss_by_feat", self._observe)

    def _watch(self, assigner: Any, name: str) -> None:
        """Keep what the assigner returns to the head, not to itself."""
        function = getattr(assigner, name)

        @functools.wraps(function)
        def wrapped(*args, **kwargs):
            if self.samples is None or self._inside:
                return function(*args, **kwargs)
            self._inside = True
            try:
                result = function(*args, **kwargs)
            finally:
                self._inside = False
            # Of a batch, or of one image.
            self._assigned += list(result[0]) if isinstance(result, tuple) else [result.gt_inds]
            return result

        self._undo.append(replace_method(assigner, name, wrapped))

    def _observe(self, result: dict, *args, **kwargs) -> None:
        head, levels = self._head, args[0]
        truth, metas, *rest = args[next(i for i, arg in enumerate(args) if _are_instances(arg)) :]
        ignored = (rest or [kwargs.get("batch_gt_instances_ignore")])[0]
        sizes = tuple((level.shape[-2], level.shape[-1]) for level in levels)
        priors = self._priors_of(sizes, levels[0].device)
        scores, deltas = (
            torch.cat([flatten_level(level.detach(), channels) for level in outputs], 1).float()
            for outputs, channels in zip(args[:2], (head.cls_out_channels, 4), strict=True)
        )
        assigned, self._assigned = self._of_all_priors(sizes, metas, priors), []
        boxes = [get_box_tensor(gt.bboxes).float() for gt in truth]
        labels = torch.cat([gt.labels for gt in truth])
        counts = [len(own) for own in boxes]
        if len(labels):
            self.means = self._means(
                scores, deltas, priors, assigned, torch.cat(boxes), labels, counts
            )
        if self.wants_found:
            if ignored is not None:
                boxes = [
                    torch.cat([own, get_box_tensor(gt.bboxes).float()]) if len(gt.bboxes) else own
                    for own, gt in zip(boxes, ignored, strict=True)
                ]
            self.found = self._peaks(scores, deltas, priors, assigned, sizes, boxes)

    def _priors_of(self, sizes: tuple, device: torch.device) -> Tensor:
        """(A, 4), or (A, 2) for points; those of the last size of images are held."""
        if self._held is None or self._held[0] != (sizes, device):
            priors = torch.cat(grid_priors(self._head.prior_generator, list(sizes), device))
            self._held = ((sizes, device), priors.float())
        return self._held[1]

    def _of_all_priors(self, sizes: tuple, metas: list[dict], priors: Tensor) -> Tensor:
        """Assignment (B, A): 0 background, i + 1 box i, -1 no part."""
        if all(len(row) == len(priors) for row in self._assigned):
            return torch.stack(self._assigned)
        border = self._head.train_cfg.get("allowed_border", -1)
        valid = valid_priors(self._head.prior_generator, sizes, metas, priors, border)
        assert valid is not None  # some were left out
        whole = torch.full((len(metas), len(priors)), -1, device=priors.device)
        for row, kept, own in zip(whole, valid, self._assigned, strict=True):
            row.masked_scatter_(kept, own)
        return whole

    def _means(self, scores, deltas, priors, assigned, boxes, labels, counts: list[int]) -> Means:
        firsts = torch.tensor([0, *counts[:-1]]).cumsum(0)[:, None]
        firsts = firsts.to(boxes.device, non_blocking=True)
        # Rows of no box get the slot after the last one.
        slots = torch.where(assigned > 0, assigned - 1 + firsts, len(boxes)).flatten()
        rows = _true_at(assigned.flatten() > 0, _POSITIVES * len(boxes))
        slots = functional.pad(slots, (0, 1), value=len(boxes))[rows]
        rows = rows.clamp(max=assigned.numel() - 1)
        logits = scores.flatten(0, 1)[rows]
        own = functional.pad(labels, (0, 1))[slots]
        losses = self._head.loss_cls(logits, own, reduction_override="none")
        losses = losses.flatten(1).sum(1) if losses.dim() > 1 else losses
        predicted = self._decoded(deltas.flatten(0, 1)[rows], priors, rows % len(priors))
        ious = aligned_box_iou(predicted, functional.pad(boxes, (0, 0, 0, 1))[slots])
        return means_of(slots, labels, self._probabilities(logits), losses, ious)

    def _probabilities(self, logits: Tensor) -> Tensor:
        if self._head.use_sigmoid_cls:
            return logits.sigmoid()
        return logits.softmax(-1)[..., :-1]

    def _decoded(self, deltas: Tensor, priors: Tensor, chosen: Tensor) -> Tensor:
        """Boxes (n, 4) of the chosen priors (n,)."""
        head = self._head
        if not isinstance(head, ATSSFCOSHead):
            return decode_deltas(head.bbox_coder, priors[chosen], deltas)
        if head.norm_on_bbox and self._held is not None:
            counts = torch.tensor([h * w for h, w in self._held[0][0]])
            strides = torch.tensor(head.strides).repeat_interleave(counts).to(deltas.device)
            deltas = deltas * strides[chosen, None]
        return head.bbox_coder.decode(priors[chosen], deltas)

    def _peaks(self, scores, deltas, priors, assigned, sizes, known: list[Tensor]) -> Found:
        """The strongest local maxima of the score maps on background."""
        best, classes = scores.max(2)
        if not self._head.use_sigmoid_cls:
            best, classes = self._probabilities(scores).max(2)
        anchors, first, levels = len(priors) // sum(h * w for h, w in sizes), 0, []
        for height, width in sizes:
            count = height * width
            own = best[:, first * anchors : (first + count) * anchors].unflatten(1, (count, -1))
            value, anchor = own.max(2)
            grid = value.unflatten(1, (height, width))
            highest = functional.max_pool2d(grid, 3, 1, 1).flatten(1)
            prior = (torch.arange(first, first + count, device=own.device) * anchors) + anchor
            levels.append((value, value == highest, prior))
            first += count
        values, peaks, prior = (torch.cat(part, 1) for part in zip(*levels, strict=True))
        values = values.sigmoid() if self._head.use_sigmoid_cls else values
        values = values * (peaks & (assigned.gather(1, prior) == 0))
        values, place = values.topk(min(_CANDIDATES, values.shape[1]), 1)
        prior = prior.gather(1, place)
        chosen = deltas.gather(1, prior[..., None].expand(-1, -1, 4)).flatten(0, 1)
        boxes = self._decoded(chosen, priors, prior.flatten())
        return _strongest(values, classes.gather(1, prior), boxes.view(*values.shape, 4), known)


class RoIObserver(_BoxObserver):
    """Scores and boxes of the sampled RoIs of each box, and of the negative ones."""

    def __init__(self, head: Any) -> None:
        super().__init__()
        self._head = head
        self._wrap(head, "loss_and_target", self._observe)

    def _observe(self, result: dict, cls_score, bbox_pred, rois, sampling_results, **kwargs):
        head = self._head
        logits = cls_score.detach().float()
        custom = head.custom_activation
        scores = head.loss_cls.get_activation(logits) if custom else logits.softmax(-1)
        scores = scores[:, : head.num_classes]
        parts, firsts = [], 0
        for sampled in sampling_results:
            slots = torch.full((len(sampled.neg_priors),), -1, device=rois.device)
            parts.append(torch.cat([sampled.pos_assigned_gt_inds + firsts, slots]))
            firsts += sampled.num_gts
        slots = torch.cat(parts)
        positive = slots >= 0
        targets = torch.cat([get_box_tensor(one.pos_gt_bboxes) for one in sampling_results])
        own = torch.cat([one.pos_gt_labels for one in sampling_results])
        if len(self.numbers()):
            labels = slots.new_zeros(firsts).index_put_((slots[positive],), own)
            losses = head.loss_cls(logits[positive], own, reduction_override="none")
            losses = losses.flatten(1).sum(1) if losses.dim() > 1 else losses
            predicted = self._decoded(rois[positive], bbox_pred[positive], own)
            ious = aligned_box_iou(predicted, targets.float())
            # An annotated box that is an RoI itself says nothing about its place.
            is_box = torch.cat([one.pos_is_gt for one in sampling_results]).bool()
            ious = ious.masked_fill(is_box, 0)
            rows, proposed = slots[positive], slots[positive].masked_fill(is_box, firsts)
            means = means_of(rows, labels, scores[positive], losses)
            self.means = means._replace(
                iou=means_of(proposed, labels, scores[positive], losses, ious).iou
            )
        if not self.wants_found:
            return
        best, classes = scores.masked_fill(positive[:, None], 0).max(1)
        counts = [len(one) for one in parts]
        rows = []
        known = [get_box_tensor(sample.gt_instances.bboxes) for sample in self.samples or ()]
        for values, labels, rois_, deltas, boxes in zip(
            best.split(counts), classes.split(counts), rois.split(counts),
            bbox_pred.detach().split(counts), known, strict=True,
        ):  # fmt: skip
            values, place = values.topk(min(_CANDIDATES, len(values)))
            found = self._decoded(rois_[place], deltas[place], labels[place])
            one = (values[None], labels[place][None], found[None])
            rows.append(_strongest(*one, [boxes.float().to(found.device)]))
        self.found = Found(*(torch.cat(part) for part in zip(*rows, strict=True)))

    def _decoded(self, rois: Tensor, deltas: Tensor, labels: Tensor) -> Tensor:
        head, deltas = self._head, deltas.detach().float()
        if not head.reg_class_agnostic:
            rows = torch.arange(len(deltas), device=deltas.device)
            deltas = deltas.view(len(deltas), head.num_classes, 4)[rows, labels]
        return get_box_tensor(head.bbox_coder.decode(rois[:, 1:].float(), deltas))


def _strongest(values: Tensor, labels: Tensor, boxes: Tensor, known: Sequence[Tensor]) -> Found:
    """The strongest of (B, K) candidates that overlap no known box; padded with score 0."""
    every = torch.cat(list(known)) if known else boxes.new_zeros(0, 4)
    near = pairwise_box_iou(boxes.flatten(0, 1), every) > _KNOWN
    image = torch.arange(len(boxes)).repeat_interleave(torch.tensor([len(own) for own in known]))
    image = image.to(boxes.device, non_blocking=True)
    own = torch.arange(len(boxes), device=boxes.device)[:, None] == image
    near = (near.unflatten(0, boxes.shape[:2]) & own[:, None]).any(2)
    values = values * ~near * boxes.isfinite().all(2)
    missing = max(_KEPT - values.shape[1], 0)
    values, labels = functional.pad(values, (0, missing)), functional.pad(labels, (0, missing))
    boxes = functional.pad(boxes, (0, 0, 0, missing))
    values, place = values.topk(_KEPT, 1)
    return Found(
        values, labels.gather(1, place), boxes.gather(1, place[..., None].expand(-1, -1, 4))
    )


def _true_at(mask: Tensor, most: int) -> Tensor:
    """Indices where ``mask`` (n,) is True; on CUDA ``most`` numbers, those left over are n."""
    if not mask.is_cuda:
        return mask.nonzero()[:, 0]
    # Without asking the device for their number: each goes to its place, what is too much to the
    # last one, which is left out.
    place = torch.where(mask, mask.cumsum(0) - 1, most).clamp(max=most)
    rows = torch.full((most + 1,), len(mask), device=mask.device)
    return rows.scatter_(0, place, torch.arange(len(mask), device=mask.device))[:-1]


def _are_instances(value: object) -> bool:
    return isinstance(value, list | tuple) and any(isinstance(v, InstanceData) for v in value)
