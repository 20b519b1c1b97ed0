"""Image classifiers with an OOD score for each image."""

import torch
from mmengine.model import BaseModel
from torch import Tensor, nn

from negvision.classification.structures import ImageDataSample
from negvision.errors import DatasetError
from negvision.ood import FEATURE_SCORE_NAMES, AbeTLogits, AbeTOutput, LinearLogits, ood_score
from negvision.ood.feature_scores import score_name
from negvision.ood.scores import wide
from negvision.registry import MODELS

# Mean and standard deviation of ImageNet, which pretrained backbones expect.
_PREPROCESSOR = {
    "type": "mmengine.ImgDataPreprocessor",
    "mean": [123.675, 116.28, 103.53],
    "std": [58.395, 57.12, 57.375],
    "bgr_to_rgb": True,
}


class ScoredClassifier(BaseModel):
    """Backbone, mean over the last feature map, ``head``, and an OOD score for every image.

    Subclasses set ``head``, which maps features (N, D) to an ``AbeTOutput``.
    """

    head: nn.Module

    def __init__(
        self,
        backbone: dict,
        num_classes: int,
        score: str | dict,
        data_preprocessor: dict | None,
        init_cfg: dict | None,
        loss: dict | None = None,
    ) -> None:
        super().__init__(data_preprocessor or _PREPROCESSOR, init_cfg)
        self.loss = nn.CrossEntropyLoss() if loss is None else MODELS.build(loss)
        self.backbone = MODELS.build(backbone)
        self.num_classes = num_classes
        self.score = score_name(score)
        self.ood_threshold: float | None = None

    def forward(
        self,
        inputs: Tensor,
        data_samples: list[ImageDataSample] | None = None,
        mode: str = "tensor",
    ) -> dict[str, Tensor] | list[ImageDataSample] | AbeTOutput:
        """Train, predict or classify preprocessed images (N, 3, H, W).

        Returns:
            By mode: "loss": ``{"loss": scalar, "accuracy": scalar}``, accuracy in percent.
            "predict": the samples with the fields of
            :class:`negvision.classification.structures.ImageDataSample`. "tensor": logits (N, C)
            and temperatures (N,) or None; needs no samples.

        Raises:
            ValueError: An unknown mode, or missing samples.
            DatasetError: A training label is not one of the classes.
        """
        if mode not in ("loss", "predict", "tensor"):
            raise ValueError(f"mode must be 'loss', 'predict' or 'tensor', got {mode!r}")
        logits, temperature = self.head(_pooled(self.backbone(inputs)))
        output = AbeTOutput(logits.float(), temperature)
        if mode == "tensor":
            return output
        if data_samples is None:
            raise ValueError(f"mode {mode!r} needs data_samples")
        if mode == "predict":
            return self._predict(output, data_samples)
        labels = torch.stack([sample.label for sample in data_samples]).to(inputs.device)
        wrong = labels[(labels < 0) | (labels >= self.num_classes)].tolist()
        if wrong:
            raise DatasetError(
                f"{len(wrong)} of {len(labels)} images of a training batch have a label outside "
                f"the {self.num_classes} classes (0 to {self.num_classes - 1}): "
                f"{sorted(set(wrong))}. num_classes of the model must match the data, and OOD "
                "images (label -1) are for evaluation only"
            )
        with torch.no_grad():
            accuracy = (output.logits.argmax(1) == labels).float().mean() * 100
        loss = self.loss(output.logits.float(), labels)
        return {"loss": loss, "accuracy": accuracy}

    def _predict(
        self, output: AbeTOutput, data_samples: list[ImageDataSample]
    ) -> list[ImageDataSample]:
        logits, temperature = output
        logits = logits.float()
        scores = ood_score(self.score, logits, temperature)
        fields = {"logits": logits, "ood_score": scores}
        fields["pred_score"], fields["pred_label"] = logits.softmax(1).max(1)
        if temperature is not None and self.score not in FEATURE_SCORE_NAMES:
            fields["temperature"] = temperature
        if self.ood_threshold is not None:
            fields["pred_is_ood"] = scores > self.ood_threshold
        rows = {name: values.cpu() for name, values in fields.items()}
        for index, sample in enumerate(data_samples):
            sample.set_data({name: values[index] for name, values in rows.items()})
            sample.set_metainfo({"ood_score_name": self.score})
        return data_samples


@MODELS.register_module()
class AbeTClassifier(ScoredClassifier):
    """A classifier with AbeT's head: cosine logits over a learned temperature.

    Trained with plain cross-entropy on in-distribution images only. The method is known to fail
    on easy tasks: once hardly any training image is misclassified, nothing trains the temperature,
    and the OOD AUROC may drop from 95 % to 8 % within epochs (MNIST against Textures). Watch the
    AUROC of every epoch (:class:`negvision.OODImageMetric`); it need not rise with the accuracy.

    Source: LeVine et al., arXiv 2401.12129, section 3.

    Args:
        backbone: Any backbone of MMEngine's registries, e.g. ``negvision.ResNetCIFAR`` or
            ``mmdet.ResNet``. The last of several feature maps is averaged over its pixels; a
            vector (N, D) is used directly.
        num_classes: C, the in-distribution classes.
        in_features: D, channels of the feature.
        logits: "cosine", or "inner" for inner products, an ablation.
        temperature: False for T = 1 everywhere, another ablation.
        initial_temperature: T where training begins; see :class:`negvision.ood.AbeTLogits`.
        shaping: ``dict(type="react" | "ash" | "dice", ...)``; see :mod:`negvision.ood.shaping`.
        score: One of :data:`negvision.ood.SCORE_NAMES` or ``FEATURE_SCORE_NAMES``, or
            ``dict(type=..., ...)`` with options of :mod:`negvision.ood.feature_scores`. "energy"
            restores the leading T that AbeT drops, on the same trained network.
        data_preprocessor: By default MMEngine's ``ImgDataPreprocessor`` with ImageNet's mean and
            standard deviation, and BGR to RGB.
        init_cfg: As in MMEngine.
        loss: Loss of the logits (N, C) and labels (N,), such as
            ``dict(type="negvision.SelfAdjustingDiceLoss")``; None: cross-entropy.

    Example:
        >>> model = AbeTClassifier(
        ...     dict(type="negvision.ResNetCIFAR", depth=20), num_classes=10, in_features=64).eval()
        >>> logits, temperature = model(torch.zeros(2, 3, 32, 32))
        >>> logits.shape, temperature.shape
        (torch.Size([2, 10]), torch.Size([2]))
    """

    def __init__(
        self,
        backbone: dict,
        num_classes: int,
        in_features: int,
        logits: str = "cosine",
        temperature: bool = True,
        shaping: dict | None = None,
        score: str | dict = "abet",
        data_preprocessor: dict | None = None,
        init_cfg: dict | None = None,
        loss: dict | None = None,
        initial_temperature: float = 0.5,
    ) -> None:
        super().__init__(backbone, num_classes, score, data_preprocessor, init_cfg, loss)
        self.head = AbeTLogits(
            in_features,
            num_classes,
            logits=logits,
            temperature=temperature,
            initial_temperature=initial_temperature,
            shaping=shaping,
            score=score,
        )


@MODELS.register_module()
class OODClassifier(ScoredClassifier):
    """A plain classifier (a linear layer with bias on the feature), scored by a baseline.

    Args:
        backbone: As in :class:`AbeTClassifier`.
        num_classes: C, the in-distribution classes.
        in_features: D, channels of the feature.
        score, data_preprocessor, init_cfg, loss: As in :class:`AbeTClassifier`.

    Example:
        >>> model = OODClassifier(
        ...     dict(type="negvision.ResNetCIFAR", depth=20), num_classes=10, in_features=64).eval()
        >>> model(torch.zeros(2, 3, 32, 32)).logits.shape
        torch.Size([2, 10])
    """

    def __init__(
        self,
        backbone: dict,
        num_classes: int,
        in_features: int,
        score: str | dict = "msp",
        data_preprocessor: dict | None = None,
        init_cfg: dict | None = None,
        loss: dict | None = None,
    ) -> None:
        super().__init__(backbone, num_classes, score, data_preprocessor, init_cfg, loss)
        self.head = LinearLogits(in_features, num_classes, score)


def _pooled(features: Tensor | tuple[Tensor, ...] | list[Tensor]) -> Tensor:
    """The last feature map averaged over its pixels: (N, D)."""
    feature = features[-1] if isinstance(features, tuple | list) else features
    if feature.dim() == 2:
        return feature
    # In float32 also under autocast: bfloat16 keeps only three digits.
    return wide(feature).mean((2, 3))
