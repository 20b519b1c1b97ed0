"""AbeT's heads for vectors and maps: cosine logits, a learned temperature, and both together."""

import contextlib
import math
from contextlib import AbstractContextManager
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from negvision.ood.feature_scores import build_feature_score
from negvision.ood.scores import wide
from negvision.ood.shaping import DICE, build_shaping

_NORM_EPS = 1e-4
# Keeps 1 / T finite where the sigmoid is 0.
_MIN_TEMPERATURE = 1e-12


class AbeTOutput(NamedTuple):
    """Output of a classifier with a learned temperature.

    Attributes:
        logits: ``g / T``, (N, C) or (N, C, H, W), float32.
        temperature: (N,) or (N, H, W), float32; None for a head without one. In the evaluation of
            a head with a score of features, that score.
    """

    logits: Tensor
    temperature: Tensor | None


class _LogitHead(nn.Module):
    """Class weights, applied to vectors (N, D) or maps (N, D, H, W)."""

    def __init__(self, in_features: int, num_classes: int) -> None:
        super().__init__()
        for name, value in {"in_features": in_features, "num_classes": num_classes}.items():
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        self.in_features, self.num_classes = in_features, num_classes
        self.weight = nn.Parameter(torch.empty(num_classes, in_features))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Reinitialize the weights: Kaiming normal by fan-in, with the gain of ReLU."""
        nn.init.kaiming_normal_(self.weight, nonlinearity="relu")

    def _checked(self, features: Tensor) -> Tensor:
        if features.dim() not in (2, 4) or features.shape[1] != self.in_features:
            raise ValueError(
                f"features must be (N, {self.in_features}) or (N, {self.in_features}, H, W), got "
                f"{tuple(features.shape)}"
            )
        return wide(features)

    def _product(self, features: Tensor, weight_mask: Tensor | None) -> Tensor:
        weight = self.weight if weight_mask is None else self.weight * weight_mask
        if features.dim() == 2:
            return F.linear(features, weight)
        return F.conv2d(features, weight[:, :, None, None])


class CosineLogits(_LogitHead):
    """Cosine of a feature with each class weight, without bias.

    ``g_c = <w_c, h> / ((|w_c| + 1e-4) (|h| + 1e-4))``, so a zero feature gives zeros. Computed in
    float32, also under autocast.

    Source: LeVine et al., arXiv 2401.12129, section 3 and its official code.

    Args:
        in_features: Channels of the feature, D.
        num_classes: C, including the background if there is one.

    Example:
        >>> head = CosineLogits(16, 10)
        >>> head(torch.randn(2, 16)).shape, head(torch.randn(2, 16, 4, 5)).shape
        (torch.Size([2, 10]), torch.Size([2, 10, 4, 5]))
    """

    def forward(self, features: Tensor, weight_mask: Tensor | None = None) -> Tensor:
        """Cosines in [-1, 1].

        Args:
            features: (N, D) or (N, D, H, W).
            weight_mask: (C, D), multiplies the weights in the product but not in their norms.
        """
        with _full_precision(features.device):
            features = self._checked(features)
            norms = torch.linalg.vector_norm(features, dim=1, keepdim=True) + _NORM_EPS
            weight_norms = torch.linalg.vector_norm(self.weight, dim=1) + _NORM_EPS
            product = self._product(features, weight_mask)
            return product / (norms * weight_norms.view(1, -1, *[1] * (features.dim() - 2)))


class InnerLogits(_LogitHead):
    """Inner products ``<w_c, h>`` without bias: AbeT's ablation of the cosine."""

    def forward(self, features: Tensor, weight_mask: Tensor | None = None) -> Tensor:
        """Arguments and shapes as in :meth:`CosineLogits.forward`."""
        with _full_precision(features.device):
            return self._product(self._checked(features), weight_mask)


class LearnedTemperature(nn.Module):
    """``T = sigmoid(BatchNorm(Linear(h))) + 1e-12``, one scalar for each sample or pixel.

    Only the cross-entropy of ``g / T`` trains T. The batch statistics are those of the training
    samples: for boxes, of the sampled foreground and background together. Computed in float32,
    also under autocast.

    Source: LeVine et al., arXiv 2401.12129, section 3; the form is that of Hsu et al.,
    "Generalized ODIN", CVPR 2020, section 3.

    Args:
        in_features: Channels of the feature, D.
        conv: True for maps (N, D, H, W): the linear layer is then a 1x1 convolution without bias.
            False for vectors (N, D).
        initial: T where training begins, in (0, 1), by the bias of the normalization.

    Example:
        >>> LearnedTemperature(16)(torch.randn(8, 16)).shape
        torch.Size([8])
        >>> LearnedTemperature(16, conv=True)(torch.randn(2, 16, 4, 5)).shape
        torch.Size([2, 4, 5])
    """

    def __init__(self, in_features: int, conv: bool = False, initial: float = 0.5) -> None:
        super().__init__()
        if not 0 < initial < 1:
            raise ValueError(f"initial_temperature must be between 0 and 1, got {initial}")
        self.conv, self.initial = conv, initial
        self.linear = (
            nn.Conv2d(in_features, 1, 1, bias=False) if conv else nn.Linear(in_features, 1)
        )
        self.norm = nn.BatchNorm2d(1) if conv else nn.BatchNorm1d(1)
        self._set_start()

    def reset_parameters(self) -> None:
        self.linear.reset_parameters()
        self.norm.reset_parameters()
        self._set_start()

    def _set_start(self) -> None:
        # The mean of what the sigmoid gets; 0, as the paper has it, for 0.5.
        nn.init.constant_(self.norm.bias, math.log(self.initial / (1 - self.initial)))

    def forward(self, features: Tensor) -> Tensor:
        """Temperatures in (0, 1]: (N,), or (N, H, W) of maps."""
        if features.dim() != (4 if self.conv else 2):
            wanted = "(N, D, H, W)" if self.conv else "(N, D)"
            raise ValueError(f"features must be {wanted}, got {tuple(features.shape)}")
        norm = self.norm
        # With statistics over all ranks, every rank must take part, however few values it has.
        over_ranks = isinstance(norm, nn.SyncBatchNorm) or getattr(norm, "over_ranks", False)
        with _full_precision(features.device):
            values = self.linear(wide(features))
            if values.numel() > 1 or over_ranks:
                values = norm(values)
            else:
                # A single value, or none, has no variance; an image may yield a single box.
                statistics = (norm.running_mean, norm.running_var)
                values = F.batch_norm(values, *statistics, norm.weight, norm.bias, eps=norm.eps)
            return (values.sigmoid() + _MIN_TEMPERATURE).squeeze(1)


class AbeTLogits(nn.Module):
    """Logits ``g / T``, trained with plain cross-entropy and scored at test time.

    Source: LeVine et al., arXiv 2401.12129, section 3; the options are its ablations (tables 4 to
    6).

    Args:
        in_features: Channels of the feature, D.
        num_classes: C, including the background if there is one.
        conv: Whether features are maps (N, D, H, W) rather than vectors (N, D).
        logits: "cosine", or "inner" for inner products.
        temperature: False for T = 1 everywhere: a head of cosines or inner products alone.
        initial_temperature: T where training begins, in (0, 1). The paper's normalization starts at
            0.5, where the logits of cosines lie within -2 and 2.
        shaping: ``dict(type="react" | "ash" | "scale" | "dice", percentile=...)``, which changes
            the feature of the logits at test time; see :mod:`negvision.ood.shaping`.
        score: One of features replaces the temperature in the output of the evaluation; see
            :mod:`negvision.ood.feature_scores`. Others change nothing here.
        foreground: Classes without the background; by default all.

    Raises:
        ValueError: An unknown option, or features of another shape.

    Example:
        >>> head = AbeTLogits(16, 10)
        >>> logits, temperature = head(torch.randn(8, 16))
        >>> logits.shape, temperature.shape
        (torch.Size([8, 10]), torch.Size([8]))
    """

    def __init__(
        self,
        in_features: int,
        num_classes: int,
        conv: bool = False,
        logits: str = "cosine",
        temperature: bool = True,
        shaping: dict | None = None,
        score: str | dict | None = None,
        foreground: int | None = None,
        sigmoid: bool = False,
        initial_temperature: float = 0.5,
    ) -> None:
        super().__init__()
        kinds = {"cosine": CosineLogits, "inner": InnerLogits}
        if logits not in kinds:
            raise ValueError(f"logits must be one of {', '.join(kinds)}, got {logits!r}")
        self.classifier = kinds[logits](in_features, num_classes)
        self.temperature = (
            LearnedTemperature(in_features, conv, initial_temperature) if temperature else None
        )
        self.shaping = build_shaping(shaping)
        if isinstance(self.shaping, DICE):
            self.shaping.attach(self.classifier.weight)
        self.feature_score = build_feature_score(
            score, in_features, foreground or num_classes, sigmoid
        )
        if self.feature_score is not None:
            self.feature_score.attach(self.classifier.weight, None, logits == "cosine")

    def forward(self, features: Tensor) -> AbeTOutput:
        """Logits and temperatures of features (N, D), or (N, D, H, W) with ``conv``."""
        shaped, mask = (features, None) if self.shaping is None else self.shaping(features)
        logits, temperature = self.classifier(shaped, mask), None
        if self.temperature is not None:
            temperature = self.temperature(features)
            logits = logits / temperature.unsqueeze(1)
        logits = self.shifted(logits)
        if self.feature_score is not None and not self.training:
            temperature = self.feature_score(features, logits)
        return AbeTOutput(logits, temperature)

    def shifted(self, logits: Tensor) -> Tensor:
        """The logits with what a subclass adds to them."""
        return logits


class LinearLogits(nn.Linear):
    """A plain linear layer whose output has the form of :class:`AbeTLogits`.

    Args:
        in_features: D.
        num_classes: C, including the background if there is one.
        score, foreground: As in :class:`AbeTLogits`.
    """

    def __init__(
        self,
        in_features: int,
        num_classes: int,
        score: str | dict | None = None,
        foreground: int | None = None,
    ) -> None:
        super().__init__(in_features, num_classes)
        self.feature_score = build_feature_score(score, in_features, foreground or num_classes)
        if self.feature_score is not None:
            self.feature_score.attach(self.weight, self.bias, cosine=False)

    def forward(self, features: Tensor) -> AbeTOutput:  # type: ignore[override]
        """Logits (N, C) of (N, D), and in evaluation the score of features, if it is one."""
        logits = super().forward(features)
        if self.feature_score is None or self.training:
            return AbeTOutput(logits, None)
        return AbeTOutput(logits, self.feature_score(features, logits))


def _full_precision(device: torch.device) -> AbstractContextManager:
    """Turn autocast off on ``device``."""
    if device.type == "meta":
        return contextlib.nullcontext()  # autocast knows no such device
    return torch.autocast(device.type, enabled=False)
