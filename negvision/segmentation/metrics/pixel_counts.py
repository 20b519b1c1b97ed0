"""Pixels of an evaluation: all of them in bins, and a sample of each image."""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from negvision.ood import StreamingOODMetrics
from negvision.segmentation.metrics.components import PackedMap

# OOD pixels, and as many ID pixels, to keep of an image; fewer with many images.
PIXELS_PER_IMAGE = 1000
# Pixels to keep of all images; the time of the bootstrap grows with them.
PIXELS_IN_ALL = 40_000
NUM_HEAT_MAPS = 12


@dataclass(frozen=True)
class ImagePixels:
    """The pixels of one image that are not void, N of them."""

    path: str
    scores: Mapping[str, np.ndarray]  # name to (N,) float32; the model's own first
    is_ood: np.ndarray  # (N,) bool
    labels: np.ndarray  # (N,) predicted classes
    auroc: float | None  # of the own score; None without OOD or ID pixels
    heat: np.ndarray  # (h, w) float32, reduced map of the own score
    confusion: np.ndarray | None  # (K, K) int64, rows are true classes; None without labels
    packed: PackedMap | None  # full map of the own score; None without components


@dataclass
class ImageSample:
    """A sample of one image: evenly spaced OOD and ID pixels."""

    scores: dict[str, np.ndarray]  # as in ImagePixels, of the kept pixels
    is_ood: np.ndarray
    labels: np.ndarray
    num_ood: int  # of all pixels
    num_id: int  # of all pixels
    auroc: float | None  # of all pixels

    @classmethod
    def of(cls, image: ImagePixels, quota: int) -> ImageSample:
        """Keep ``quota`` pixels of each kind."""
        num_ood = int(image.is_ood.sum())
        sample = cls(
            dict(image.scores),
            image.is_ood,
            image.labels,
            num_ood,
            len(image.is_ood) - num_ood,
            image.auroc,
        )
        sample.thin(quota)
        return sample

    def thin(self, quota: int) -> None:
        """Keep no more than ``quota`` pixels of each kind."""
        kept = np.concatenate(
            [_spread(np.flatnonzero(self.is_ood == kind), quota) for kind in (True, False)]
        )
        self.scores = {name: values[kept] for name, values in self.scores.items()}
        self.is_ood, self.labels = self.is_ood[kept], self.labels[kept]

    def weights(self) -> np.ndarray:
        """(n,) float64: number of pixels of the image that each kept one represents."""
        kept_ood = int(self.is_ood.sum())
        kept_id = len(self.is_ood) - kept_ood
        return np.where(self.is_ood, self.num_ood / max(kept_ood, 1), self.num_id / max(kept_id, 1))


def _spread(places: np.ndarray, count: int) -> np.ndarray:
    """``count`` of ``places``, at the centers of equal parts; all if there are fewer."""
    if len(places) <= count:
        return places
    return places[(2 * np.arange(count) + 1) * len(places) // (2 * count)]


@dataclass
class PixelCounts:
    """The pixels of one process.

    Memory for any number of images: 64 MiB per score for the bins of
    :class:`negvision.ood.StreamingOODMetrics`, at most ``PIXELS_IN_ALL`` sampled pixels, and one
    image; in addition :class:`PackedMap`, and with ``exact`` five bytes per pixel and score.

    Samplers fill the last batch with images that another process has counted. These come last in
    their process, so the last image of each process is counted only when all are combined.

    """

    exact: bool = False
    images: dict[str, ImageSample] = field(default_factory=dict)  # by path
    streams: dict[str, StreamingOODMetrics] = field(default_factory=dict)  # by score
    confusion: np.ndarray | None = None  # summed over images; None without labels
    packed: dict[str, PackedMap] = field(default_factory=dict)  # by path, for components
    # The NUM_HEAT_MAPS images with the lowest AUROC: (-AUROC, path, map).
    heat: list[tuple[float, str, np.ndarray]] = field(default_factory=list)
    _quota: int = PIXELS_PER_IMAGE
    _last: ImagePixels | None = None

    def add(self, image: ImagePixels) -> None:
        """Count an image unless it was counted before."""
        if image.path in self.images:
            return
        if self._last is not None:
            self._count(self._last)
        self._last = image
        self._keep(image.path, ImageSample.of(image, self._quota))
        if image.packed is not None:
            self.packed[image.path] = image.packed
        if image.auroc is not None:
            self._keep_heat((-image.auroc, image.path, image.heat))

    @classmethod
    def combined(cls, parts: Sequence[PixelCounts]) -> tuple[PixelCounts, int]:
        """The counts of all processes, and the number of images counted twice.

        Images that two processes counted before their last one cannot be removed; MMEngine's
        samplers for evaluation do not cause this.
        """
        total = cls(parts[0].exact) if parts else cls()
        times: dict[str, int] = {}
        for part in parts:
            for path in part.images:
                if part._last is None or path != part._last.path:
                    times[path] = times.get(path, 0) + 1
        for part in parts:
            total._absorb(part)
        for part in parts:
            last = part._last
            if last is not None and last.path not in times:
                times[last.path] = 1
                total._count(last)
        return total, sum(count > 1 for count in times.values())

    def _absorb(self, other: PixelCounts) -> None:
        for name, stream in other.streams.items():
            self._stream(name).merge(stream)
        if other.confusion is not None:
            self.confusion = other.confusion + (0 if self.confusion is None else self.confusion)
        self._quota = min(self._quota, other._quota)
        for path, sample in other.images.items():
            if path not in self.images:
                self._keep(path, sample)
        self.packed = {**other.packed, **self.packed}
        for entry in other.heat:
            self._keep_heat(entry)

    def _keep(self, path: str, sample: ImageSample) -> None:
        sample.thin(self._quota)
        self.images[path] = sample
        # Later images must not be sampled more densely than earlier ones.
        while (
            self._quota > 1 and sum(len(one.is_ood) for one in self.images.values()) > PIXELS_IN_ALL
        ):
            self._quota //= 2
            for kept in self.images.values():
                kept.thin(self._quota)

    def _keep_heat(self, entry: tuple[float, str, np.ndarray]) -> None:
        if all(entry[1] != path for _, path, _ in self.heat):
            self.heat = heapq.nlargest(NUM_HEAT_MAPS, [*self.heat, entry], key=lambda e: e[:2])

    def _count(self, image: ImagePixels) -> None:
        is_ood = torch.from_numpy(image.is_ood)
        for name, scores in image.scores.items():
            self._stream(name).update(torch.from_numpy(scores), is_ood)
        if image.confusion is not None:
            self.confusion = image.confusion + (0 if self.confusion is None else self.confusion)

    def _stream(self, name: str) -> StreamingOODMetrics:
        return self.streams.setdefault(name, StreamingOODMetrics(self.exact))


def confusion_metrics(confusion: np.ndarray) -> dict[str, float]:
    """``mIoU`` and ``pixel_accuracy`` of a confusion matrix (K, K) whose rows are true classes.

    The mean is over classes that occur or were predicted; 0 if there are none.
    """
    hits = np.diag(confusion)
    union = confusion.sum(0) + confusion.sum(1) - hits
    there = union > 0
    return {
        "mIoU": float((hits[there] / union[there]).mean()) if there.any() else 0.0,
        "pixel_accuracy": float(hits.sum() / max(confusion.sum(), 1)),
    }
