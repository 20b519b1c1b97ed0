"""Figures of groups of images or sizes, and how far they are apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from negvision.bootstrap import bootstrap, interval
from negvision.detection.metrics.coco_evaluation import CocoDetections, number_images
from negvision.detection.metrics.coco_statistics import CocoStatistics
from negvision.detection.metrics.error_kinds import ErrorKinds, error_kinds
from negvision.errors import ConfigError, text_table
from negvision.ood.curve import ScoreCurve
from negvision.ood.records import REFERENCE_PREVALENCE

FIGURES = ("AP", "AUROC", "AUPRC", f"AUPRC at {REFERENCE_PREVALENCE:g}")
SIZE = "size"
_SIZES = ("small", "medium", "large")
# More are no groups, but names of images.
_MOST = 20


@dataclass(frozen=True)
class Groups:
    """Which images, or sizes of objects, are told apart.

    Attributes:
        key: ``size``, or a key of the images of the annotation file.
        names: Of the G groups.
        members: (G, I), 1 for the images of each; all images for sizes.
        objects: (G,), the number of objects.
    """

    key: str
    names: Sequence[str]
    members: np.ndarray
    objects: np.ndarray

    @classmethod
    def of(
        cls,
        ground_truth: Mapping[str, Any],
        category_ids: Sequence[int],
        key: str,
        ann_file: str,
        area_limits: tuple[float, float] = (32.0**2, 96.0**2),
    ) -> Groups:
        """The groups of an annotation file.

        Args:
            ground_truth: COCO annotations.
            category_ids: Whose objects are counted.
            key: ``size`` for small, medium and large objects, else a key of the images.
            ann_file: Named in errors.
            area_limits: Of the sizes.

        Raises:
            ConfigError: An image has no such key, or there are one or many groups.
        """
        numbers = number_images(ground_truth["images"])
        ids = set(category_ids)
        objects = [
            one
            for one in ground_truth["annotations"]
            if one["category_id"] in ids and not one["iscrowd"]
        ]
        if key == SIZE:
            # Both ends belong to a size, as in COCO's evaluation.
            limits = np.array([0, *area_limits, np.inf])
            areas = np.array([one["area"] for one in objects], dtype=np.float64)[:, None]
            counts = ((areas >= limits[:-1]) & (areas <= limits[1:])).sum(0)
            return cls(key, _SIZES, np.ones((3, len(numbers))), counts)
        values = image_values(ground_truth["images"], key, ann_file)
        names, group = np.unique(values, return_inverse=True)
        if not 1 < len(names) <= _MOST:
            raise ConfigError(
                f"{ann_file}: {key!r} has {len(names):,} values, and groups need 2 to {_MOST}"
            )
        counts = np.bincount(
            [group[numbers[one["image_id"]]] for one in objects], minlength=len(names)
        )
        return cls(key, names.tolist(), np.eye(len(names))[group].T, counts)


class GroupFigures:
    """AP, AUROC and AUPRC of each group, for any weighting of the images.

    AP is COCO's, on the images of the group or for its sizes. The other figures take detections as
    samples and those on an object of their class (IoU 0.5) as positive. AUROC is the probability
    that a right detection scores higher than a wrong one: every mistake counts the same. AUPRC, the
    average precision of the ranking, weighs mistakes at high scores more, and rises with the share
    of right detections; at a prevalence of 0.1 that share is taken to be the same in all groups.

    Args:
        groups: Of the annotation file.
        statistics: Of the detections.
        ground_truth, detections, category_ids, options: As of ``statistics``.

    Source: McDermott, Zhang, Hansen, Angelotti and Gallifant, "A Closer Look at AUROC and AUPRC
    under Class Imbalance", NeurIPS 2024.
    """

    def __init__(
        self,
        groups: Groups,
        statistics: CocoStatistics,
        ground_truth: Mapping[str, Any],
        detections: CocoDetections,
        category_ids: Sequence[int],
        **options: Any,
    ) -> None:
        self.groups, self._statistics = groups, statistics
        inputs = (ground_truth, detections, category_ids)
        if groups.key == SIZE:
            found = [error_kinds(*inputs, **options, area=size) for size in _SIZES]
        else:
            found = [error_kinds(*inputs, **options)] * len(groups.names)
        self._rankings = [
            _Ranking.of(errors, members)
            for errors, members in zip(found, groups.members, strict=True)
        ]

    def figures(self, weights: np.ndarray) -> np.ndarray:
        """Of weights (R, I): (R, 4 + 4 G), the gaps, then the figures of each group.

        A gap is the difference of the highest and the lowest group. NaN where undefined.
        """
        weights = np.asarray(weights, dtype=np.float64)
        if self.groups.key == SIZE:
            names = self._statistics.names
            places = [names.index(f"mAP_{size[0]}") for size in _SIZES]
            precisions = self._statistics.figures(weights)[:, places]
        else:
            precisions = np.column_stack(
                [self._statistics.figures(weights * one)[:, 0] for one in self.groups.members]
            )
        curves = np.array([[one.figures(row) for one in self._rankings] for row in weights])
        values = np.concatenate([precisions[:, :, None], curves], axis=2)
        known = np.where(np.isnan(values), -np.inf, values).max(1)
        gaps = known + np.where(np.isnan(values), -np.inf, -values).max(1)
        gaps = np.where(np.isfinite(gaps), gaps, np.nan)
        return np.concatenate([gaps, values.reshape(len(values), -1)], axis=1)

    def measured(self, units: np.ndarray, resamples: int = 0) -> tuple[dict[str, float], str]:
        """The figures by name (``gap/AP``, ``group/NAME/AP``), and a table for the log.

        Args:
            units: (I,), what a bootstrap draws, as in :func:`negvision.bootstrap.bootstrap`.
            resamples: For 95 % intervals, ``gap/AP_low`` and so on; 0 for none.
        """
        values = self.figures(np.ones((1, len(units))))[0]
        owners = ["gap", *(f"group/{name}" for name in self.groups.names)]
        names = [f"{owner}/{figure}" for owner in owners for figure in FIGURES]
        shown = ["-" if np.isnan(value) else f"{value:.3f}" for value in values]
        found = dict(zip(names, values.tolist(), strict=True))
        if resamples and len(np.unique(units)) > 1:
            limits = interval(values, bootstrap(self.figures, units, resamples)).T.tolist()
            for place, (name, (low, high)) in enumerate(zip(names, limits, strict=True)):
                found |= {f"{name}_low": low, f"{name}_high": high}
                if not np.isnan(low):
                    shown[place] += f" ({low:.3f} to {high:.3f})"
        counts = ["", *(f"{count:,}" for count in self.groups.objects.tolist())]
        step = len(FIGURES)
        rows = [
            [name.removeprefix("group/"), count, *shown[step * place : step * (place + 1)]]
            for place, (name, count) in enumerate(zip(owners, counts, strict=True))
        ]
        return found, text_table([self.groups.key, "objects", *FIGURES], [*rows[1:], rows[0]])


@dataclass(frozen=True)
class _Ranking:
    """Detections by falling score, and where runs of equal scores end."""

    thresholds: torch.Tensor
    hits: np.ndarray
    images: np.ndarray
    ends: np.ndarray

    @classmethod
    def of(cls, errors: ErrorKinds, members: np.ndarray) -> _Ranking:
        rows = np.flatnonzero(members[errors.images] > 0)
        rows = rows[np.argsort(-errors.scores[rows], kind="stable")]
        scores = errors.scores[rows]
        ends = np.flatnonzero(np.append(np.diff(scores) != 0, len(scores) > 0))
        hits = errors.hits[rows].astype(np.float64)
        return cls(torch.from_numpy(scores[ends]), hits, errors.images[rows], ends)

    def figures(self, weight: np.ndarray) -> list[float]:
        """AUROC, AUPRC and AUPRC at the reference prevalence, of weights (I,)."""
        own = weight[self.images]
        right = np.cumsum(own * self.hits)[self.ends]
        wrong = np.cumsum(own * (1 - self.hits))[self.ends]
        if not len(right) or not right[-1] or not wrong[-1]:
            return [float("nan")] * 3
        # Scores that no drawn image has divide 0 by 0.
        drawn = right + wrong > 0
        curve = ScoreCurve(
            self.thresholds[torch.from_numpy(drawn)],
            torch.from_numpy(right[drawn]),
            torch.from_numpy(wrong[drawn]),
        )
        return [curve.auroc(), curve.ap_out(), curve.ap_at(REFERENCE_PREVALENCE)]


def image_values(images: Sequence[Mapping[str, Any]], key: str, ann_file: str) -> list[str]:
    """The text of ``key`` of each image, in the order of the sorted image ids.

    Raises:
        ConfigError: An image has none.
    """
    values = {image["id"]: image.get(key) for image in images}
    lacking = [image_id for image_id, value in values.items() if value is None]
    if lacking:
        known = sorted({key for image in images for key in image} - {"id"})
        raise ConfigError(
            f"{ann_file}: {len(lacking):,} of {len(images):,} images have no {key!r} (the first: "
            f"id {lacking[0]!r}); images have {', '.join(known)}"
        )
    return [str(values[image_id]) for image_id in number_images(images)]


def trade(
    names: Sequence[str], objects: np.ndarray, difference: np.ndarray, p_values: np.ndarray
) -> str:
    """A sentence, if a rare group loses where the most frequent one gains; else "".

    Args:
        names, objects: Of the groups or classes.
        difference: (G,), of their AP.
        p_values: (G,), corrected; differences with 0.05 and more are noise.

    Example:
        >>> difference, p_values = np.array([0.02, -0.05]), np.array([0.3, 0.01])
        >>> trade(["day", "night"], np.array([900, 40]), difference, p_values)
        'day (900 objects) +0.020 gains, and what is rarer loses: night (40 objects) -0.050.'
    """
    most = int(np.argmax(objects))
    rarer = objects < objects[most]
    losing = np.flatnonzero((difference < 0) & (p_values < 0.05) & rarer)
    if not len(losing) or not difference[most] > 0:
        return ""
    lost = ", ".join(
        f"{names[one]} ({objects[one]:,} objects) {difference[one]:+.3f}" for one in losing
    )
    return (
        f"{names[most]} ({objects[most]:,} objects) {difference[most]:+.3f} gains, and what is "
        f"rarer loses: {lost}."
    )
