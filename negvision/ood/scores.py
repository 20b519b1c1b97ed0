"""How far out of distribution: scores of one classifier output. Higher means more OOD, always.

Computed in float32 at least, also under autocast: a logit of 1 / T with T = 0.01 overflows the
exponential of float16, and bfloat16 keeps three digits.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from negvision.errors import did_you_mean
from negvision.ood.precision import wide


def abet_score(logits: Tensor, dim: int = -1) -> Tensor:
    """AbeT's score, ``-logsumexp(logits)`` over classes.

    The energy of a network with a learned temperature T is ``-T logsumexp(g / T)``; AbeT leaves
    out ("ablates") the T in front. With cosine logits ``g`` in [-1, 1] the score is at least
    ``-(1 / T + log C)``; OOD inputs gather near ``-log C``.

    Source: LeVine et al., arXiv 2401.12129, section 3.

    Args:
        logits: ``g / T``, any shape with the classes along ``dim``. For boxes those of the
            foreground classes alone.
        dim: Where the classes are.

    Returns:
        The shape without ``dim``; float32, or float64 of float64 logits. Higher is more OOD.

    Example:
        >>> abet_score(torch.zeros(2, 10))
        tensor([-2.3026, -2.3026])
    """
    return -wide(logits).logsumexp(dim)


def energy_score(logits: Tensor, temperature: Tensor | None = None, dim: int = -1) -> Tensor:
    """Free energy, ``-T logsumexp(logits)`` with logits that are divided by T already.

    Source: Liu et al., "Energy-based Out-of-distribution Detection", NeurIPS 2020, eq. 4.

    Args:
        logits: As of :func:`abet_score`.
        temperature: The shape of ``logits`` without ``dim``; None stands for 1.
        dim: Where the classes are.
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
    # A class of probability 0 adds nothing, though its logarithm may be infinite.
    return -torch.where(p > 0, p * log_p, 0.0).sum(dim)


_SCORES: dict[str, Callable[[Tensor, Tensor | None, int], Tensor]] = {
    "abet": lambda logits, _, dim: abet_score(logits, dim),
    "energy": energy_score,
    "msp": lambda logits, _, dim: msp_score(logits, dim),
    "max_logit": lambda logits, _, dim: max_logit_score(logits, dim),
    "entropy": lambda logits, _, dim: entropy_score(logits, dim),
}
SCORE_NAMES = tuple(_SCORES)


def check_score_name(name: str) -> str:
    """``name``, where it is one of ``SCORE_NAMES``.

    Raises:
        ValueError: It is not; the nearest names are shown.
    """
    if name not in _SCORES:
        raise ValueError(
            f"score must be one of {', '.join(SCORE_NAMES)}, got {name!r}"
            f"{did_you_mean(str(name), SCORE_NAMES)}"
        )
    return name


def ood_score(name: str, logits: Tensor, temperature: Tensor | None = None, dim: int = -1):
    """The score ``name`` of logits that are divided by the temperature already.

    ``"abet"`` has no T in front; ``"energy"`` has the T that the network learned, so on an AbeT
    network it is the method with its ablation undone. On a network without a temperature both are
    the energy at T = 1.

    Args:
        name: One of ``SCORE_NAMES``: abet, energy, msp, max_logit, entropy.
        logits: Any shape with the classes along ``dim``.
        temperature: The shape of ``logits`` without ``dim``, or None.
        dim: Where the classes are.

    Returns:
        Higher is more OOD.

    Raises:
        ValueError: No such score.

    Example:
        >>> logits = torch.tensor([[4.0, 0.0], [2.0, 2.0]])
        >>> ood_score("msp", logits)
        tensor([-0.9820, -0.5000])
    """
    return _SCORES[check_score_name(name)](logits, temperature, dim)
