"""Feature shaping at test time, as options of AbeT's heads: ReAct, ASH and DICE.

Shaping acts on the feature (or the weights) of the logits only; the temperature sees the original
feature. In training it does nothing. ReAct and DICE need statistics of in-distribution features,
which :func:`fit_shaping` collects and checkpoints store.
"""

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from negvision.errors import CheckpointError

# Values of each batch that enter ReAct's percentile, at most.
_KEPT_VALUES = 2**16


class FeatureShaping(nn.Module):
    """Changes the feature before the logits, or their weights, in evaluation.

    Subclasses implement :meth:`apply_to`, the result of :meth:`forward` in evaluation. Those that
    need statistics set ``needs_fit = True`` and implement :meth:`observe`, which adds a batch of
    in-distribution features, and :meth:`finish`, which computes the statistics.

    Args:
        percentile: In (0, 100).
    """

    needs_fit = False
    fitted: Tensor  # whether there are statistics, for those that need them

    def __init__(self, percentile: float) -> None:
        super().__init__()
        if not 0 < percentile < 100:
            raise ValueError(f"percentile must be between 0 and 100, got {percentile}")
        self.percentile = float(percentile)
        self.fitting = False
        self.seen = 0
        if self.needs_fit:
            self.register_buffer("fitted", torch.tensor(False))

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor | None]:
        """The feature to use, and a mask of the weights (C, D) or None.

        Args:
            features: (N, D) or (N, D, H, W).

        Raises:
            CheckpointError: In evaluation, before the statistics were fitted.
        """
        if self.training:
            return features, None
        if self.needs_fit and self.fitting:
            self.seen += len(features)
            self.observe(features.detach().float())
            return features, None
        if self.needs_fit and not self.fitted:
            raise CheckpointError(
                f"{type(self).__name__} has no statistics of in-distribution features yet. Train "
                "without it (it acts at test time only), then run negvision calibrate-ood CONFIG "
                "CHECKPOINT with it, and test the checkpoint that this writes"
            )
        return self.apply_to(features)

    def apply_to(self, features: Tensor) -> tuple[Tensor, Tensor | None]:
        raise NotImplementedError

    def observe(self, features: Tensor) -> None:
        raise NotImplementedError

    def finish(self) -> None:
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
        channels = features.shape[1]
        kept = max(channels - round(channels * self.percentile / 100), 1)
        values, places = features.topk(kept, dim=1)
        before, after = features.sum(1, keepdim=True), values.sum(1, keepdim=True)
        if self.form == "b":
            values = (before / kept).expand_as(values)
        elif self.form == "s":
            values = values * (before / after.clamp(min=torch.finfo(after.dtype).tiny)).exp()
        return torch.zeros_like(features).scatter(1, places, values), None


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
    """A shaping from ``dict(type="react" | "ash" | "dice", ...)``, or None.

    Raises:
        ValueError: An unknown type.
    """
    if shaping is None:
        return None
    kinds = {"react": ReAct, "ash": ASH, "dice": DICE}
    options = dict(shaping)
    kind = options.pop("type", None)
    if kind not in kinds:
        raise ValueError(f"shaping.type must be one of {', '.join(kinds)}, got {kind!r}")
    return kinds[kind](**options)


def shapings_to_fit(model: nn.Module) -> list[FeatureShaping]:
    """The shapings of ``model`` that hold statistics."""
    return [m for m in model.modules() if isinstance(m, FeatureShaping) and m.needs_fit]


@contextlib.contextmanager
def fit_shaping(model: nn.Module) -> Iterator[list[FeatureShaping]]:
    """Fit the shapings of ``model`` on the features that pass it in evaluation mode inside.

    Raises:
        RuntimeError: At the end, if no feature reached a shaping.

    Example:
        >>> head = nn.Sequential(ReAct(percentile=50)).eval()
        >>> with fit_shaping(head):
        ...     _ = head(torch.arange(10.0)[None])
        >>> head[0].limit
        tensor(5.)
    """
    shapings = shapings_to_fit(model)
    for shaping in shapings:
        shaping.fitting, shaping.seen = True, 0
    try:
        yield shapings
        for shaping in shapings:
            if not shaping.seen:
                raise RuntimeError(f"no feature reached {type(shaping).__name__}")
            shaping.finish()
            shaping.fitted.fill_(True)
    finally:
        for shaping in shapings:
            shaping.fitting = False
