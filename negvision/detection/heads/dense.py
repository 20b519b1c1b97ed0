"""Targets and losses of dense heads for a batch at once, without waiting for the device.

mmdet selects the positives first, which asks the device for their number. Here all priors take
part and all but the positives weigh nothing: the values are the same, and nothing waits.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from mmdet.models.task_modules.coders import DeltaXYWHBBoxCoder
from mmdet.models.task_modules.prior_generators import anchor_inside_flags
from mmdet.structures.bbox import get_box_tensor
from mmdet.utils import reduce_mean
from mmengine.structures import InstanceData
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

# mmdet's limit of the factor by which a box may grow (its wh_ratio_clip).
_MAX_LOG_RATIO = abs(math.log(16 / 1000))


@dataclass(frozen=True)
class DenseTargets:
    """Targets of every prior of every image; B images, A priors."""

    positive: Tensor  # (B, A), bool
    labels: Tensor  # (B, A), int64; the number of classes for priors that are not positive
    weights: Tensor  # (B, A), float32; 0 for priors that take no part
    boxes: Tensor  # (B, A, 4); the box of a positive, or the prior itself
    min_size: float  # the assigner's: the least box in whose middle positives may lie
    num_positive: Tensor  # scalar; sum over images of their positives, at least 1 each


def dense_targets(
    assigner,
    level_priors: Sequence[Tensor],
    batch_gt_instances: Sequence[InstanceData],
    batch_gt_instances_ignore: Sequence[InstanceData] | None,
    num_classes: int,
    valid: Tensor | None = None,
    pos_weight: float = -1,
) -> DenseTargets:
    """Assign the priors of a batch, (n_l, 4) on each level, and gather their targets.

    The assigner is called once if it has ``assign_batch``, and for each image if it has only the
    ``assign`` of mmdet's ATSSAssigner. ``valid`` (B, A) is False for priors that take no part;
    ``pos_weight``, if above 0, is the weight of positives in the classification loss.
    """
    priors = torch.cat(list(level_priors))
    counts = [len(level) for level in level_priors]
    if hasattr(assigner, "assign_batch"):
        gt_inds, *_ = assigner.assign_batch(
            priors, counts, batch_gt_instances, batch_gt_instances_ignore, valid=valid
        )
    else:
        gt_inds = _assign_each(
            assigner, priors, counts, batch_gt_instances, batch_gt_instances_ignore, valid
        )
    positive = gt_inds > 0
    # Index 0, before the boxes of each image, is for priors that are not positive.
    choice = gt_inds.clamp(min=0)
    boxes = pad_sequence(
        [_with_front(get_box_tensor(gt.bboxes).float(), 0) for gt in batch_gt_instances], True
    )
    labels = pad_sequence([_with_front(gt.labels, num_classes) for gt in batch_gt_instances], True)
    own_boxes = boxes.gather(1, choice[..., None].expand(-1, -1, 4))
    weights = (gt_inds >= 0).to(torch.float32)
    if pos_weight > 0:
        weights = weights.masked_fill(positive, pos_weight)
    return DenseTargets(
        positive=positive,
        labels=labels.gather(1, choice),
        weights=weights,
        boxes=torch.where(positive[..., None], own_boxes, priors.float()),
        min_size=getattr(getattr(assigner, "inner", assigner), "min_size", 0.0),
        num_positive=positive.sum(1).clamp(min=1).sum().to(torch.float32),
    )


def grid_priors(prior_generator, featmap_sizes, device) -> list[Tensor]:
    """Priors of each level by mmdet's generator, whose base anchors move to the device once.

    mmdet copies them in every call, which waits for the device.
    """
    base = getattr(prior_generator, "base_anchors", None)
    if base is not None and base[0].device != torch.device(device):
        prior_generator.base_anchors = [level.to(device) for level in base]
    return prior_generator.grid_priors(featmap_sizes, device=device)


def valid_priors(
    prior_generator,
    featmap_sizes: Sequence[tuple[int, ...]],
    batch_img_metas: Sequence[dict],
    priors: Tensor,
    allowed_border: float = -1,
) -> Tensor | None:
    """Which priors (A, 4) of each image lie on it rather than on its padding: (B, A), bool.

    None if all priors of all images are valid. ``allowed_border`` is the number of pixels by which
    a prior may leave its image; below 0, any number.
    """
    shapes = [tuple(meta["pad_shape"][:2]) for meta in batch_img_metas]
    covered = all(
        -(-size[0] // stride[1]) >= fh and -(-size[1] // stride[0]) >= fw
        for size in set(shapes)
        for stride, (fh, fw) in zip(prior_generator.strides, featmap_sizes, strict=True)
    )
    if covered and allowed_border < 0:
        return None
    flags_of = {
        shape: torch.cat(
            prior_generator.valid_flags(featmap_sizes, shape, device=priors.device)
        ).bool()
        for shape in set(shapes)
    }
    rows = [
        anchor_inside_flags(priors, flags_of[shape], meta["img_shape"][:2], allowed_border)
        for shape, meta in zip(shapes, batch_img_metas, strict=True)
    ]
    return torch.stack(rows)


def decode_deltas(coder, priors: Tensor, deltas: Tensor) -> Tensor:
    """Decode deltas (..., A, 4) relative to priors (A, 4) to boxes.

    For mmdet's ``DeltaXYWHBBoxCoder`` the formula is written out: its own code copies the means
    and deviations to the device in every call, which waits for it. Other coders are called.
    """
    if type(coder) is not DeltaXYWHBBoxCoder or coder.add_ctr_clamp:
        own = priors.expand_as(deltas).reshape(-1, 4)
        return coder.decode(own, deltas.reshape(-1, 4)).view_as(deltas)
    dx, dy, dw, dh = (
        delta * std + mean
        for delta, std, mean in zip(deltas.unbind(-1), coder.stds, coder.means, strict=True)
    )
    x1, y1, x2, y2 = priors.unbind(-1)
    width, height = x2 - x1, y2 - y1
    x = (x1 + x2) * 0.5 + width * dx
    y = (y1 + y2) * 0.5 + height * dy
    half_w = width * dw.clamp(-_MAX_LOG_RATIO, _MAX_LOG_RATIO).exp() * 0.5
    half_h = height * dh.clamp(-_MAX_LOG_RATIO, _MAX_LOG_RATIO).exp() * 0.5
    return torch.stack([x - half_w, y - half_h, x + half_w, y + half_h], -1)


def flatten_level(output: Tensor, channels: int) -> Tensor:
    """Output of a level, (B, n * channels, H, W), as (B, H * W * n, channels)."""
    return output.permute(0, 2, 3, 1).reshape(output.shape[0], -1, channels)


def centerness_of(centers: Tensor, boxes: Tensor) -> Tensor:
    """Centerness of points (..., 2) in boxes (..., 4); 0 outside the box.

    Source: Tian et al., ICCV 2019, eq. 3.
    """
    low, high = centers - boxes[..., :2], boxes[..., 2:] - centers
    nearer = torch.minimum(low, high).clamp(min=0)
    farther = torch.maximum(low, high).clamp(min=torch.finfo(low.dtype).tiny)
    return (nearer / farther).prod(-1).sqrt()


def _enlarged(boxes: Tensor, least: float) -> Tensor:
    """Boxes (..., 4), at least so large about their middle: positives of small ones lie outside."""
    if not least:
        return boxes
    more = (least - (boxes[..., 2:] - boxes[..., :2])).clamp(min=0) / 2
    return boxes + torch.cat([-more, more], -1)


def dense_loss(
    head,
    cls_scores: Sequence[Tensor],
    pred_boxes: Tensor,
    centernesses: Sequence[Tensor],
    targets: DenseTargets,
    centers: Tensor,
    num_positive: Tensor,
    min_centerness: float,
) -> dict:
    """Classification, box and centerness losses of mmdet's ``head``.

    Args:
        head: Its three losses and ``cls_out_channels`` are used.
        cls_scores, centernesses: Logits of each level, (B, n * C, H, W) and (B, n, H, W).
        pred_boxes: Decoded, (B, A, 4).
        targets: Of the same priors, level after level.
        centers: Of the priors, (A, 2), pixels.
        num_positive: Divides the classification and centerness losses.
        min_centerness: Lower limit of the sum of centerness targets, which divides the box loss.
    """
    # Other predictions may be infinite, which no weight undoes.
    pred_boxes = torch.where(targets.positive[..., None], pred_boxes, targets.boxes)
    centerness = torch.cat([flatten_level(level, 1) for level in centernesses], 1)
    wanted = centerness_of(centers, _enlarged(targets.boxes, targets.min_size)) * targets.positive
    scores = [flatten_level(level, head.cls_out_channels) for level in cls_scores]
    sizes = [level.shape[1] for level in scores]
    losses_cls = [
        head.loss_cls(
            level.reshape(-1, level.shape[-1]),
            labels.reshape(-1),
            weights.reshape(-1),
            avg_factor=num_positive,
        )
        for level, labels, weights in zip(
            scores,
            targets.labels.split(sizes, 1),
            targets.weights.split(sizes, 1),
            strict=True,
        )
    ]
    loss_bbox = head.loss_bbox(
        pred_boxes.reshape(-1, 4),
        targets.boxes.reshape(-1, 4),
        weight=wanted.reshape(-1),
        avg_factor=reduce_mean(wanted.sum()).clamp(min=min_centerness),
    )
    loss_centerness = head.loss_centerness(
        centerness.reshape(-1),
        wanted.reshape(-1),
        weight=targets.positive.reshape(-1).to(wanted.dtype),
        avg_factor=num_positive,
    )
    return {"loss_cls": losses_cls, "loss_bbox": loss_bbox, "loss_centerness": loss_centerness}


def _with_front(values: Tensor, fill: float) -> Tensor:
    return torch.cat([values.new_full((1, *values.shape[1:]), fill), values])


def _assign_each(assigner, priors, counts, gts, ignored, valid) -> Tensor:
    rows = []
    for i, gt in enumerate(gts):
        kept = priors.new_ones(len(priors), dtype=torch.bool) if valid is None else valid[i]
        result = assigner.assign(
            InstanceData(priors=priors[kept]),
            [int(level.sum()) for level in kept.split(counts)],
            gt,
            None if ignored is None else ignored[i],
        )
        row = torch.full((len(priors),), -1, dtype=torch.int64, device=priors.device)
        row[kept] = result.gt_inds
        rows.append(row)
    return torch.stack(rows)
