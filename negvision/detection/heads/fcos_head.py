"""mmdet's FCOS head with its positives chosen by ATSS."""

import torch
from mmdet.models.dense_heads import FCOSHead
from mmdet.registry import TASK_UTILS
from mmdet.utils import reduce_mean
from torch import Tensor

from negvision.detection.heads.dense_loss import dense_loss, flatten_level
from negvision.detection.heads.targets import dense_targets, grid_priors
from negvision.registry import MODELS


@MODELS.register_module()
class ATSSFCOSHead(FCOSHead):
    """mmdet's ``FCOSHead``: the same layers and predictions, with positives by an ATSS assigner.

    Boxes are regressed from points, as FCOS does. For the assignment alone each point carries a
    square of side ``anchor_scale`` times its stride (section 4.3 of the paper: "FCOS + ATSS").
    ``regress_ranges`` and ``center_sampling`` play no part. The targets of the whole batch are
    assigned in one operator call, and neither they nor the loss wait for the device (with
    ``loss_bbox=dict(type="negvision.BoxIoULoss")``; mmdet's box losses look at their weights on the
    host).

    Args:
        num_classes: Number of classes.
        in_channels: Channels of the feature maps.
        anchor_scale: Side of the squares in strides; 8 in the paper.
        **kwargs: As of :class:`mmdet.models.FCOSHead`; ``train_cfg.assigner`` is
            ``negvision.ATSSAssigner`` or another of its signature.

    Raises:
        ValueError: ``anchor_scale`` not above 0.

    Source:
        Zhang et al., CVPR 2020, section 4.3 and table 3.

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

    def assignment_priors(self, featmap_sizes, device) -> list[Tensor]:
        """The squares round the points that the assigner sees, one (n_l, 4) a level."""
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
        """Losses of a batch; arguments and result as of mmdet's."""
        featmap_sizes = [tuple(level.shape[-2:]) for level in cls_scores]
        device = cls_scores[0].device
        level_priors = self.assignment_priors(featmap_sizes, device)
        targets = dense_targets(
            self.assigner,
            level_priors,
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
            torch.cat([flatten_level(level, 1) for level in centernesses], 1).squeeze(-1),
            targets,
            centres=points,
            num_positive=reduce_mean(targets.positive.sum().float()).clamp(min=1),
            least_centerness=1e-6,
        )
