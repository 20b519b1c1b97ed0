"""The data sample of image classification."""

from mmengine.structures import BaseDataElement


class ImageDataSample(BaseDataElement):
    """One image: its class, and its prediction.

    Attributes:
        label: 0-d int64 tensor, the class; -1 if unknown, as for OOD images.
        logits: Shape (C,), float32, divided by the temperature if there is one.
        pred_label: 0-d int64 tensor, the class of the largest logit.
        pred_score: float32, its softmax probability.
        temperature: float32, in (0, 1]; absent without a learned temperature.
        ood_score: float32; higher is more OOD. The metainfo ``ood_score_name`` names it.
        pred_is_ood: bool, whether ``ood_score`` is above the model's threshold, if it has one.
        is_ood: Metainfo, whether the image is truly OOD.
        source: Metainfo, the name of its dataset.

    Predictions are on the CPU.

    Example:
        >>> import torch
        >>> sample = ImageDataSample(label=torch.tensor(3), metainfo={"is_ood": False})
        >>> sample.label.item(), sample.is_ood
        (3, False)
    """
