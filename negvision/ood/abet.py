"""Both heads of AbeT in one module, for vectors and for maps."""

from typing import NamedTuple

from torch import Tensor, nn

from negvision.ood.logits import CosineLogits, InnerLogits
from negvision.ood.shaping import DICE, build_shaping
from negvision.ood.temperature import LearnedTemperature

_LOGITS = {"cosine": CosineLogits, "inner": InnerLogits}


class AbeTOutput(NamedTuple):
    """What a classifier with a learned temperature says.

    Attributes:
        logits: ``g / T``, (N, C) or (N, C, H, W), float32.
        temperature: (N,) or (N, H, W), float32; None for a head without one.
    """

    logits: Tensor
    temperature: Tensor | None


class AbeTLogits(nn.Module):
    """Logits ``g / T``: what is trained with plain cross-entropy, and what is scored.

    Source: LeVine et al., arXiv 2401.12129, section 3; the options are its ablations (tables 4 to
    6).

    Args:
        in_features: Channels of the feature, D.
        num_classes: C, the background included where there is one.
        conv: Whether features are maps (N, D, H, W) rather than vectors (N, D).
        logits: "cosine", or "inner" for inner products.
        temperature: False for T = 1 throughout: a head of cosines or inner products alone.
        shaping: ``dict(type="react" | "ash" | "dice", percentile=...)``: changes the feature of
            the logits at test time; see :mod:`negvision.ood.shaping`.

    Raises:
        ValueError: An unknown option, or features of another shape.

    Example:
        >>> import torch
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
    ) -> None:
        super().__init__()
        if logits not in _LOGITS:
            raise ValueError(f"logits must be one of {', '.join(_LOGITS)}, got {logits!r}")
        self.classifier = _LOGITS[logits](in_features, num_classes)
        self.temperature = LearnedTemperature(in_features, conv) if temperature else None
        self.shaping = build_shaping(shaping)
        if isinstance(self.shaping, DICE):
            self.shaping.attach(self.classifier.weight)

    def forward(self, features: Tensor) -> AbeTOutput:
        """Logits and temperatures of features (N, D), or (N, D, H, W) with ``conv``."""
        shaped, mask = (features, None) if self.shaping is None else self.shaping(features)
        logits = self.classifier(shaped, mask)
        if self.temperature is None:
            return AbeTOutput(logits, None)
        temperature = self.temperature(features)
        return AbeTOutput(logits / temperature.unsqueeze(1), temperature)
