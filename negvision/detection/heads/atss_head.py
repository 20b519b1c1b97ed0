"""mmdet's ATSS head with the targets of the whole batch assigned in one call."""

import torch
from mmdet.models.dense_heads import ATSSHead as MMDetATSSHead
from mmdet.utils import reduce_mean
from torch import Tensor

from negvision.detection.heads.decoding import decode_deltas
from negvision.detection.heads.dense_loss import dense_loss, flatten_level
from negvision.detection.heads.targets import dense_targets, grid_priors, valid_priors
from negvision.registry import MODELS


@MODELS.register_module()
class ATSSHead(MMDetATSSHead):
    """mmdet's ``ATSSHead``: the same layers, weights, predictions and losses.

    Its training targets come from one operator call for the batch, and neither they nor the loss
    wait for the device (with ``loss_bbox=dict(type="negvision.BoxIoULoss")``; mmdet's box losses
    look at their weights on the host). Any assigner with the signature of mmdet's ATSSAssigner
    serves; one without ``assign_batch`` is called for each image.

    Args:
        num_classes: Number of classes.
        in_channels: Channels of the feature maps.
        **kwargs: As of :class:`mmdet.models.ATSSHead`.

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

    def assignment_priors(self, featmap_sizes, device) -> list[Tensor]:
        """The anchors that the assigner sees, one (n_l, 4) a level."""
        return grid_priors(self.prior_generator, featmap_sizes, device)

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
        level_priors = self.assignment_priors(featmap_sizes, cls_scores[0].device)
        priors = torch.cat(level_priors)
        targets = dense_targets(
            self.assigner,
            level_priors,
            batch_gt_instances,
            batch_gt_instances_ignore,
            self.num_classes,
            valid=valid_priors(
                self.prior_generator,
                featmap_sizes,
                batch_img_metas,
                priors,
                self.train_cfg.get("allowed_border", -1),
            ),
            pos_weight=self.train_cfg.get("pos_weight", -1),
        )
        deltas = torch.cat([flatten_level(level, 4) for level in bbox_preds], 1)
        pred_boxes = decode_deltas(self.bbox_coder, priors, deltas)
        return dense_loss(
            self,
            cls_scores,
            pred_boxes,
            torch.cat([flatten_level(level, 1) for level in centernesses], 1).squeeze(-1),
            targets,
            centres=(priors[:, :2] + priors[:, 2:]) / 2,
            num_positive=reduce_mean(targets.num_positive),
            least_centerness=1.0,
        )
