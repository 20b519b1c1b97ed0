"""What the parts of image classification hand to one another."""

from mmengine.structures import BaseDataElement


class ImageDataSample(BaseDataElement):
    """One image: its class, and after prediction what the model says.

    Attributes:
        label: int64 tensor without dimensions, the class; -1 where it is not known, as of an OOD
            image.
        logits: Shape (C,), float32, divided by the temperature where there is one.
        pred_label: int64 tensor without dimensions, the class of the largest logit.
        pred_score: float32, its softmax probability.
        temperature: float32, in (0, 1]; absent without a learned temperature.
        ood_score: float32; higher is more OOD. The metainfo ``ood_score_name`` says which it is.
        pred_is_ood: bool, whether ``ood_score`` is above the model's threshold; absent without.
        is_ood: Metainfo, whether the image is OOD in truth.
        source: Metainfo, the name of its dataset, by which figures are told apart.

    Predictions are on the CPU.

    Example:
        >>> import torch
        >>> sample = ImageDataSample(label=torch.tensor(3), metainfo={"is_ood": False})
        >>> sample.label.item(), sample.is_ood
        (3, False)
    """
