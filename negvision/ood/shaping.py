"""Feature shaping at test time, as options of AbeT's heads: ReAct, ASH, SCALE and DICE.

Shaping acts on the feature (or the weights) of the logits only; the temperature sees the original
feature. In training it does nothing. ReAct and DICE need statistics of in-distribution features,
which :func:`negvision.ood.fit_statistics` collects and checkpoints store.
"""

import torch
from torch import Tensor, nn

from negvision.ood.statistics import Statistics

# Values of each batch that enter ReAct's percentile, at most.
_KEPT_VALUES = 2**16


class FeatureShaping(Statistics):
    """Changes the feature before the logits, or their weights, in evaluation.

    Subclasses implement :meth:`apply_to`, the result of :meth:`forward` in evaluation.

    Args:
        percentile: In (0, 100).
    """

    def __init__(self, percentile: float) -> None:
        super().__init__()
        if not 0 < percentile < 100:
            raise ValueError(f"percentile must be between 0 and 100, got {percentile}")
        self.percentile = float(percentile)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor | None]:
        """The feature to use, and a mask of the weights (C, D) or None.

        Args:
            features: (N, D) or (N, D, H, W).

        Raises:
            CheckpointError: In evaluation, before the statistics were fitted.
        """
        if self.training or self.collects(features):
            return features, None
        return self.apply_to(features)

    def apply_to(self, features: Tensor) -> tuple[Tensor, Tensor | None]:
        raise NotImplementedError


class ReAct(FeatureShaping):
    """Clip the feature at a percentile of in-distribution values.

    Source: Sun, Guo, Li, "ReAct: Out-of-distribution Detection With Rectified Activations",
    NeurIPS 2021, eq. 2; AbeT clips at the 90th percentile.

    Args:
        percentile: In (0, 100).
    """

    needs_fit = True
    limit: Tensor

    def __init__(self, percentile: float = 90.0) -> None:
        super().__init__(percentile)
        self.register_buffer("limit", torch.tensor(float("inf")))
        self._values: list[Tensor] = []

    def apply_to(self, features: Tensor) -> tuple[Tensor, Tensor | None]:
        return features.clamp(max=self.limit.to(features.dtype)), None

    def observe(self, features: Tensor) -> None:
        values = features.reshape(-1)
        step = -(-len(values) // _KEPT_VALUES) or 1
        self._values.append(values[::step].cpu())

    def finish(self) -> None:
        values = torch.cat(self._values).sort().values
        place = min(int(len(values) * self.percentile / 100), len(values) - 1)
        self.limit.fill_(values[place])
        self._values = []


class ASH(FeatureShaping):
    """Set all but the largest entries of each feature to zero.

    With cosine logits only the direction of a feature counts, so the rescaling of form "s" changes
    nothing; it does with inner products.

    Source: Djurisic et al., "Extremely Simple Activation Shaping for Out-of-Distribution
    Detection", ICLR 2023, algorithms 1 to 3. The number of zeros is rounded to nearest, as in the
    authors' code.

    Args:
        percentile: Share of the entries of a feature that are set to zero, in (0, 100).
        form: "s" (multiply the rest by the exponential of the ratio of the sums before and
            after), "p" (keep it) or "b" (spread the former sum evenly over it).
    """

    def __init__(self, percentile: float = 65.0, form: str = "s") -> None:
        super().__init__(percentile)
        if form not in ("s", "p", "b"):
            raise ValueError(f'form must be "s", "p" or "b", got {form!r}')
        self.form = form

    def apply_to(self, features: Tensor) -> tuple[Tensor, Tensor | None]:
        before, values, places = _largest(features, self.percentile)
        if self.form == "b":
            values = (before / values.shape[1]).expand_as(values)
        elif self.form == "s":
            values = values * _boost(before, values)
        return torch.zeros_like(features).scatter(1, places, values), None


class SCALE(FeatureShaping):
    """Multiply each feature by the exponential of its sum over the sum of its largest entries.

    It is ASH's form "s" without the zeros. With cosine logits, whose feature has no length, it
    changes nothing.

    Source: Xu et al., "Scaling for Training Time and Post-hoc Out-of-distribution Detection
    Enhancement", ICLR 2024.

    Args:
        percentile: Share of the entries that are not among the largest, in (0, 100).
    """

    def __init__(self, percentile: float = 85.0) -> None:
        super().__init__(percentile)

    def apply_to(self, features: Tensor) -> tuple[Tensor, Tensor | None]:
        before, values, _ = _largest(features, self.percentile)
        return features * _boost(before, values), None


class DICE(FeatureShaping):
    """Keep only the weights that contribute most to the logits of in-distribution features.

    Source: Sun and Li, "DICE: Leveraging Sparsification for Out-of-Distribution Detection", ECCV
    2022, section 3.

    Args:
        percentile: Share of all weights that are dropped, in (0, 100).
    """

    needs_fit = True

    def __init__(self, percentile: float = 90.0) -> None:
        super().__init__(percentile)
        # Sized by `attach` like the weights of the logit head.
        self.register_buffer("mask", None)

    def attach(self, weight: nn.Parameter) -> None:
        """Set the weights (C, D) to mask."""
        # A list keeps the weight from being registered as a parameter of this module too.
        self._weight = [weight]
        self.mask = torch.ones_like(weight, requires_grad=False)
        self._sum, self._count = torch.zeros(()), 0

    def apply_to(self, features: Tensor) -> tuple[Tensor, Tensor | None]:
        return features, self.mask

    def observe(self, features: Tensor) -> None:
        total = features.movedim(1, -1).reshape(-1, features.shape[1]).sum(0)
        self._sum = self._sum.to(total) + total
        self._count += features.numel() // features.shape[1]

    def finish(self) -> None:
        contribution = self._weight[0].detach() * (self._sum / self._count)
        dropped = int(contribution.numel() * self.percentile / 100)
        order = contribution.flatten().argsort(stable=True)
        mask = torch.ones(contribution.numel(), device=contribution.device)
        mask[order[:dropped]] = 0
        self.mask.copy_(mask.view_as(contribution))
        self._sum, self._count = torch.zeros(()), 0


def build_shaping(shaping: dict | None) -> FeatureShaping | None:
    """A shaping from ``dict(type="react" | "ash" | "scale" | "dice", ...)``, or None.

    Raises:
        ValueError: An unknown type.
    """
    if shaping is None:
        return None
    kinds = {"react": ReAct, "ash": ASH, "scale": SCALE, "dice": DICE}
    options = dict(shaping)
    kind = options.pop("type", None)
    if kind not in kinds:
        raise ValueError(f"shaping.type must be one of {', '.join(kinds)}, got {kind!r}")
    return kinds[kind](**options)


def _largest(features: Tensor, percentile: float) -> tuple[Tensor, Tensor, Tensor]:
    """Sums (N, 1, ...) of the features, and their largest entries with their places."""
    channels = features.shape[1]
    kept = max(channels - round(channels * percentile / 100), 1)
    return features.sum(1, keepdim=True), *features.topk(kept, dim=1)


def _boost(before: Tensor, values: Tensor) -> Tensor:
    after = values.sum(1, keepdim=True)
    return (before / after.clamp(min=torch.finfo(after.dtype).tiny)).exp()
