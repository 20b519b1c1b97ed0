"""mmdet's RetinaNet head with its positives chosen by ATSS."""

import torch
from mmdet.models.dense_heads import RetinaHead
from mmdet.models.task_modules.prior_generators import anchor_inside_flags
from torch import Tensor

from negvision.detection.heads.targets import dense_targets, grid_priors
from negvision.registry import MODELS


@MODELS.register_module()
class ATSSRetinaHead(RetinaHead):
    """mmdet's ``RetinaHead``: the same layers and losses, with targets by an ATSS assigner.

    mmdet's own head calls its assigner without the number of priors on each level, which ATSS
    needs. The targets of the whole batch are assigned in one operator call.

    Args:
        num_classes: Number of classes.
        in_channels: Channels of the feature maps.
        **kwargs: As of :class:`mmdet.models.RetinaHead`; ``train_cfg.assigner`` is
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

    def assignment_priors(self, featmap_sizes, device) -> list[Tensor]:
        """The anchors that the assigner sees, one (n_l, 4) a level."""
        return grid_priors(self.prior_generator, featmap_sizes, device)

    def get_targets(
        self,
        anchor_list: list[list[Tensor]],
        valid_flag_list: list[list[Tensor]],
        batch_gt_instances: list,
        batch_img_metas: list[dict],
        batch_gt_instances_ignore: list | None = None,
    ) -> tuple:
        """Targets level by level; arguments and result as of mmdet's ``AnchorHead``."""
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
