"""mmdet's box head of Faster and Cascade R-CNN with an OOD score on every detection."""

from mmdet.models.layers import multiclass_nms
from mmdet.models.roi_heads.bbox_heads import Shared2FCBBoxHead
from mmengine.structures import InstanceData
from torch import Tensor

from negvision.detection.heads.ood_fields import add_ood_fields
from negvision.ood.scores import check_score_name
from negvision.registry import MODELS


@MODELS.register_module()
class OODBBoxHead(Shared2FCBBoxHead):
    """mmdet's ``Shared2FCBBoxHead`` whose detections carry logits and an OOD score.

    Layers, weights, losses and boxes are those of mmdet. Each detection that survives NMS carries
    ``logits`` (K + 1,) of the RoI that it came from, the background last, and ``ood_score``, taken
    over the K foreground logits alone whatever the score. In a cascade these are the logits that
    mmdet predicts by: the mean over its stages.

    Args:
        score: One of :data:`negvision.ood.scores.SCORE_NAMES`. Higher is more OOD.
        **kwargs: As of :class:`mmdet.models.Shared2FCBBoxHead`.

    Attributes:
        ood_threshold: None, or a calibrated threshold
            (:func:`negvision.ood.threshold.set_threshold`); detections then carry ``is_ood``.

    Raises:
        ValueError: No such score.

    Example:
        >>> import torch
        >>> from mmengine.config import ConfigDict
        >>> head = OODBBoxHead(in_channels=4, fc_out_channels=8, roi_feat_size=2, num_classes=3)
        >>> rois = torch.tensor([[0.0, 2.0, 2.0, 20.0, 20.0], [0.0, 30.0, 8.0, 44.0, 40.0]])
        >>> scores, deltas = head(torch.randn(2, 4, 2, 2))
        >>> config = ConfigDict(
        ...     score_thr=0.0, nms=dict(type="nms", iou_threshold=0.5), max_per_img=5)
        >>> found = head.predict_by_feat(
        ...     (rois,), (scores,), (deltas,), [dict(img_shape=(50, 50))], config)[0]
        >>> found.logits.shape, found.ood_score.shape, found.ood_score_name
        (torch.Size([5, 4]), torch.Size([5]), 'msp')
    """

    def __init__(self, score: str = "msp", **kwargs) -> None:
        super().__init__(**kwargs)
        self.score = check_score_name(score)
        self.ood_threshold: float | None = None

    def split_output(self, cls_score: Tensor) -> tuple[Tensor, Tensor | None]:
        """Logits (N, K + 1) and temperatures (N,) or None, of the classifier's output."""
        return cls_score, None

    def _predict_by_feat_single(
        self,
        roi: Tensor,
        cls_score: Tensor,
        bbox_pred: Tensor,
        img_meta: dict,
        rescale: bool = False,
        rcnn_test_cfg=None,
    ) -> InstanceData:
        # Without a config mmdet decodes and stops before NMS, which loses track of the RoIs.
        decoded = super()._predict_by_feat_single(
            roi, cls_score, bbox_pred, img_meta, rescale, rcnn_test_cfg=None
        )
        if rcnn_test_cfg is None:
            return decoded
        boxes, labels, kept = multiclass_nms(
            decoded.bboxes,
            decoded.scores,
            rcnn_test_cfg.score_thr,
            rcnn_test_cfg.nms,
            rcnn_test_cfg.max_per_img,
            return_inds=True,
            box_dim=self.bbox_coder.encode_size,
        )
        results = InstanceData(bboxes=boxes[:, :-1], scores=boxes[:, -1], labels=labels)
        # Candidates are numbered RoI by RoI, one for each class.
        rows = kept // self.num_classes
        logits, temperature = self.split_output(cls_score)
        return add_ood_fields(
            results, self, logits[rows], None if temperature is None else temperature[rows]
        )
