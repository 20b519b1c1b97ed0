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

from negvision.audit.observers import Found, Observer, means_of
from negvision.detection.heads.atss_heads import ATSSFCOSHead, ATSSHead, ATSSRetinaHead
from negvision.detection.heads.dense import decode_deltas, grid_priors, valid_priors
from negvision.detection.heads.ood_heads import AbeTATSSHead
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
        self._head, self._assigned, self._inside = head, [], False
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

        setattr(assigner, name, wrapped)
        self._undo.append(lambda: delattr(assigner, name))

    def _observe(self, result: dict, *args, **kwargs) -> None:
        head, scores, deltas = self._head, args[0], args[1]
        truth, metas, *rest = args[next(i for i, arg in enumerate(args) if _are_instances(arg)) :]
        ignored = (rest or [kwargs.get("batch_gt_instances_ignore")])[0]
        sizes = [(level.shape[-2], level.shape[-1]) for level in scores]
        priors = torch.cat(grid_priors(head.prior_generator, sizes, scores[0].device))
        priors = priors.float()
        assigned, self._assigned = self._of_all_priors(sizes, metas, priors), []
        boxes = [get_box_tensor(gt.bboxes).float() for gt in truth]
        labels = torch.cat([gt.labels for gt in truth])
        if len(labels):
            self.means = self._means(scores, deltas, priors, assigned, torch.cat(boxes), labels, [
                len(own) for own in boxes
            ])  # fmt: skip
        known = boxes
        if ignored is not None:
            known = [
                torch.cat([own, get_box_tensor(gt.bboxes).float()]) if len(gt) else own
                for own, gt in zip(boxes, ignored, strict=True)
            ]
        self.found = self._peaks(scores, deltas, priors, assigned, known)

    def _of_all_priors(self, sizes: list, metas: list[dict], priors: Tensor) -> Tensor:
        """Assignment (B, A): 0 background, i + 1 box i, -1 no part."""
        if all(len(row) == len(priors) for row in self._assigned):
            return torch.stack(self._assigned)
        border = self._head.train_cfg.get("allowed_border", -1)
        valid = valid_priors(self._head.prior_generator, sizes, metas, priors, border)
        whole = torch.full((len(metas), len(priors)), -1, device=priors.device)
        for row, kept, own in zip(whole, valid, self._assigned, strict=True):
            row.masked_scatter_(kept, own)
        return whole

    def _means(self, scores, deltas, priors, assigned, boxes, labels, counts: list[int]):
        firsts = [sum(counts[:i]) for i in range(len(counts))]
        firsts = torch.tensor(firsts, device=boxes.device)[:, None]
        # Rows of no box get the slot after the last one.
        slots = torch.where(assigned > 0, assigned - 1 + firsts, len(boxes)).flatten()
        rows = _true_at(assigned.flatten() > 0, _POSITIVES * len(boxes))
        slots, image, prior = (
            functional.pad(slots, (0, 1), value=len(boxes))[rows],
            (rows // len(priors)).clamp(max=len(assigned) - 1),
            rows % len(priors),
        )
        channels = self._head.cls_out_channels
        logits = _gathered(scores, image, prior, channels).float()
        own = functional.pad(labels, (0, 1))[slots]
        losses = self._head.loss_cls(logits, own, reduction_override="none")
        losses = losses.flatten(1).sum(1) if losses.dim() > 1 else losses
        predicted = self._decoded(deltas, image, prior, priors)
        ious = aligned_box_iou(predicted, functional.pad(boxes, (0, 0, 0, 1))[slots])
        return means_of(slots, labels, self._probabilities(logits), losses, ious)

    def _probabilities(self, logits: Tensor) -> Tensor:
        if self._head.use_sigmoid_cls:
            return logits.sigmoid()
        return logits.softmax(-1)[..., :-1]

    def _decoded(self, deltas, image: Tensor, prior: Tensor, priors: Tensor) -> Tensor:
        """Boxes of priors of images, (n,) each."""
        head = self._head
        if not isinstance(head, ATSSFCOSHead):
            own = _gathered(deltas, image, prior, 4).float()
            return decode_deltas(head.bbox_coder, priors[prior], own)
        units = head.strides if head.norm_on_bbox else [1] * len(head.strides)
        scaled = [level * unit for level, unit in zip(deltas, units, strict=True)]
        return head.bbox_coder.decode(priors[prior], _gathered(scaled, image, prior, 4).float())

    def _peaks(self, scores, deltas, priors, assigned, known: list[Tensor]) -> Found:
        """The strongest local maxima of the score maps on background."""
        channels, first, levels = self._head.cls_out_channels, 0, []
        for level in scores:
            if not self._head.use_sigmoid_cls:
                shape = level.shape
                level = level.unflatten(1, (-1, channels)).softmax(2)
                level[:, :, -1] = 0
                level = level.view(shape)
            best, channel = level.detach().max(1, keepdim=True)
            anchors = level.shape[1] // channels
            cells = torch.arange(best[0].numel(), device=best.device).view(1, *best.shape[1:])
            prior = first + cells * anchors + channel // channels
            background = assigned.gather(1, prior.flatten(1)).view_as(prior) == 0
            peak = best == functional.max_pool2d(best, 3, 1, 1)
            value = best.float()
            value = value.sigmoid() if self._head.use_sigmoid_cls else value
            value = value.masked_fill(~(background & peak), 0)
            levels.append([part.flatten(1) for part in (value, channel % channels, prior)])
            first += best[0].numel() * anchors
        values, classes, prior = (torch.cat(part, 1) for part in zip(*levels, strict=True))
        values, place = values.topk(min(_CANDIDATES, values.shape[1]), 1)
        classes, prior = classes.gather(1, place), prior.gather(1, place)
        image = torch.arange(len(values), device=values.device)[:, None].expand_as(prior)
        boxes = self._decoded(deltas, image.flatten(), prior.flatten(), priors)
        return _strongest(values, classes, boxes.view(*values.shape, 4), known)


class RoIObserver(_BoxObserver):
    """Scores and boxes of the sampled RoIs of each box, and of the negative ones."""

    def __init__(self, head: Any) -> None:
        super().__init__()
        self._head = head
        self._wrap(head, "loss_and_target", self._observe)

    def _observe(self, result: dict, cls_score, bbox_pred, rois, sampling_results, **kwargs):
        head = self._head
        activation = getattr(head.loss_cls, "get_activation", None)
        logits = cls_score.detach().float()
        scores = activation(logits) if head.custom_activation else logits.softmax(-1)
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
    free = []
    for own, truth in zip(boxes, known, strict=True):
        near = pairwise_box_iou(own, truth) > _KNOWN if len(truth) else own.new_zeros(len(own), 1)
        free.append(~near.bool().any(1))
    values = values * torch.stack(free) * boxes.isfinite().all(2)
    missing = max(_KEPT - values.shape[1], 0)
    values, labels = functional.pad(values, (0, missing)), functional.pad(labels, (0, missing))
    boxes = functional.pad(boxes, (0, 0, 0, missing))
    values, place = values.topk(_KEPT, 1)
    return Found(
        values, labels.gather(1, place), boxes.gather(1, place[..., None].expand(-1, -1, 4))
    )


def _gathered(levels: Sequence[Tensor], image: Tensor, prior: Tensor, channels: int) -> Tensor:
    """Rows (n, channels) of outputs (B, anchors * channels, H, W) of levels."""
    counts = [level.shape[1] // channels * level.shape[2] * level.shape[3] for level in levels]
    rows, first = None, 0
    for level, count in zip(levels, counts, strict=True):
        anchors, width = level.shape[1] // channels, level.shape[3]
        inside = (prior >= first) & (prior < first + count)
        own = (prior - first).clamp(0, count - 1)
        cell, anchor = own // anchors, own % anchors
        grid = level.detach().unflatten(1, (anchors, channels))
        values = grid[image, anchor, :, cell // width, cell % width]
        rows = values if rows is None else torch.where(inside[:, None], values, rows)
        first += count
    assert rows is not None
    return rows


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
