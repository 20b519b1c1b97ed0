"""OOD detection: AbeT's heads, scores of one network output, and metrics with intervals.

Depends on torch alone. Everywhere, a higher score is more out-of-distribution, and OOD is the
positive class.
"""

from negvision.ood.abet import (
    AbeTLogits,
    AbeTOutput,
    CosineLogits,
    InnerLogits,
    LearnedTemperature,
)
from negvision.ood.curve import ScoreCurve, score_curve
from negvision.ood.metrics import OODValues, ood_metrics
from negvision.ood.scores import (
    SCORE_NAMES,
    abet_score,
    energy_score,
    entropy_score,
    max_logit_score,
    msp_score,
    ood_score,
)
from negvision.ood.shaping import ASH, DICE, ReAct, fit_shaping
from negvision.ood.stream import StreamingOODMetrics
from negvision.ood.threshold import OODThreshold, set_threshold, threshold_at_tpr

__all__ = [
    "ASH",
    "DICE",
    "SCORE_NAMES",
    "AbeTLogits",
    "AbeTOutput",
    "CosineLogits",
    "InnerLogits",
    "LearnedTemperature",
    "OODThreshold",
    "OODValues",
    "ReAct",
    "ScoreCurve",
    "StreamingOODMetrics",
    "abet_score",
    "energy_score",
    "entropy_score",
    "fit_shaping",
    "max_logit_score",
    "msp_score",
    "ood_metrics",
    "ood_score",
    "score_curve",
    "set_threshold",
    "threshold_at_tpr",
]
