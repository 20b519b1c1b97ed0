"""Training targets of a whole batch at once, without waiting for the device."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from mmdet.models.task_modules.prior_generators import anchor_inside_flags
from mmdet.structures.bbox import get_box_tensor
from mmengine.structures import InstanceData
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence


@dataclass(frozen=True)
class DenseTargets:
    """Targets of every prior of every image; B images, A priors.

    Attributes:
        positive: (B, A), bool.
        labels: (B, A), int64; the number of classes where not positive.
        weights: (B, A), float32: 0 where a prior takes no part.
        boxes: (B, A, 4): the box of a positive, elsewhere the prior itself.
        num_positive: Scalar tensor; the positives of each image, at least 1 each, added up.
    """

    positive: Tensor
    labels: Tensor
    weights: Tensor
    boxes: Tensor
    num_positive: Tensor


def dense_targets(
    assigner,
    level_priors: Sequence[Tensor],
    batch_gt_instances: Sequence[InstanceData],
    batch_gt_instances_ignore: Sequence[InstanceData] | None,
    num_classes: int,
    valid: Tensor | None = None,
    pos_weight: float = -1,
) -> DenseTargets:
    """Assign the priors of a batch and gather what each is to predict.

    Args:
        assigner: With ``assign_batch`` it is called once; one that has only the ``assign`` of
            mmdet's ATSSAssigner is called for each image.
        level_priors: One tensor (n_l, 4) a level.
        batch_gt_instances: For each image ``bboxes`` and ``labels``.
        batch_gt_instances_ignore: For each image ``bboxes``; or None.
        num_classes: Label of what is not positive.
        valid: (B, A), bool: False for a prior that takes no part.
        pos_weight: Weight of a positive in the classification loss; 1 where not above 0.
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
    # A place in front of the boxes of each image, for what is not positive.
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
    featmap_sizes: Sequence[tuple[int, int]],
    batch_img_metas: Sequence[dict],
    priors: Tensor,
    allowed_border: float = -1,
) -> Tensor | None:
    """Which priors of each image lie on it and not on its padding.

    Args:
        prior_generator: mmdet's.
        featmap_sizes: Height and width of each level.
        batch_img_metas: ``pad_shape``, and with ``allowed_border`` ``img_shape``, of each image.
        priors: (A, 4).
        allowed_border: Pixels by which a prior may leave its image; below 0 it may by any.

    Returns:
        (B, A), bool; None where all priors of all images are valid.
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
