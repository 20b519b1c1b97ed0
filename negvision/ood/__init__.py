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
    LinearLogits,
)
from negvision.ood.curve import ScoreCurve, score_curve
from negvision.ood.feature_scores import (
    FDBD,
    KNN,
    FeatureScore,
    Mahalanobis,
    NNGuide,
    RelativeMahalanobis,
    ViM,
)
from negvision.ood.metrics import OODValues, ood_metrics
from negvision.ood.scores import (
    FEATURE_SCORE_NAMES,
    SCORE_NAMES,
    abet_score,
    energy_score,
    entropy_score,
    gen_score,
    max_logit_score,
    msp_score,
    ood_score,
)
from negvision.ood.shaping import ASH, DICE, SCALE, ReAct
from negvision.ood.statistics import fit_statistics
from negvision.ood.stream import StreamingOODMetrics
from negvision.ood.threshold import OODThreshold, set_threshold, threshold_at_tpr

__all__ = [
    "ASH",
    "DICE",
    "FDBD",
    "FEATURE_SCORE_NAMES",
    "KNN",
    "SCALE",
    "SCORE_NAMES",
    "AbeTLogits",
    "AbeTOutput",
    "CosineLogits",
    "FeatureScore",
    "InnerLogits",
    "LearnedTemperature",
    "LinearLogits",
    "Mahalanobis",
    "NNGuide",
    "OODThreshold",
    "OODValues",
    "ReAct",
    "RelativeMahalanobis",
    "ScoreCurve",
    "StreamingOODMetrics",
    "ViM",
    "abet_score",
    "energy_score",
    "entropy_score",
    "fit_statistics",
    "gen_score",
    "max_logit_score",
    "msp_score",
    "ood_metrics",
    "ood_score",
    "score_curve",
    "set_threshold",
    "threshold_at_tpr",
]
