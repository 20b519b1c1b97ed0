"""mmdet's ATSS, RetinaNet and FCOS heads with targets by an ATSS assigner, a batch at once."""

import torch
from mmdet.models.dense_heads import ATSSHead as MMDetATSSHead
from mmdet.models.dense_heads import FCOSHead, RetinaHead
from mmdet.models.task_modules.prior_generators import anchor_inside_flags
from mmdet.registry import TASK_UTILS
from mmdet.utils import reduce_mean
from torch import Tensor

from negvision.detection.heads.dense import (
    decode_deltas,
    dense_loss,
    dense_targets,
    flatten_level,
    grid_priors,
    valid_priors,
)
from negvision.registry import MODELS


@MODELS.register_module()
class ATSSHead(MMDetATSSHead):
    """mmdet's ``ATSSHead``: the same layers, weights, predictions and losses.

    One operator call assigns the targets of the batch, and neither assignment nor loss waits for
    the device (with ``loss_bbox=dict(type="negvision.BoxIoULoss")``; mmdet's box losses read
    their weights on the host). Any assigner with the signature of mmdet's ATSSAssigner works; one
    without ``assign_batch`` is called for each image.

    Args:
        num_classes: Number of classes.
        in_channels: Channels of the feature maps.
        **kwargs: As in :class:`mmdet.models.ATSSHead`.

    Raises:
        ValueError: ``reg_decoded_bbox=False``: ATSS regresses decoded boxes.

    Example:
        >>> head = ATSSHead(
        ...     num_classes=3, in_channels=8, feat_channels=8, norm_cfg=None,
        ...     anchor_generator=dict(type="AnchorGenerator", ratios=[1.0], octave_base_scale=8,
        ...                           scales_per_octave=1, strides=[8]),
        ...     loss_bbox=dict(type="negvision.BoxIoULoss", loss_weight=2.0),
        ...     train_cfg=dict(assigner=dict(type="negvision.ATSSAssigner"), allowed_border=-1,
        ...                    pos_weight=-1))
        >>> [tuple(out[0].shape) for out in head([torch.zeros(1, 8, 4, 4)])]
        [(1, 3, 4, 4), (1, 4, 4, 4), (1, 1, 4, 4)]
    """

    def __init__(self, num_classes: int, in_channels: int, **kwargs) -> None:
        super().__init__(num_classes, in_channels, **kwargs)
        if not self.reg_decoded_bbox:
            raise ValueError("reg_decoded_bbox is False; the box loss of ATSS is on decoded boxes")

    def loss_by_feat(
        self,
        cls_scores: list[Tensor],
        bbox_preds: list[Tensor],
        centernesses: list[Tensor],
        batch_gt_instances: list,
        batch_img_metas: list[dict],
        batch_gt_instances_ignore: list | None = None,
    ) -> dict:
        """Losses of a batch; arguments and result as in mmdet."""
        featmap_sizes = [(level.shape[-2], level.shape[-1]) for level in cls_scores]
        level_priors = grid_priors(self.prior_generator, featmap_sizes, cls_scores[0].device)
        priors = torch.cat(level_priors)
        border = self.train_cfg.get("allowed_border", -1)
        valid = valid_priors(self.prior_generator, featmap_sizes, batch_img_metas, priors, border)
        targets = dense_targets(
            self.assigner,
            level_priors,
            batch_gt_instances,
            batch_gt_instances_ignore,
            self.num_classes,
            valid=valid,
            pos_weight=self.train_cfg.get("pos_weight", -1),
        )
        deltas = torch.cat([flatten_level(level, 4) for level in bbox_preds], 1)
        return dense_loss(
            self,
            cls_scores,
            decode_deltas(self.bbox_coder, priors, deltas),
            centernesses,
            targets,
            centers=(priors[:, :2] + priors[:, 2:]) / 2,
            num_positive=reduce_mean(targets.num_positive),
            min_centerness=1.0,
        )


@MODELS.register_module()
class ATSSRetinaHead(RetinaHead):
    """mmdet's ``RetinaHead``: the same layers and losses, with targets by an ATSS assigner.

    mmdet's own head does not pass its assigner the number of priors on each level, which ATSS
    needs. One operator call assigns the targets of the batch.

    Args:
        num_classes: Number of classes.
        in_channels: Channels of the feature maps.
        **kwargs: As in :class:`mmdet.models.RetinaHead`; ``train_cfg.assigner`` is
            ``negvision.ATSSAssigner`` or another of its signature.

    Example:
        >>> head = ATSSRetinaHead(
        ...     num_classes=3, in_channels=8, feat_channels=8,
        ...     anchor_generator=dict(type="AnchorGenerator", ratios=[1.0], octave_base_scale=8,
        ...                           scales_per_octave=1, strides=[8]),
        ...     train_cfg=dict(assigner=dict(type="negvision.ATSSAssigner"), allowed_border=-1,
        ...                    pos_weight=-1))
        >>> head.num_base_priors
        1
    """

    def get_targets(
        self,
        anchor_list: list[list[Tensor]],
        valid_flag_list: list[list[Tensor]],
        batch_gt_instances: list,
        batch_img_metas: list[dict],
        batch_gt_instances_ignore: list | None = None,
    ) -> tuple:
        """Targets of each level; arguments and result as in mmdet's ``AnchorHead``."""
        priors = torch.cat(anchor_list[0])
        valid = [
            anchor_inside_flags(
                priors, torch.cat(flags), meta["img_shape"][:2], self.train_cfg["allowed_border"]
            )
            for flags, meta in zip(valid_flag_list, batch_img_metas, strict=True)
        ]
        targets = dense_targets(
            self.assigner,
            anchor_list[0],
            batch_gt_instances,
            batch_gt_instances_ignore,
            self.num_classes,
            valid=torch.stack(valid),
            pos_weight=self.train_cfg.get("pos_weight", -1),
        )
        bbox_targets = targets.boxes
        if not self.reg_decoded_bbox:
            own = priors.expand_as(bbox_targets).reshape(-1, 4)
            bbox_targets = self.bbox_coder.encode(own, bbox_targets.reshape(-1, 4))
            bbox_targets = bbox_targets.view_as(targets.boxes)
        bbox_weights = targets.positive[..., None].to(bbox_targets.dtype).expand_as(bbox_targets)
        sizes = [len(level) for level in anchor_list[0]]
        by_level = [
            tensor.split(sizes, 1)
            for tensor in (targets.labels, targets.weights, bbox_targets, bbox_weights)
        ]
        return *by_level, targets.num_positive


@MODELS.register_module()
class ATSSFCOSHead(FCOSHead):
    """mmdet's ``FCOSHead``: the same layers and predictions, with positives by an ATSS assigner.

    Boxes are regressed from points, as in FCOS. For the assignment, each point carries a square
    of side ``anchor_scale`` times its stride (section 4.3 of the paper: "FCOS + ATSS").
    ``regress_ranges`` and ``center_sampling`` have no effect. One operator call assigns the
    targets of the batch, and neither assignment nor loss waits for the device (with
    ``loss_bbox=dict(type="negvision.BoxIoULoss")``; mmdet's box losses read their weights on the
    host).

    Args:
        num_classes: Number of classes.
        in_channels: Channels of the feature maps.
        anchor_scale: Side of the squares in strides; 8 in the paper.
        **kwargs: As in :class:`mmdet.models.FCOSHead`; ``train_cfg.assigner`` is
            ``negvision.ATSSAssigner`` or another of its signature.

    Raises:
        ValueError: ``anchor_scale`` is not above 0, or the assigner's ``min_size`` is: distances to
            the sides reach no box that its point lies outside of.

    Source: Zhang et al., CVPR 2020, section 4.3 and table 3.

    Example:
        >>> head = ATSSFCOSHead(
        ...     num_classes=3, in_channels=8, feat_channels=8, strides=[8], norm_cfg=None,
        ...     train_cfg=dict(assigner=dict(type="negvision.ATSSAssigner")))
        >>> head.assignment_priors([(1, 2)], "cpu")[0].tolist()
        [[-28.0, -28.0, 36.0, 36.0], [-20.0, -28.0, 44.0, 36.0]]
    """

    def __init__(
        self, num_classes: int, in_channels: int, anchor_scale: float = 8, **kwargs
    ) -> None:
        if not anchor_scale > 0:
            raise ValueError(f"anchor_scale must be above 0, got {anchor_scale}")
        super().__init__(num_classes, in_channels, **kwargs)
        self.anchor_scale = anchor_scale
        if self.train_cfg:
            self.assigner = TASK_UTILS.build(self.train_cfg["assigner"])
            if getattr(getattr(self.assigner, "inner", self.assigner), "min_size", 0):
                raise ValueError(
                    "min_size of the assigner is above 0, but FCOS regresses distances from points "
                    "inside of boxes: set min_size=0, or use negvision.ATSSHead"
                )

    def assignment_priors(self, featmap_sizes, device) -> list[Tensor]:
        """The squares around the points that the assigner sees, one (n_l, 4) per level."""
        points = grid_priors(self.prior_generator, featmap_sizes, device)
        halves = [self.anchor_scale * stride / 2 for stride in self.strides]
        return [
            torch.cat([level - half, level + half], 1)
            for level, half in zip(points, halves, strict=True)
        ]

    def loss_by_feat(
        self,
        cls_scores: list[Tensor],
        bbox_preds: list[Tensor],
        centernesses: list[Tensor],
        batch_gt_instances: list,
        batch_img_metas: list[dict],
        batch_gt_instances_ignore: list | None = None,
    ) -> dict:
        """Losses of a batch; arguments and result as in mmdet."""
        featmap_sizes = [(level.shape[-2], level.shape[-1]) for level in cls_scores]
        device = cls_scores[0].device
        targets = dense_targets(
            self.assigner,
            self.assignment_priors(featmap_sizes, device),
            batch_gt_instances,
            batch_gt_instances_ignore,
            self.num_classes,
        )
        # With norm_on_bbox the distances are in strides while the head trains.
        units = self.strides if self.norm_on_bbox else [1] * len(self.strides)
        distances = torch.cat(
            [flatten_level(level, 4) * unit for level, unit in zip(bbox_preds, units, strict=True)],
            1,
        )
        points = torch.cat(grid_priors(self.prior_generator, featmap_sizes, device))
        pred_boxes = self.bbox_coder.decode(
            points.expand(len(distances), -1, -1).reshape(-1, 2), distances.reshape(-1, 4)
        )
        return dense_loss(
            self,
            cls_scores,
            pred_boxes.view_as(distances),
            centernesses,
            targets,
            centers=points,
            num_positive=reduce_mean(targets.positive.sum().float()).clamp(min=1),
            min_centerness=1e-6,
        )
