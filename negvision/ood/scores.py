"""OOD scores of a classifier's output. A higher score always means more out-of-distribution.

Scores are computed in float32 or float64, also under autocast: a logit of 1 / T with T = 0.01
overflows the exponential of float16, and bfloat16 keeps only three digits.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from negvision.errors import did_you_mean


def wide(values: Tensor) -> Tensor:
    """``values`` as float32; float64 stays float64."""
    return values if values.dtype == torch.float64 else values.float()


def abet_score(logits: Tensor, dim: int = -1) -> Tensor:
    """AbeT's score, ``-logsumexp(logits)`` over classes.

    The energy of a network with a learned temperature T is ``-T logsumexp(g / T)``; AbeT drops
    ("ablates") the leading T. With cosine logits ``g`` in [-1, 1] the score is at least
    ``-(1 / T + log C)``; OOD inputs gather near ``-log C``.

    Source: LeVine et al., arXiv 2401.12129, section 3.

    Args:
        logits: ``g / T``, any shape with the classes along ``dim``; for boxes, those of the
            foreground classes only.
        dim: The class dimension.

    Returns:
        The shape without ``dim``; float32, or float64 for float64 logits.

    Example:
        >>> abet_score(torch.zeros(2, 10))
        tensor([-2.3026, -2.3026])
    """
    return -wide(logits).logsumexp(dim)


def energy_score(logits: Tensor, temperature: Tensor | None = None, dim: int = -1) -> Tensor:
    """Free energy, ``-T logsumexp(logits)``, of logits that are already divided by T.

    The temperature has the shape of ``logits`` without ``dim``; None means 1.

    Source: Liu et al., "Energy-based Out-of-distribution Detection", NeurIPS 2020, eq. 4.
    """
    score = abet_score(logits, dim)
    return score if temperature is None else score * wide(temperature)


def msp_score(logits: Tensor, dim: int = -1) -> Tensor:
    """Minus the largest softmax probability, in [-1, -1 / C].

    Source: Hendrycks and Gimpel, "A Baseline for Detecting Misclassified and Out-of-Distribution
    Examples in Neural Networks", ICLR 2017.
    """
    return -wide(logits).softmax(dim).amax(dim)


def max_logit_score(logits: Tensor, dim: int = -1) -> Tensor:
    """Minus the largest logit.

    Source: Hendrycks et al., "Scaling Out-of-Distribution Detection for Real-World Settings",
    ICML 2022.
    """
    return -wide(logits).amax(dim)


def entropy_score(logits: Tensor, dim: int = -1) -> Tensor:
    """Entropy of the softmax in nats, in [0, log C]."""
    log_p = wide(logits).log_softmax(dim)
    p = log_p.exp()
    # A class of probability 0 adds nothing, even where its logarithm is infinite.
    return -torch.where(p > 0, p * log_p, 0.0).sum(dim)


def gen_score(logits: Tensor, dim: int = -1) -> Tensor:
    """Generalized entropy, the sum of ``(p (1 - p))^0.1`` of the 100 largest probabilities.

    Source: Liu, Lochman, Zach, "GEN: Pushing the Limits of Softmax-Based Out-of-Distribution
    Detection", CVPR 2023.
    """
    p = wide(logits).softmax(dim)
    p = p.topk(min(100, p.shape[dim]), dim).values
    return (p * (1 - p)).clamp(min=0).pow(0.1).sum(dim)


_SCORES: dict[str, Callable[[Tensor, Tensor | None, int], Tensor]] = {
    "abet": lambda logits, _, dim: abet_score(logits, dim),
    "energy": energy_score,
    "msp": lambda logits, _, dim: msp_score(logits, dim),
    "max_logit": lambda logits, _, dim: max_logit_score(logits, dim),
    "entropy": lambda logits, _, dim: entropy_score(logits, dim),
    "gen": lambda logits, _, dim: gen_score(logits, dim),
}
SCORE_NAMES = tuple(_SCORES)
# Scores that need features too, see :mod:`negvision.ood.feature_scores`. Heads compute them and
# hand them on in the place of the temperature.
FEATURE_SCORE_NAMES = ("knn", "mahalanobis", "relative_mahalanobis", "vim", "nnguide", "fdbd")


def check_score_name(name: str) -> str:
    """Return ``name`` if it is one of ``SCORE_NAMES``.

    Raises:
        ValueError: It is not; the message shows the nearest names.
    """
    if name not in _SCORES:
        raise ValueError(
            f"score must be one of {', '.join(SCORE_NAMES)}, got {name!r}"
            f"{did_you_mean(str(name), SCORE_NAMES)}"
        )
    return name


def computable(name: str, own: str) -> bool:
    """Whether the output of a model with the score ``own`` has all that ``name`` needs.

    A score of features takes the place of the temperature, without which there is no energy.
    """
    return name != "energy" or own not in FEATURE_SCORE_NAMES


def ood_score(
    name: str, logits: Tensor, temperature: Tensor | None = None, dim: int = -1
) -> Tensor:
    """The score ``name`` of logits that are already divided by the temperature.

    ``"abet"`` has no leading T; ``"energy"`` has the learned T, so on an AbeT network it undoes
    the ablation. Without a temperature both are the energy at T = 1.

    Args:
        name: One of ``SCORE_NAMES``: abet, energy, msp, max_logit, entropy, gen; or of
            ``FEATURE_SCORE_NAMES``.
        logits: Any shape with the classes along ``dim``.
        temperature: The shape of ``logits`` without ``dim``, or None; the score itself for one of
            ``FEATURE_SCORE_NAMES``.
        dim: The class dimension.

    Raises:
        ValueError: No such score.

    Example:
        >>> logits = torch.tensor([[4.0, 0.0], [2.0, 2.0]])
        >>> ood_score("msp", logits)
        tensor([-0.9820, -0.5000])
    """
    if name in FEATURE_SCORE_NAMES and temperature is not None:
        return wide(temperature)
    return _SCORES[check_score_name(name)](logits, temperature, dim)
