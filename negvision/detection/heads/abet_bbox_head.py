"""AbeT on the RoIs of Faster and Cascade R-CNN."""

from torch import Tensor

from negvision.detection.heads.abet_modules import RoILogits, TemperatureColumnLoss
from negvision.detection.heads.ood_bbox_head import OODBBoxHead
from negvision.registry import MODELS


@MODELS.register_module()
class AbeTBBoxHead(OODBBoxHead):
    """Box head whose classifier is AbeT's: cosine logits over a learned temperature.

    Takes the place of mmdet's ``Shared2FCBBoxHead`` in a config of Faster, Mask or Cascade R-CNN
    by its ``type`` alone. Both of AbeT's heads stand on the RoI feature; the softmax is over K
    classes and the background, its loss is ``loss_cls``, and nothing supervises T. Detections
    carry ``logits`` (K + 1,), which are ``g / T`` of their RoI, ``temperature`` and ``ood_score``,
    taken over the K foreground logits. In a cascade all three follow from the mean over its
    stages.

    The statistics that normalise T are those of the sampled RoIs, so they depend on the share of
    foreground among them.

    Source: LeVine et al., arXiv 2401.12129, section 3 and the experiments on Faster R-CNN.

    Args:
        logits: "cosine", or "inner" for the ablation with inner products.
        temperature: False for T = 1 throughout.
        shaping: Of the feature at test time; see :class:`negvision.ood.AbeTLogits`.
        score: One of :data:`negvision.ood.scores.SCORE_NAMES`; "energy" has the T in front that
            AbeT leaves out.
        loss_cls: Loss of the softmax.
        **kwargs: As of :class:`OODBBoxHead`.

    Raises:
        ValueError: An unknown option, or a ``loss_cls`` that is not of a softmax.

    Example:
        >>> import torch
        >>> head = AbeTBBoxHead(in_channels=4, fc_out_channels=8, roi_feat_size=2, num_classes=3)
        >>> output, deltas = head(torch.randn(5, 4, 2, 2))
        >>> logits, temperature = head.split_output(output)
        >>> logits.shape, temperature.shape
        (torch.Size([5, 4]), torch.Size([5]))
    """

    def __init__(
        self,
        logits: str = "cosine",
        temperature: bool = True,
        shaping: dict | None = None,
        score: str = "abet",
        loss_cls: dict | None = None,
        **kwargs,
    ) -> None:
        super().__init__(
            score=score,
            cls_predictor_cfg={
                "type": RoILogits,
                "logits": logits,
                "temperature": temperature,
                "shaping": shaping,
            },
            loss_cls={
                "type": TemperatureColumnLoss,
                "loss": loss_cls or {"type": "CrossEntropyLoss"},
            },
            **kwargs,
        )

    def split_output(self, cls_score: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (N, K + 1) and temperatures (N,) of the classifier's output (N, K + 2)."""
        return cls_score[:, :-1], cls_score[:, -1]
