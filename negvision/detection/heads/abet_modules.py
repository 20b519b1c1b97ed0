"""AbeT's logits and temperature inside of mmdet's heads."""

import math

import torch
from mmdet.models.losses import accuracy
from mmdet.registry import MODELS
from torch import Tensor, nn

from negvision.ood import AbeTLogits, AbeTOutput


class _HeadLogits(AbeTLogits):
    """:class:`negvision.ood.AbeTLogits` that stays as the method initialises it.

    An ``init_cfg`` of mmdet's heads draws whatever has a ``weight`` below a name such as
    ``fc_cls`` from Normal(0, 0.01), the normalisation of the temperature too: T would be stuck at
    0.5. MMEngine calls this method after it, and before pretrained weights are loaded.
    """

    def init_weights(self) -> None:
        """Draw the weights anew; see :class:`negvision.ood.AbeTLogits`."""
        self.classifier.reset_parameters()
        if self.temperature is not None:
            self.temperature.reset_parameters()


class RoILogits(_HeadLogits):
    """Logits ``g / T`` of RoIs, and T as one more column.

    As a column the temperature takes the ways that mmdet has for a classifier's output: it is
    split by image and averaged over the stages of a cascade.

    Args:
        in_features: D.
        out_features: K + 2: the classes, the background and the temperature.
        **options: ``logits``, ``temperature``, ``shaping`` of :class:`negvision.ood.AbeTLogits`.
    """

    def __init__(self, in_features: int, out_features: int, **options) -> None:
        super().__init__(in_features, out_features - 1, **options)

    def forward(self, features: Tensor) -> Tensor:
        """(N, K + 2) float32 of features (N, D); the last column is 1 without a temperature."""
        logits, temperature = super().forward(features)
        if temperature is None:
            temperature = logits.new_ones(len(logits))
        return torch.cat([logits, temperature[:, None]], 1)


class DenseLogits(_HeadLogits):
    """Logits ``g / T + b`` of the locations of feature maps, with one learned b for all classes.

    Args:
        in_features: D.
        num_classes: C, without a background.
        prior: Probability that the sigmoid of a logit starts from, in (0, 1), where g is 0.
        **options: ``logits``, ``temperature``, ``shaping`` of :class:`negvision.ood.AbeTLogits`.
    """

    def __init__(self, in_features: int, num_classes: int, prior: float = 0.01, **options) -> None:
        super().__init__(in_features, num_classes, conv=True, **options)
        self.prior = prior
        self.bias = nn.Parameter(torch.empty(()))
        self._reset_bias()

    def init_weights(self) -> None:
        """Draw the weights anew and set b to the logit of ``prior``."""
        super().init_weights()
        self._reset_bias()

    def forward(self, features: Tensor) -> AbeTOutput:
        """Logits (B, C, H, W) and temperatures (B, H, W), 1 without any, of maps (B, D, H, W)."""
        logits, temperature = super().forward(features)
        if temperature is None:
            temperature = torch.ones_like(logits[:, 0])
        return AbeTOutput(logits + self.bias, temperature)

    def _reset_bias(self) -> None:
        nn.init.constant_(self.bias, -math.log((1 - self.prior) / self.prior))


class TemperatureColumnLoss(nn.Module):
    """A softmax loss on an output whose last column is a temperature, which it leaves out.

    Has what mmdet's box and cascade heads ask of a loss whose classifier has columns of its own.

    Args:
        loss: Config of the loss of the other columns.

    Raises:
        ValueError: That loss is one of sigmoids, or needs other columns itself.
    """

    custom_cls_channels = True
    custom_activation = True
    custom_accuracy = True

    def __init__(self, loss: dict) -> None:
        super().__init__()
        self.loss = MODELS.build(loss)
        if getattr(self.loss, "use_sigmoid", False) or hasattr(self.loss, "get_cls_channels"):
            raise ValueError(
                f"loss_cls is {dict(loss)!r}; AbeT's box head needs a loss of the softmax over the "
                'classes and the background, such as dict(type="CrossEntropyLoss")'
            )

    def get_cls_channels(self, num_classes: int) -> int:
        """Columns of the classifier: the classes, the background and the temperature."""
        return num_classes + 2

    def get_activation(self, cls_score: Tensor) -> Tensor:
        """Probabilities (N, K + 1) of the output (N, K + 2)."""
        return cls_score[:, :-1].softmax(-1)

    def get_accuracy(self, cls_score: Tensor, labels: Tensor) -> dict:
        """``acc``, in percent, as mmdet logs it."""
        return {"acc": accuracy(cls_score[:, :-1], labels)}

    def forward(self, cls_score: Tensor, *args, **kwargs) -> Tensor:
        """The loss of all but the last column."""
        return self.loss(cls_score[:, :-1], *args, **kwargs)
