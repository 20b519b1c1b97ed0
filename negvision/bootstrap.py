"""Intervals and comparisons by resampling images, people or scenes with replacement."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch

RESAMPLES = 1000
# Resamples whose figures are computed at once, by one thread.
_CHUNK = 25
# At most: each holds copies of all detections.
_THREADS = 8


def draw_counts(units: int, resamples: int, seed: int = 0) -> Iterator[torch.Tensor]:
    """How often each of ``units`` is drawn, in draws of as many with replacement.

    Yields:
        ``resamples`` times (units,), int64.

    Example:
        >>> [int(counts.sum()) for counts in draw_counts(5, resamples=2)]
        [5, 5]
    """
    generator = torch.Generator().manual_seed(seed)
    for _ in range(resamples):
        draws = torch.randint(units, (units,), generator=generator)
        yield torch.bincount(draws, minlength=units)


def bootstrap(
    figures: Callable[[np.ndarray], np.ndarray],
    units: np.ndarray,
    resamples: int = RESAMPLES,
    seed: int = 0,
    strata: np.ndarray | None = None,
) -> np.ndarray:
    """Figures of resampled test sets.

    Args:
        figures: Weights (R, I), how often each image counts, to F figures of each resample (R, F),
            NaN where undefined. Called by several threads.
        units: (I,) integers: what is drawn, and which images it holds: ``np.arange(I)`` for
            images, the scene or the person of each image for those.
        resamples: Number of draws, R.
        seed: Of the draws. The same seed and units draw the same images, so that the figures of
            two models can be subtracted.
        strata: (I,) integers: draws keep the number of units in each; all images of a unit must
            be in the same one.

    Returns:
        (R, F) float64.
    """
    _, unit = np.unique(units, return_inverse=True)
    of_unit = np.zeros(unit.max(initial=-1) + 1, dtype=np.int64)
    if strata is not None:
        of_unit[unit] = np.unique(strata, return_inverse=True)[1]
        if (of_unit[unit] != np.unique(strata, return_inverse=True)[1]).any():
            raise ValueError("images of one unit are in several strata")
    counts = np.zeros((resamples, len(of_unit)), dtype=np.int32)
    for stratum in range(of_unit.max(initial=-1) + 1):
        members = np.flatnonzero(of_unit == stratum)
        for row, drawn in enumerate(draw_counts(len(members), resamples, seed + stratum)):
            counts[row, members] = drawn
    chunks = [counts[start : start + _CHUNK] for start in range(0, resamples, _CHUNK)]
    with ThreadPoolExecutor(min(torch.get_num_threads(), _THREADS)) as pool:
        parts = pool.map(lambda chunk: figures(chunk[:, unit]), chunks)
        return np.concatenate(list(parts))


def interval(
    values: np.ndarray,
    draws: np.ndarray,
    confidence: float = 0.95,
    highest: float | np.ndarray = 1.0,
) -> np.ndarray:
    """Limits (2, F) of figures in [0, ``highest``], from their resamples.

    The bias of a figure on few images, which the resamples show a second time, is taken off: the
    middle is 2 value - mean of the draws. The reach is the standard deviation of the draws times
    the normal quantile. Of the usual intervals from resamples this one had the best coverage for
    AP (``benchmarks/intervals.py``).

    Args:
        values: (F,), of the whole set.
        draws: (R, F), of its resamples. NaN draws are left out.
        confidence: In (0, 1).
        highest: The largest possible value, of all or each (F,).

    Source: Efron and Tibshirani, "An Introduction to the Bootstrap", 1993, chapters 10 and 13.

    Example:
        >>> draws = 0.5 + np.array([[-0.1], [0.1], [-0.1], [0.1]]) * 0.75**0.5
        >>> interval(np.array([0.5]), draws).round(3).ravel().tolist()
        [0.304, 0.696]
    """
    from scipy import stats  # loads slowly

    count = (~np.isnan(draws)).sum(0)
    mean = np.where(np.isnan(draws), 0, draws).sum(0) / np.maximum(count, 1)
    reach = stats.norm.ppf((1 + confidence) / 2) * np.sqrt(_variance(draws))
    return np.clip(2 * values - mean + np.stack([-reach, reach]), 0, highest)


@dataclass(frozen=True)
class Side:
    """One side of a comparison: S trainings of a recipe, measured on the same images.

    Attributes:
        values: (S, F), the figures of each training.
        draws: (R, F), the figures of the resamples, means over the trainings.
    """

    values: np.ndarray
    draws: np.ndarray

    @classmethod
    def of(cls, trainings: Sequence[tuple[np.ndarray, np.ndarray]]) -> Side:
        """From the figures (F,) and the resampled figures (R, F) of each training."""
        values, draws = zip(*trainings, strict=True)
        return cls(np.stack(values), np.mean(draws, axis=0))


@dataclass(frozen=True)
class Difference:
    """Second minus first, of F figures; NaN where a figure is undefined.

    Attributes:
        first, second: Means over the trainings of each side.
        difference: Second minus first.
        low, high: The 95 % interval of the difference.
        probability: That the second is higher.
        p_value: Two-sided, that a difference this large is chance.
        units_needed: About how many images a difference of this size takes to be seen in 80 of 100
            test sets at 5 %; infinite if more trainings are needed instead.
    """

    first: np.ndarray
    second: np.ndarray
    difference: np.ndarray
    low: np.ndarray
    high: np.ndarray
    probability: np.ndarray
    p_value: np.ndarray
    units_needed: np.ndarray


def paired_difference(first: Side, second: Side, units: int) -> Difference:
    """Compare two sides whose resamples are the same images.

    The variance of the difference is that of the paired resamples, plus for a side with S > 1
    trainings the variance between them divided by S. With one training nothing is known about
    others, and the comparison is one of two models, not of two recipes. Interval and probabilities
    are those of Student's t with the degrees of freedom of Welch and Satterthwaite.

    Args:
        first, second: Of the same figures, with draws of the same images.
        units: Number of images, or of whatever was resampled.

    Raises:
        ValueError: There are fewer than two units.

    Sources: Efron and Tibshirani, "An Introduction to the Bootstrap", 1993; Welch, "The
    generalization of Student's problem when several different population variances are involved",
    Biometrika 34, 1947; Bouthillier et al., "Accounting for Variance in Machine Learning
    Benchmarks", MLSys 2021, for the two kinds of variance.

    Example:
        >>> noise = np.random.default_rng(0).normal(0, 0.1, (1000, 1))
        >>> a, b = (Side(np.array([[v]]), v + noise) for v in (0.4, 0.5))
        >>> found = paired_difference(a, b, units=100)
        >>> round(float(found.difference[0]), 3), float(found.probability[0])
        (0.1, 1.0)
    """
    from scipy import stats  # loads slowly

    if units < 2:
        raise ValueError(f"a comparison needs at least 2 units to resample, got {units}")
    means = [side.values.mean(0) for side in (first, second)]
    difference = means[1] - means[0]
    of_images = _variance(second.draws - first.draws)
    between = [
        side.values.var(0, ddof=1) / len(side.values) if len(side.values) > 1 else 0 * difference
        for side in (first, second)
    ]
    # The resamples of identical models differ by rounding alone.
    of_images = np.where(of_images < 1e-24, 0, of_images)
    variance = of_images + between[0] + between[1]
    freedom = [max(len(side.values) - 1, 1) for side in (first, second)]
    with np.errstate(divide="ignore", invalid="ignore"):
        degrees = variance**2 / (
            of_images**2 / (units - 1) + between[0] ** 2 / freedom[0] + between[1] ** 2 / freedom[1]
        )
        degrees = np.where(variance > 0, degrees, 1)
        ratio = np.where(variance > 0, difference / np.sqrt(variance), np.sign(difference) * np.inf)
        ratio = np.where(difference == 0, 0, ratio)
        # 80 % power at 5 %: (1.96 + 0.84)².
        left = difference**2 / 7.85 - between[0] - between[1]
        needed = np.where(left > 0, of_images * units / left, np.inf)
    reach = stats.t.ppf(0.975, degrees) * np.sqrt(variance)
    undefined = np.isnan(difference)
    return Difference(
        *means,
        difference,
        difference - reach,
        difference + reach,
        np.where(undefined, np.nan, stats.t.cdf(ratio, degrees)),
        np.where(undefined, np.nan, 2 * stats.t.sf(np.abs(ratio), degrees)),
        np.where(undefined, np.nan, needed),
    )


def holm(p_values: np.ndarray) -> np.ndarray:
    """p-values (K,) corrected for being the smallest of several; NaN stay NaN and do not count.

    Source: Holm, "A simple sequentially rejective multiple test procedure", Scandinavian Journal
    of Statistics 6, 1979.

    Example:
        >>> holm(np.array([0.01, 0.04, np.nan, 0.03])).tolist()
        [0.03, 0.06, nan, 0.06]
    """
    corrected = np.full(len(p_values), np.nan)
    known = np.flatnonzero(~np.isnan(p_values))
    order = known[np.argsort(p_values[known], kind="stable")]
    scaled = p_values[order] * np.arange(len(order), 0, -1)
    corrected[order] = np.minimum(np.maximum.accumulate(scaled), 1)
    return corrected


def share(part: np.ndarray, total: np.ndarray) -> np.ndarray:
    """Part by total, NaN where the total is 0."""
    return np.where(total > 0, part / np.where(total > 0, total, 1), np.nan)


def mean_known(values: np.ndarray, axes: int | tuple[int, ...]) -> np.ndarray:
    """Mean over axes without NaN, NaN where there is nothing else."""
    known = ~np.isnan(values)
    return share(np.where(known, values, 0).sum(axes), known.sum(axes))


def _variance(draws: np.ndarray) -> np.ndarray:
    """Variance of each column without NaN; NaN with fewer than two values."""
    variance = np.full(draws.shape[1], np.nan)
    defined = (~np.isnan(draws)).sum(0) > 1
    variance[defined] = np.nanvar(draws[:, defined], axis=0, ddof=1)
    return variance
