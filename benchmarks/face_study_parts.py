"""Variants of UNPG that ``face_study.py`` compares and that are no part of negvision."""

import math

import torch
from mmengine.hooks import Hook
from torch import Tensor, nn
from torch.distributions import Beta
from torch.nn.functional import normalize

from negvision import UNPGLoss
from negvision.registry import HOOKS, MODELS


@HOOKS.register_module()
class LatePairsHook(Hook):
    """Turns the metric pairs of :class:`negvision.UNPGLoss` on after a share of the epochs."""

    def __init__(self, begin: float = 0.5) -> None:
        self.begin = begin

    def before_train_epoch(self, runner) -> None:
        runner.model.head.metric_pairs = runner.epoch >= self.begin * runner.max_epochs


def log_sum(similarities: Tensor, scale: float | Tensor, whisker: float | None) -> Tensor:
    """Log-sum-exp of ``scale`` times those similarities (K,) that the whiskers keep."""
    if not len(similarities):
        return similarities.new_full((), -math.inf)
    if whisker is not None:
        ordered, count = similarities.detach().sort().values, len(similarities)
        low, high = ordered[count // 4], ordered[3 * count // 4]
        reach = whisker * (high - low)
        similarities = similarities[(similarities >= low - reach) & (similarities <= high + reach)]
    return (scale * similarities).logsumexp(0)


@MODELS.register_module()
class TransformedPairsLoss(UNPGLoss):
    """UNPG whose positives are extrapolated and whose negatives are interpolated.

    A sample q is replaced by ``l q + (1 - l) k``, k its class center, l drawn from 1 + Beta(2, 2);
    of a metric pair, the second sample by a point between two samples of other people.

    Source: Zhu et al., "Improving Contrastive Learning by Visualizing Feature Transformation", ICCV
    2021.
    """

    def _target_cosines(self, *args, **kwargs) -> Tensor:
        cosine = super()._target_cosines(*args, **kwargs)
        far = 1 + Beta(2.0, 2.0).sample(cosine.shape)
        length = (far**2 + (1 - far) ** 2 + 2 * far * (1 - far) * cosine).clamp(min=1e-6).sqrt()
        return (far * cosine + 1 - far) / length

    def _pair_logsumexp(self, units: Tensor, labels: Tensor, rank: int, world_size: int) -> Tensor:
        share, other = Beta(2.0, 2.0).sample((len(units), 1)), torch.randperm(len(units))
        mixed = normalize(share * units + (1 - share) * units[other], dim=1)
        negative = (labels[:, None] != labels) & (labels[:, None] != labels[other])
        # Each pair comes in both orders, as it does not in the plain loss.
        pairs = (units @ mixed.T)[negative]
        return log_sum(pairs, self.scale, self.whisker) - math.log(2)


@MODELS.register_module()
class LearnedPairScaleLoss(UNPGLoss):
    """UNPG with a learned scale of the metric pairs; a penalty keeps it near that of the classes.

    Source: the idea of a learned, regularized temperature of Wang et al., "Adaptive Multi-head
    Contrastive Learning", ECCV 2024.
    """

    def __init__(self, *args, strength: float = 5.0, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self.strength = strength
        self.log_scale = nn.Parameter(torch.tensor(math.log(self.scale)))

    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        penalty = self.strength * (self.log_scale - math.log(self.scale)).square()
        return super().forward(embeddings, labels) + penalty

    def _pair_logsumexp(self, units: Tensor, labels: Tensor, rank: int, world_size: int) -> Tensor:
        negative = (labels[:, None] != labels).triu(1)
        pairs = (units @ units.T)[negative]
        return log_sum(pairs, self.log_scale.exp(), self.whisker)
