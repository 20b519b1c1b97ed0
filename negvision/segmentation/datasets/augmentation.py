"""mmseg's transforms of training images, made quicker: the same random numbers, the same pixels."""

from __future__ import annotations

from typing import ClassVar

import cv2
import mmcv
import numpy as np
from mmcv.transforms.utils import cache_randomness
from mmseg.datasets.transforms import PhotoMetricDistortion as MMSegPhotoMetricDistortion
from mmseg.datasets.transforms import RandomCrop as MMSegRandomCrop

from negvision.images.planes import upright
from negvision.registry import TRANSFORMS


@TRANSFORMS.register_module()
class SegRandomCrop(MMSegRandomCrop):
    """mmseg's ``RandomCrop``, which counts one class of a crop instead of sorting its pixels.

    Arguments, random numbers and output are those of mmseg's.

    Required keys: ``img``; ``gt_seg_map`` ((H, W)) where ``cat_max_ratio`` is below 1.
    Changed keys: ``img``, ``img_shape`` and those that ``seg_fields`` lists.
    """

    # Of this class: mmcv's decorator would add to the list of mmseg's.
    _methods_with_randomness: ClassVar[list[str]] = []

    @cache_randomness
    def crop_bbox(self, results: dict) -> tuple[int, int, int, int]:
        """The crop (top, bottom, left, right), drawn anew up to ten times where one class fills
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
        """Whether there are several classes, and none of them fills too much."""
        if labels.dtype == np.uint8:
            verdict = self._judge_by_one(labels)
            if verdict is not None:
                return verdict
        values, counts = np.unique(labels, return_counts=True)
        counts = counts[values != self.ignore_index]
        return len(counts) > 1 and counts.max() / counts.sum() < self.cat_max_ratio

    def _judge_by_one(self, labels: np.ndarray) -> bool | None:
        """The same where one class decides: it fills too much, or leaves too little for another
        to do so. None where it does not. A part of the pixels tells which class to count."""
        sampled = np.bincount(labels[::8, ::8].ravel(), minlength=256)
        total = labels.size
        if 0 <= self.ignore_index < len(sampled):
            sampled[self.ignore_index] = 0
            total -= np.count_nonzero(labels == self.ignore_index)
        if not sampled.any():
            return None
        largest = np.count_nonzero(labels == sampled.argmax())
        if largest / total >= self.cat_max_ratio:
            return False
        return True if (total - largest) / total < self.cat_max_ratio else None


@TRANSFORMS.register_module()
class SegPhotoMetricDistortion(MMSegPhotoMetricDistortion):
    """mmseg's ``PhotoMetricDistortion`` by tables of what becomes of each of the 256 values.

    Arguments, random numbers and output are those of mmseg's, bit for bit.

    Required and changed key: ``img`` ((H, W, 3), BGR, uint8; other types are left to mmseg's).
    """

    def transform(self, results: dict) -> dict:
        """Distort ``results["img"]``."""
        results["img"] = upright(results["img"])
        return super().transform(results)

    def convert(self, img: np.ndarray, alpha: float = 1, beta: float = 0) -> np.ndarray:
        """``img * alpha + beta`` in float32, clipped and cut to uint8."""
        if img.dtype != np.uint8:
            return super().convert(img, alpha, beta)
        return cv2.LUT(img, super().convert(np.arange(256, dtype=np.uint8), alpha, beta))

    def saturation(self, img: np.ndarray) -> np.ndarray:
        """Scale the saturation, one time in two."""
        if img.dtype != np.uint8:
            return super().saturation(img)
        if not np.random.randint(2):  # noqa: NPY002
            return img
        hsv = mmcv.bgr2hsv(img)
        factor = np.random.uniform(self.saturation_lower, self.saturation_upper)  # noqa: NPY002
        cv2.insertChannel(self.convert(cv2.extractChannel(hsv, 1), alpha=factor), hsv, 1)
        return mmcv.hsv2bgr(hsv)

    def hue(self, img: np.ndarray) -> np.ndarray:
        """Turn the hue, one time in two."""
        if img.dtype != np.uint8:
            return super().hue(img)
        if not np.random.randint(2):  # noqa: NPY002
            return img
        hsv = mmcv.bgr2hsv(img)
        turn = np.random.randint(-self.hue_delta, self.hue_delta)  # noqa: NPY002
        table = ((np.arange(256) + turn) % 180).astype(np.uint8)
        cv2.insertChannel(cv2.LUT(cv2.extractChannel(hsv, 0), table), hsv, 0)
        return mmcv.hsv2bgr(hsv)
