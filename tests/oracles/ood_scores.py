"""The OOD scores by the formulas of their papers, for one sample."""

import math
from collections.abc import Sequence


def score_of(name: str, logits: Sequence[float], temperature: float = 1.0) -> float:
    """The score ``name`` of logits that are divided by the temperature."""
    exps = [math.exp(z) for z in logits]
    total = sum(exps)
    return {
        "abet": -math.log(total),
        "energy": -temperature * math.log(total),
        "msp": -max(exps) / total,
        "max_logit": -max(logits),
        "gen": sum(p**0.1 * (1 - p) ** 0.1 for p in sorted(e / total for e in exps)[-100:]),
        "entropy": -sum(e / total * math.log(e / total) for e in exps),
    }[name]
