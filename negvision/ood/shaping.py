"""Feature shaping at test time, as options beside AbeT: ReAct, ASH and DICE.

All act on the feature (or the weights) of the logits alone; the temperature sees the feature as
it is. In training they do nothing. ReAct and DICE hold statistics of in-distribution features,
which :func:`fit_shaping` collects and checkpoints keep.
"""

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from negvision.errors import CheckpointError

# Of each batch at most so many values take part in ReAct's percentile.
_KEPT_VALUES = 2**16


class FeatureShaping(nn.Module):
    """Changes the feature before the logits, or the weights that it meets, in evaluation.

    Subclasses implement :meth:`apply_to` and, where they need statistics, ``needs_fit = True``,
    :meth:`observe` and :meth:`finish`.
    """

    needs_fit = False

    def __init__(self) -> None:
        super().__init__()
        self.fitting = False
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
            self.observe(features.detach().float())
            return features, None
        if self.needs_fit and not self.fitted:
            raise CheckpointError(
                f"{type(self).__name__} has no statistics of in-distribution features yet. Train "
                "without it (it acts at test time alone), then run tools/calibrate_ood.py CONFIG "
                "CHECKPOINT with it and test the checkpoint that this writes"
            )
        return self.apply_to(features)

    def apply_to(self, features: Tensor) -> tuple[Tensor, Tensor | None]:
        """What :meth:`forward` returns once fitted."""
        raise NotImplementedError

    def observe(self, features: Tensor) -> None:
        """Take a batch of in-distribution features into account."""
        raise NotImplementedError

    def finish(self) -> None:
        """Turn what was observed into the statistics."""
        raise NotImplementedError


class ReAct(FeatureShaping):
    """Clip the feature at a percentile of in-distribution values.

    Source: Sun, Guo, Li, "ReAct: Out-of-distribution Detection With Rectified Activations",
    NeurIPS 2021, eq. 2; AbeT clips at the 90th percentile.

    Args:
        percentile: In (0, 100).
    """

    needs_fit = True

    def __init__(self, percentile: float = 90.0) -> None:
        super().__init__()
        self.percentile = _checked_percentile(percentile)
        self.register_buffer("limit", torch.tensor(float("inf")))
        self._values: list[Tensor] = []

    def apply_to(self, features: Tensor) -> tuple[Tensor, Tensor | None]:
        """See the base class."""
        return features.clamp(max=self.limit.to(features.dtype)), None

    def observe(self, features: Tensor) -> None:
        """See the base class."""
        values = features.reshape(-1)
        step = -(-len(values) // _KEPT_VALUES) or 1
        self._values.append(values[::step].cpu())

    def finish(self) -> None:
        """See the base class."""
        values = torch.cat(self._values).sort().values
        place = min(int(len(values) * self.percentile / 100), len(values) - 1)
        self.limit.fill_(values[place])
        self._values = []


class ASH(FeatureShaping):
    """Set all but the largest entries of each feature to zero.

    With cosine logits only the direction of a feature counts, so the rescaling of the S form
    changes nothing there; it does with inner products.

    Source: Djurisic et al., "Extremely Simple Activation Shaping for Out-of-Distribution
    Detection", ICLR 2023, algorithms 1 to 3.

    Args:
        percentile: Of the entries of one feature that are set to zero, in (0, 100).
        form: "s" (multiply the rest by the exponential of the ratio of the sums before and
            after), "p" (leave it) or "b" (share the former sum evenly among it).
    """

    def __init__(self, percentile: float = 65.0, form: str = "s") -> None:
        super().__init__()
        self.percentile = _checked_percentile(percentile)
        if form not in ("s", "p", "b"):
            raise ValueError(f'form must be "s", "p" or "b", got {form!r}')
        self.form = form

    def apply_to(self, features: Tensor) -> tuple[Tensor, Tensor | None]:
        """See the base class."""
        channels = features.shape[1]
        kept = max(channels - int(channels * self.percentile / 100), 1)
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
        percentile: Of all weights that are left out, in (0, 100).
    """

    needs_fit = True

    def __init__(self, percentile: float = 90.0) -> None:
        super().__init__()
        self.percentile = _checked_percentile(percentile)
        # Its size is that of the weights of the logit head that it belongs to.
        self.register_buffer("mask", None)

    def attach(self, weight: nn.Parameter) -> None:
        """Name the weights (C, D) that are masked."""
        # In a list it is no parameter of this module as well.
        self._weight = [weight]
        self.mask = torch.ones_like(weight, requires_grad=False)
        self._sum, self._count = 0.0, 0

    def apply_to(self, features: Tensor) -> tuple[Tensor, Tensor | None]:
        """See the base class."""
        return features, self.mask

    def observe(self, features: Tensor) -> None:
        """See the base class."""
        self._sum = self._sum + features.movedim(1, -1).reshape(-1, features.shape[1]).sum(0)
        self._count += features.numel() // features.shape[1]

    def finish(self) -> None:
        """See the base class."""
        contribution = self._weight[0].detach() * (self._sum / self._count)
        left_out = int(contribution.numel() * self.percentile / 100)
        order = contribution.flatten().argsort(stable=True)
        mask = torch.ones(contribution.numel(), device=contribution.device)
        mask[order[:left_out]] = 0
        self.mask.copy_(mask.view_as(contribution))
        self._sum, self._count = 0.0, 0


_KINDS = {"react": ReAct, "ash": ASH, "dice": DICE}


def build_shaping(shaping: dict | None) -> FeatureShaping | None:
    """A shaping from ``dict(type="react" | "ash" | "dice", ...)``; None of None.

    Raises:
        ValueError: Another type.
    """
    if shaping is None:
        return None
    options = dict(shaping)
    kind = options.pop("type", None)
    if kind not in _KINDS:
        raise ValueError(f"shaping.type must be one of {', '.join(_KINDS)}, got {kind!r}")
    return _KINDS[kind](**options)


def shapings_to_fit(model: nn.Module) -> list[FeatureShaping]:
    """The shapings of ``model`` that hold statistics."""
    return [m for m in model.modules() if isinstance(m, FeatureShaping) and m.needs_fit]


@contextlib.contextmanager
def fit_shaping(model: nn.Module) -> Iterator[list[FeatureShaping]]:
    """Inside, features that pass ``model`` in evaluation are observed; after it all is fitted.

    Raises:
        RuntimeError: At the end, where no feature came by.

    Example:
        >>> head = nn.Sequential(ReAct(percentile=50)).eval()
        >>> with fit_shaping(head):
        ...     _ = head(torch.arange(10.0)[None])
        >>> head[0].limit
        tensor(5.)
    """
    shapings = shapings_to_fit(model)
    for shaping in shapings:
        shaping.fitting = True
        shaping.seen = 0
    handles = [shaping.register_forward_pre_hook(_count) for shaping in shapings]
    try:
        yield shapings
        for shaping in shapings:
            if not shaping.seen:
                raise RuntimeError(f"no feature reached {type(shaping).__name__}")
            shaping.finish()
            shaping.fitted.fill_(True)
    finally:
        for shaping, handle in zip(shapings, handles, strict=True):
            shaping.fitting = False
            handle.remove()


def _count(shaping: FeatureShaping, args: tuple) -> None:
    shaping.seen += args[0].shape[0]


def _checked_percentile(percentile: float) -> float:
    if not 0 < percentile < 100:
        raise ValueError(f"percentile must be between 0 and 100, got {percentile}")
    return float(percentile)
