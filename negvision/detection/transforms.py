"""Augmentation of images with boxes."""

import random

import cv2
import numpy as np
from mmcv.transforms import BaseTransform
from mmcv.transforms.utils import cache_randomness

from negvision.registry import TRANSFORMS

# The gray that most detectors are trained with around their images.
_FILL = (114, 114, 114)


@TRANSFORMS.register_module()
class RandomZoom(BaseTransform):
    """Zoom in on a random part of the image, or out, at the same size of the image.

    Batches need no more padding than without it, unlike after ``RandomResize``. What lies beyond
    the image is gray. Boxes are clipped. One that has lost so much that nobody could name the
    object is marked to be ignored: it is no object to learn, and no background either.

    Args:
        scale: Smallest and largest factor; above 1 objects grow.
        min_visible: Share of a box's area, in [0, 1], below which it is ignored.

    Raises:
        ValueError: An argument is out of its range.

    Example:
        >>> zoom = RandomZoom(scale=(2.0, 2.0))
        >>> zoom({"img": np.zeros((8, 6, 3), np.uint8)})["img"].shape
        (8, 6, 3)
    """

    def __init__(self, scale: tuple[float, float] = (0.7, 1.4), min_visible: float = 0.25) -> None:
        low, high = scale
        if not 0 < low <= high < float("inf"):
            raise ValueError(f"scale is {scale!r}; it must be two ascending numbers above 0")
        if not 0 <= min_visible <= 1:
            raise ValueError(f"min_visible is {min_visible!r}; it must be from 0 to 1")
        self.scale, self.min_visible = (low, high), min_visible

    @cache_randomness
    def _draw(self) -> tuple[float, float, float]:
        """The factor, and where between its two ends the image lies in each direction."""
        return random.uniform(*self.scale), random.random(), random.random()

    def transform(self, results: dict) -> dict:
        """Change ``img``, ``homography_matrix``, ``gt_bboxes`` (of mmdet), ``gt_ignore_flags``."""
        height, width = results["img"].shape[:2]
        factor, x, y = self._draw()
        x, y = x * width * (1 - factor), y * height * (1 - factor)
        # Boxes are measured at the edges of pixels, OpenCV at their centers.
        center = (factor - 1) / 2
        matrix = np.array([[factor, 0, x + center], [0, factor, y + center]])
        results["img"] = cv2.warpAffine(results["img"], matrix, (width, height), borderValue=_FILL)
        # As mmdet's transforms record it.
        moved = np.array([[factor, 0, x], [0, factor, y], [0, 0, 1]], np.float32)
        before = results.get("homography_matrix")
        results["homography_matrix"] = moved if before is None else moved @ before
        boxes = results.get("gt_bboxes")
        if boxes is not None and len(boxes):
            boxes.rescale_((factor, factor))
            boxes.translate_((x, y))
            whole = boxes.areas
            boxes.clip_((height, width))
            left = boxes.areas
            kept = (left > 0).numpy()
            hidden = (left < self.min_visible * whole).numpy()
            results["gt_bboxes"] = boxes[kept]
            results["gt_bboxes_labels"] = results["gt_bboxes_labels"][kept]
            results["gt_ignore_flags"] = (results["gt_ignore_flags"] | hidden)[kept]
        return results
