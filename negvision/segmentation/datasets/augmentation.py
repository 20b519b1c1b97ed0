"""Faster versions of mmseg's training transforms, with the same random numbers."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import torch
from mmseg.datasets.transforms import PhotoMetricDistortion as MMSegPhotoMetricDistortion
from mmseg.datasets.transforms import RandomCrop as MMSegRandomCrop

from negvision.data.images.flips import held_on_demand
from negvision.data.images.planes import as_stored
from negvision.ops import distort_colors
from negvision.registry import TRANSFORMS


@TRANSFORMS.register_module()
class SegRandomCrop(MMSegRandomCrop):
    """mmseg's ``RandomCrop``, but counting one class of a crop instead of sorting its pixels.

    Arguments, random numbers and output are mmseg's.

    Required keys: ``img``; ``gt_seg_map`` ((H, W)) where ``cat_max_ratio`` is below 1.
    Changed keys: ``img``, ``img_shape`` and those that ``seg_fields`` lists.
    """

    _methods_with_randomness: ClassVar[list[str]] = ["crop_bbox"]

    @held_on_demand
    def crop_bbox(self, results: dict) -> tuple[int, int, int, int]:
        """The crop (top, bottom, left, right), redrawn up to ten times while one class fills
        ``cat_max_ratio`` of it."""
        shape = results["img"].shape
        box = self._draw(shape)
        if self.cat_max_ratio < 1:
            for _ in range(10):
                if self._is_varied(self.crop(results["gt_seg_map"], box)):
                    break
                box = self._draw(shape)
        return box

    def _draw(self, shape: tuple[int, ...]) -> tuple[int, int, int, int]:
        height, width = self.crop_size
        # MMEngine seeds NumPy's global generator.
        top = np.random.randint(0, max(shape[0] - height, 0) + 1)  # noqa: NPY002
        left = np.random.randint(0, max(shape[1] - width, 0) + 1)  # noqa: NPY002
        return top, top + height, left, left + width

    def _is_varied(self, labels: np.ndarray) -> bool:
        """Whether there are several classes, none of which fills too much."""
        if labels.dtype == np.uint8:
            for step in (2, 1):
                verdict = self._judge_by_one(labels, step)
                if verdict is not None:
                    return verdict
        values, counts = np.unique(labels, return_counts=True)
        counts = counts[values != self.ignore_index]
        return len(counts) > 1 and counts.max() / counts.sum() < self.cat_max_ratio

    def _judge_by_one(self, labels: np.ndarray, step: int) -> bool | None:
        """The same from every ``step``-th row and the counts of one class alone.

        None if these do not decide it. A coarse sample chooses the class to count.
        """
        sampled = np.bincount(labels[::8, ::8].ravel(), minlength=256)
        rows = labels[::step]
        ignored = 0
        if 0 <= self.ignore_index < len(sampled):
            sampled[self.ignore_index] = 0
            ignored = np.count_nonzero(rows == self.ignore_index)
        if not sampled.any():
            return None
        # An integer of NumPy would make the comparison one of 64 bits.
        one = np.count_nonzero(rows == int(sampled.argmax()))
        others, unseen = rows.size - ignored - one, labels.size - rows.size
        least, total = min(one, others), one + others + unseen
        if one / total >= self.cat_max_ratio:
            return False
        # All unseen pixels may belong to this class, or to one other.
        return True if least and (total - least) / total < self.cat_max_ratio else None


@TRANSFORMS.register_module()
class SegPhotoMetricDistortion(MMSegPhotoMetricDistortion):
    """mmseg's ``PhotoMetricDistortion`` in one pass over the image, all steps together.

    Arguments and random numbers are mmseg's. Steps round to nearest where mmseg truncates: given
    the same input, each is within one gray level of mmseg's. The image is a view of planes
    afterwards: call ``np.ascontiguousarray`` before drawing into it with OpenCV.

    Required and changed key: ``img`` ((H, W, 3), BGR, uint8; mmseg handles other types).
    """

    def transform(self, results: dict) -> dict:
        """Distort ``results["img"]``."""
        image = results["img"]
        if image.dtype != np.uint8:
            return super().transform(results)
        steps = self._draw_steps()
        if steps:
            stored, rows_reversed, columns_reversed = as_stored(image)
            if stored.strides[1:] != (3, 1) or not stored.flags.writeable:
                stored = stored.copy(order="C")
            planes = distort_colors(
                torch.from_numpy(stored), steps, rows_reversed, columns_reversed
            )
            results["img"] = planes.permute(1, 2, 0).numpy()
        return results

    def _draw_steps(self) -> list[tuple[str, float]]:
        """Draw the steps for one image, in mmseg's order, from NumPy's global generator."""
        steps = []
        self._maybe(steps, "brightness", -self.brightness_delta, self.brightness_delta)
        contrast = ("contrast", self.contrast_lower, self.contrast_upper)
        contrast_first = np.random.randint(2)  # noqa: NPY002
        if contrast_first:
            self._maybe(steps, *contrast)
        self._maybe(steps, "saturation", self.saturation_lower, self.saturation_upper)
        if np.random.randint(2):  # noqa: NPY002
            turn = np.random.randint(-self.hue_delta, self.hue_delta)  # noqa: NPY002
            steps.append(("hue", turn))
        if not contrast_first:
            self._maybe(steps, *contrast)
        return steps

    @staticmethod
    def _maybe(steps: list, kind: str, low: float, high: float) -> None:
        """Add the step with probability one half."""
        if np.random.randint(2):  # noqa: NPY002
            steps.append((kind, np.random.uniform(low, high)))  # noqa: NPY002
