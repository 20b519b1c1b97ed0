"""OOD scores that need statistics of in-distribution features: KNN, Mahalanobis, ViM and others.

They are options ``score=`` of all heads, act in evaluation only and change no prediction.
:func:`negvision.ood.fit_statistics`, which ``negvision calibrate-ood`` calls, collects what they
need; checkpoints store it. As everywhere, a higher score is more out-of-distribution.

A box or a pixel has no label in evaluation, so that the class of a sample is here the predicted
one; the papers take the true one. Statistics come from at most ``samples`` features, spread evenly
over those that were seen, so that memory does not grow with the data.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from negvision.errors import OODDataError, did_you_mean
from negvision.ood.scores import FEATURE_SCORE_NAMES, SCORE_NAMES, check_score_name, wide
from negvision.ood.statistics import Statistics, exporting

# Pixels of a map whose scores are computed at once.
_ROWS_AT_ONCE = 8192
# Sigmoid from which a location is one of an object.
_FOREGROUND = 0.3


class FeatureScore(Statistics):
    """A score of features (N, D) and logits (N, C), or of maps.

    Subclasses implement :meth:`fit`, which computes their buffers, and :meth:`score`.

    Args:
        in_features: D.
        num_classes: C, without the background. Further columns of logits are the background, and
            only features of other classes are fitted.
        sigmoid: Whether the logits are those of sigmoids; only features whose largest sigmoid is
            at least 0.3 are fitted.
        samples: Features to compute the statistics from, at most.
    """

    needs_fit = True

    def __init__(
        self, in_features: int, num_classes: int, sigmoid: bool = False, samples: int = 5000
    ) -> None:
        super().__init__()
        if samples < 1:
            raise ValueError(f"samples must be at least 1, got {samples}")
        self.in_features, self.num_classes = in_features, num_classes
        self.sigmoid, self.samples = sigmoid, samples
        self._forget()

    def attach(self, weight: Tensor, bias: Tensor | None, cosine: bool) -> None:
        """Set the weights (C or more, D, ...) and biases of the logits, which some scores need."""
        # A tuple keeps them from being registered as parameters of this module too.
        self._layer = (weight, bias, cosine)

    def forward(self, features: Tensor, logits: Tensor) -> Tensor:
        """Scores (N,) of (N, D) and (N, C), or (N, H, W) of maps; ones while fitting.

        Raises:
            CheckpointError: Before the statistics were fitted.
        """
        rows, outputs = _rows(wide(features)), _rows(wide(logits))
        like = logits[:, 0]  # in the shape of the scores
        kept = self._of_objects(outputs) if self.fitting else slice(None)
        if self.collects(rows[kept], outputs[kept, : self.num_classes]):
            return torch.ones_like(like)
        outputs = outputs[:, : self.num_classes]
        if exporting():
            return self.score(rows, outputs).view_as(like)
        parts = zip(rows.split(_ROWS_AT_ONCE), outputs.split(_ROWS_AT_ONCE), strict=True)
        return torch.cat([self.score(*part) for part in parts]).view_as(like)

    def fit(self, features: Tensor, logits: Tensor) -> None:
        """Compute the buffers from features (n, D) and logits (n, C), float64."""
        raise NotImplementedError

    def score(self, features: Tensor, logits: Tensor) -> Tensor:
        """Scores (N,) of (N, D) and (N, C)."""
        raise NotImplementedError

    def observe(self, features: Tensor, logits: Tensor) -> None:
        start = -self._count % self._stride
        self._kept.append([part[start :: self._stride].cpu() for part in (features, logits)])
        self._count += len(features)
        while sum(len(part) for part, _ in self._kept) > 2 * self.samples:
            # Every other one of those that were kept: the stride doubles.
            joined = [torch.cat(parts)[::2] for parts in zip(*self._kept, strict=True)]
            self._kept, self._stride = [joined], 2 * self._stride

    def finish(self) -> None:
        self.fit(*self.sample())

    def sample(self) -> tuple[Tensor, Tensor]:
        """The features (n, D) and logits (n, C) that were seen, at most ``samples``, float64.

        They are forgotten.

        Raises:
            OODDataError: None was seen.
        """
        if not self._count:
            raise OODDataError(
                f"no feature reached {type(self).__name__}, so it has no statistics. Is the "
                "checkpoint trained, and are there in-distribution images?"
            )
        self.fitting = False
        features, logits = (
            _thinned(torch.cat(parts), self.samples) for parts in zip(*self._kept, strict=True)
        )
        self._forget()
        return features.double(), logits.double()

    def replaced(self, name: str, features: Tensor, logits: Tensor) -> FeatureScore | None:
        """The score ``name`` of the same layer, fitted on what :meth:`sample` returned.

        None for a score of logits alone.
        """
        other = build_feature_score(name, self.in_features, self.num_classes, self.sigmoid)
        if other is not None:
            other.attach(*self._layer)
            other.fit(features, logits)
            other.fitted.fill_(True)
            other.to(next(self.buffers()).device).eval()
        return other

    def _forget(self) -> None:
        self._kept: list[list[Tensor]] = []
        self._count, self._stride = 0, 1

    def _of_objects(self, logits: Tensor) -> Tensor:
        if self.sigmoid:
            return logits.amax(1) >= math.log(_FOREGROUND / (1 - _FOREGROUND))
        return logits.argmax(1) < self.num_classes

    def _store(self, name: str, value: Tensor) -> None:
        getattr(self, name).copy_(value)


def _thinned(rows: Tensor, most: int) -> Tensor:
    """At most ``most`` of the rows (n, ...), at equal distances."""
    if len(rows) <= most:
        return rows
    return rows[torch.linspace(0, len(rows) - 1, most).round().long()]


class _Bank(FeatureScore):
    """Compares features with those of a bank (samples, D), of which ``count`` are filled.

    It holds 2,500 at most, unless ``samples`` says more: with 5,000 it would cost a sixth of a
    small detector's forward pass (``benchmarks/abet_overhead.py --scores``).
    """

    bank: Tensor
    count: Tensor

    def __init__(self, *args, neighbors: int, samples: int = 2500, **kwargs) -> None:
        super().__init__(*args, samples=samples, **kwargs)
        if not 0 < neighbors <= self.samples:
            raise ValueError(f"neighbors must be from 1 to samples={self.samples}, got {neighbors}")
        self.neighbors = neighbors
        self.register_buffer("bank", torch.zeros(self.samples, self.in_features))
        self.register_buffer("count", torch.tensor(0))

    def _fill(self, rows: Tensor) -> None:
        if len(rows) < self.neighbors:
            raise OODDataError(
                f"{type(self).__name__} compares with {self.neighbors} neighbors, but only "
                f"{len(rows)} in-distribution features were seen. Use more images, or fewer "
                f"neighbors: score=dict(type=..., neighbors={len(rows)})"
            )
        rows = _thinned(rows, self.samples)
        self.bank.zero_()[: len(rows)] = rows.to(self.bank)
        self.count.fill_(len(rows))

    def _filled(self) -> Tensor:
        """The rows that are filled; in a graph, whose sizes are fixed, all."""
        return self.bank if exporting() else self.bank[: int(self.count)]

    def _largest(self, values: Tensor) -> Tensor:
        """The largest ``neighbors`` of values (N, B) of the rows of :meth:`_filled`, descending."""
        if exporting():
            empty = torch.arange(values.shape[1], device=values.device) >= self.count
            values = values.masked_fill(empty, -torch.inf)
        elif values.device.type == "cpu" and not values.requires_grad:
            # Several times as fast as topk.
            place = values.shape[1] - self.neighbors
            largest = np.partition(values.numpy(), place, axis=1)[:, place:]
            return torch.from_numpy(largest).sort(dim=1, descending=True).values
        return values.topk(self.neighbors, dim=1).values


class KNN(_Bank):
    """Squared distance of the normalized feature to the K-th nearest of the bank, in [0, 4].

    Source: Sun, Ming, Zhu, Li, "Out-of-Distribution Detection with Deep Nearest Neighbors", ICML
    2022; the square is OpenOOD's.

    Args:
        *args, **kwargs: Of :class:`FeatureScore`.
        neighbors: K.
    """

    def __init__(self, *args, neighbors: int = 50, **kwargs) -> None:
        super().__init__(*args, neighbors=neighbors, **kwargs)

    def fit(self, features: Tensor, logits: Tensor) -> None:
        self._fill(_normalized(features))

    def score(self, features: Tensor, logits: Tensor) -> Tensor:
        features = _normalized(features)
        bank = self._filled()
        lengths = features.square().sum(1, True) + bank.square().sum(1)
        # Minus the distances, so that the nearest are the largest.
        return -self._largest(2 * features @ bank.T - lengths)[:, -1]


class NNGuide(_Bank):
    """Minus the energy confidence times its mean over the nearest features of the bank.

    ``-logsumexp(z) * mean_K(cos(h, h_i) * logsumexp(z_i))``, the K largest.

    Source: Park, Jung, Teoh, "Nearest Neighbor Guidance for Out-of-Distribution Detection", ICCV
    2023.

    Args:
        *args, **kwargs: Of :class:`FeatureScore`.
        neighbors: K.
    """

    def __init__(self, *args, neighbors: int = 100, **kwargs) -> None:
        super().__init__(*args, neighbors=neighbors, **kwargs)

    def fit(self, features: Tensor, logits: Tensor) -> None:
        self._fill(_normalized(features) * logits.logsumexp(1, True))

    def score(self, features: Tensor, logits: Tensor) -> Tensor:
        guidance = self._largest(_normalized(features) @ self._filled().T).mean(1)
        return -guidance * logits.logsumexp(1)


class Mahalanobis(FeatureScore):
    """Squared Mahalanobis distance to the nearest class mean, with one covariance for all classes.

    Source: Lee et al., "A Simple Unified Framework for Detecting Out-of-Distribution Samples and
    Adversarial Attacks", NeurIPS 2018, on the last feature alone.
    """

    origin: Tensor
    whitening: Tensor
    means: Tensor

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        size, classes = self.in_features, self.num_classes
        self.register_buffer("origin", torch.zeros(size))
        self.register_buffer("whitening", torch.zeros(size, size))
        self.register_buffer("means", torch.zeros(classes, size))

    def fit(self, features: Tensor, logits: Tensor) -> None:
        labels, origin = logits.argmax(1), features.mean(0)
        means = features.new_zeros(self.num_classes, features.shape[1])
        present = labels.unique()
        for label in present:
            means[label] = features[labels == label].mean(0)
        whitening = _whitening(features - means[labels])
        # A class that was never predicted is no nearest one: it takes the place of another.
        absent = torch.ones(self.num_classes, dtype=torch.bool)
        absent[present] = False
        means[absent] = means[present[0]].clone()
        self._store("origin", origin)
        self._store("whitening", whitening)
        self._store("means", (means - origin) @ whitening)

    def score(self, features: Tensor, logits: Tensor) -> Tensor:
        white = (features - self.origin) @ self.whitening
        # One class at a time: exact differences without N x C x D numbers.
        distances = [(white - mean).square().sum(1) for mean in self.means]
        return torch.stack(distances, 1).amin(1)


class RelativeMahalanobis(Mahalanobis):
    """:class:`Mahalanobis` minus the squared distance to the mean of all classes.

    Source: Ren et al., "A Simple Fix to Mahalanobis Distance for Improving Near-OOD Detection",
    2021. arXiv:2106.09022
    """

    whitening_of_all: Tensor

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self.register_buffer("whitening_of_all", torch.zeros(self.in_features, self.in_features))

    def fit(self, features: Tensor, logits: Tensor) -> None:
        super().fit(features, logits)
        self._store("whitening_of_all", _whitening(features - features.mean(0)))

    def score(self, features: Tensor, logits: Tensor) -> Tensor:
        white = (features - self.origin) @ self.whitening_of_all
        return super().score(features, logits) - white.square().sum(1)


class ViM(FeatureScore):
    """Norm of the feature outside of the principal space, as one more logit, minus the energy.

    Source: Wang, Li, Feng, Zhang, "ViM: Out-Of-Distribution with Virtual-logit Matching", CVPR
    2022. The principal space has 1,000 dimensions for D of 2,048 or more, 512 for D of 768 or more,
    else D / 2. Cosine logits have no bias, so that the origin is 0.
    """

    origin: Tensor
    rest: Tensor
    alpha: Tensor

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        size = self.in_features
        self.principal = 1000 if size >= 2048 else 512 if size >= 768 else size // 2
        self.register_buffer("origin", torch.zeros(size))
        self.register_buffer("rest", torch.zeros(size, size - self.principal))
        self.register_buffer("alpha", torch.tensor(1.0))

    def fit(self, features: Tensor, logits: Tensor) -> None:
        weight, bias, _ = self._layer
        origin = torch.zeros_like(features[0])
        if bias is not None:
            rows = slice(self.num_classes)
            pseudo_inverse = torch.linalg.pinv(weight.detach().double().cpu()[rows].flatten(1))
            origin = -pseudo_inverse @ bias.detach().double().cpu()[rows]
        centered = features - origin
        rest = torch.linalg.eigh(centered.T @ centered / len(centered)).eigenvectors
        rest = rest[:, : self.in_features - self.principal]  # of the smallest eigenvalues
        norm = torch.linalg.vector_norm(centered @ rest, dim=1).mean()
        # Channels that are always 0 leave nothing outside of the principal space.
        least = 1e-6 * torch.linalg.vector_norm(centered, dim=1).mean()
        self._store("origin", origin)
        self._store("rest", rest)
        self._store("alpha", logits.amax(1).mean() / norm if norm > least else norm.new_zeros(()))

    def score(self, features: Tensor, logits: Tensor) -> Tensor:
        norms = torch.linalg.vector_norm((features - self.origin) @ self.rest, dim=1)
        return self.alpha * norms - logits.logsumexp(1)


class FDBD(FeatureScore):
    """Minus the sum of distances to the other classes' decision boundaries, over that to the mean.

    Source: Liu and Qin, "Fast Decision Boundary based Out-of-Distribution Detector", ICML 2024;
    the sum over the classes is OpenOOD's.
    """

    mean: Tensor
    between: Tensor

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self.register_buffer("mean", torch.zeros(self.in_features))
        self.register_buffer("between", torch.ones(self.num_classes, self.num_classes))

    def fit(self, features: Tensor, logits: Tensor) -> None:
        weight, _, cosine = self._layer
        weight = weight.detach().double().cpu()[: self.num_classes].flatten(1)
        weight = F.normalize(weight, dim=1) if cosine else weight
        between = torch.linalg.vector_norm(weight[:, None] - weight, dim=2)
        self._store("mean", features.mean(0))
        self._store("between", between.clamp(min=1e-12).fill_diagonal_(1))

    def score(self, features: Tensor, logits: Tensor) -> Tensor:
        best, label = logits.max(1)
        distances = (best[:, None] - logits) / self.between[label]
        to_mean = torch.linalg.vector_norm(features - self.mean, dim=1)
        return -distances.sum(1) / to_mean.clamp(min=torch.finfo(to_mean.dtype).tiny)


_KINDS: dict[str, type[FeatureScore]] = {
    "knn": KNN,
    "mahalanobis": Mahalanobis,
    "relative_mahalanobis": RelativeMahalanobis,
    "vim": ViM,
    "nnguide": NNGuide,
    "fdbd": FDBD,
}


def score_name(score: str | dict) -> str:
    """The name of a head's option ``score``, checked.

    Raises:
        ValueError: There is no such score, or one of logits has options.

    Example:
        >>> score_name("msp"), score_name(dict(type="knn", neighbors=5))
        ('msp', 'knn')
    """
    name = score.get("type") if isinstance(score, dict) else score
    if name in _KINDS:
        return str(name)
    if isinstance(score, dict) and name in SCORE_NAMES:
        raise ValueError(f"score {name!r} has no options; write score={name!r}")
    if name in SCORE_NAMES:
        return check_score_name(str(name))
    names = (*SCORE_NAMES, *FEATURE_SCORE_NAMES)
    raise ValueError(
        f"score must be one of {', '.join(names)}, got {name!r}{did_you_mean(str(name), names)}"
    )


def build_feature_score(
    score: str | dict | None, in_features: int, num_classes: int, sigmoid: bool = False
) -> FeatureScore | None:
    """The module of a head's option ``score``; None for one of logits alone.

    Args:
        score: One of :data:`negvision.ood.SCORE_NAMES` or ``FEATURE_SCORE_NAMES``, or
            ``dict(type=..., ...)`` with options of the module.
        in_features, num_classes, sigmoid: As in :class:`FeatureScore`.

    Raises:
        ValueError: An unknown score or option.
    """
    if score is None or score_name(score) not in _KINDS:
        return None
    options: dict[str, Any] = dict(score) if isinstance(score, dict) else {"type": score}
    kind = _KINDS[options.pop("type")]
    try:
        return kind(in_features, num_classes, sigmoid, **options)
    except TypeError as error:
        raise ValueError(f"score {score!r}: {error}") from None


def _rows(values: Tensor) -> Tensor:
    """(N, D) of (N, D) or (N, D, H, W)."""
    return values if values.dim() == 2 else values.permute(0, 2, 3, 1).reshape(-1, values.shape[1])


def _normalized(features: Tensor) -> Tensor:
    return features / (torch.linalg.vector_norm(features, dim=1, keepdim=True) + 1e-10)


def _whitening(centered: Tensor) -> Tensor:
    """V with ``V V^T`` the pseudo-inverse of the covariance of (n, D)."""
    values, vectors = torch.linalg.eigh(centered.T @ centered / len(centered))
    limit = values[-1].clamp(min=0) * torch.finfo(values.dtype).eps * len(values)
    scale = torch.where(values > limit, values, torch.inf).rsqrt()
    return vectors * scale
