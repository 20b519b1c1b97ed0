"""Transforms that read label images: classes to train on, and out-of-distribution pixels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import numpy as np
import torch
from mmcv.transforms import BaseTransform
from mmengine.structures import PixelData
from mmseg.datasets.transforms import PackSegInputs as MMSegPackSegInputs

from negvision.data.formats.label_files import (
    VOID,
    read_label_image,
    resolve_classes,
    unknown_ids,
)
from negvision.data.images.header import MAX_PIXELS
from negvision.data.images.planes import to_planes
from negvision.errors import ConfigError, DatasetError
from negvision.registry import TRANSFORMS

_META_KEYS = (
    "img_path", "seg_map_path", "ori_shape", "img_shape", "pad_shape", "scale_factor", "flip",
    "flip_direction", "reduce_zero_label", "is_ood",
)  # fmt: skip


@TRANSFORMS.register_module()
class LoadSegAnnotations(BaseTransform):
    """Load a label image and check that it fits its image and the list of classes.

    Replaces mmseg's ``LoadAnnotations`` after :class:`negvision.LoadImageFromFile`, with
    :class:`negvision.SegDataset`. A missing or damaged file, a size other than the image's, and
    ids without a class raise :class:`negvision.errors.DatasetError`; ``on_bad_sample`` of the
    dataset decides whether this ends the run or skips the sample.

    Required keys: ``seg_map_path``, ``label_map``, ``ori_shape``, ``seg_fields``.
    Added keys: ``gt_seg_map`` ((H, W), uint8: labels, 255 for void).

    Args:
        backend_args: File backend of MMEngine; a local file by default.
        max_pixels: Larger label images (height x width) are rejected before they are decoded.
    """

    def __init__(self, backend_args: dict | None = None, max_pixels: int = MAX_PIXELS) -> None:
        self.backend_args, self.max_pixels = backend_args, max_pixels

    def transform(self, results: dict) -> dict:
        """Add the labels to ``results``; raises ``DatasetError`` if they are unusable."""
        path, label_map = results["seg_map_path"], results["label_map"]
        ids = read_label_image(path, results["ori_shape"], self.backend_args, self.max_pixels)
        labels = _labels_of(ids, label_map)
        if labels is None:
            unknown = unknown_ids(ids, label_map)
            raise DatasetError(
                f"{path}: {sum(unknown.values()):,} of {ids.size:,} pixels have an id without a "
                f"class: {', '.join(f'{i} ({n:,} x)' for i, n in unknown.items())}. Classes "
                f"have the ids {', '.join(map(str, label_map))}; void is {VOID}.",
                kind="label image with ids of no class",
            )
        results["gt_seg_map"] = labels
        results["seg_fields"].append("gt_seg_map")
        return results


def _labels_of(ids: np.ndarray, label_map: Mapping[int, int]) -> np.ndarray | None:
    """The labels of ids; None if an id is neither that of a class nor void."""
    count = len(label_map)
    if label_map == dict(zip(range(count), range(count), strict=True)):
        # Ids are labels. Minus their count, invalid ids come first and void (255) last.
        if ids.max(initial=0) >= count and (ids - np.uint8(count) < VOID - count).any():
            return None
        return ids
    # Ids without a class become an extra label, which is easy to find in the result.
    no_class = max((label for label in label_map.values() if label != VOID), default=-1) + 1
    table = np.full(256, no_class, np.uint8)
    table[VOID] = VOID
    table[list(label_map)] = list(label_map.values())
    labels = cv2.LUT(ids, table)
    if no_class == VOID:  # all labels are in use
        return None if unknown_ids(ids, label_map) else labels
    return None if (labels == no_class).any() else labels


@TRANSFORMS.register_module()
class LoadOODMap(BaseTransform):
    """Load the out-of-distribution pixels from the ids of the label image.

    The map always has the size of the original image, like the predictions: resizing and flips do
    not affect it. Void pixels, which no metric counts, are 255, the classes in ``void``, and
    classes that are neither trained nor listed here.

    Required keys: ``seg_map_path``; ``label_map`` and ``class_ids`` if present (from
    :class:`negvision.SegDataset`).
    Added keys: ``gt_ood_map`` ((H, W), uint8: 0 ID, 1 OOD, 255 void).

    Args:
        ood_classes: Names of classes, or ids of the label images.
        void: Names or ids.
        backend_args: File backend of MMEngine; a local file by default.
        max_pixels: Larger label images (height x width) are rejected before they are decoded.

    Raises:
        DatasetError: A class is unknown, both OOD and void, or one that the dataset trains; or
            the label image is unusable.
        ConfigError: ``ood_classes`` is empty.

    Example:
        >>> pipeline = [
        ...     dict(type="negvision.LoadImageFromFile"),
        ...     dict(type="negvision.LoadOODMap", ood_classes=["pedestrian", "bicyclist"]),
        ...     dict(type="negvision.PackSegInputs")]
    """

    def __init__(
        self,
        ood_classes: Sequence[str | int],
        void: Sequence[str | int] = (),
        backend_args: dict | None = None,
        max_pixels: int = MAX_PIXELS,
    ) -> None:
        if not ood_classes:
            raise ConfigError("LoadOODMap: ood_classes is empty; name the OOD classes")
        self.ood_classes, self.void = list(ood_classes), list(void)
        self.backend_args, self.max_pixels = backend_args, max_pixels

    def transform(self, results: dict) -> dict:
        """Add the map to ``results``."""
        if results.get("reduce_zero_label"):
            raise ConfigError(
                "LoadOODMap needs the original ids of the label images, but reduce_zero_label "
                "shifts them; use negvision.SegDataset without it"
            )
        table = self._table(results.get("label_map"), results.get("class_ids"))
        ids = read_label_image(
            results["seg_map_path"], results.get("ori_shape"), self.backend_args, self.max_pixels
        )
        results["gt_ood_map"] = table[ids]
        return results

    def _table(self, label_map: dict[int, int] | None, class_ids: dict[str, int] | None):
        """0, 1 or 255 for each of the 256 ids."""
        ood = resolve_classes(self.ood_classes, class_ids, "LoadOODMap: ood_classes")
        void = resolve_classes(self.void, class_ids, "LoadOODMap: void")
        names = {number: name for name, number in (class_ids or {}).items()}
        trained = {number for number, label in (label_map or {}).items() if label != VOID}
        for other, what in ((void, "which is void too"), (trained, "which is a trained class")):
            both = [repr(names.get(number, number)) for number in ood if number in other]
            if both:
                raise DatasetError(f"LoadOODMap: ood_classes has {', '.join(both)}, {what}")
        table = np.full(256, VOID if label_map else 0, np.uint8)
        table[list(trained)] = 0
        table[[*void, VOID]] = VOID
        table[ood] = 1
        return table


@TRANSFORMS.register_module()
class PackSegInputs(MMSegPackSegInputs):
    """mmseg's ``PackSegInputs``, with the OOD map of :class:`LoadOODMap` in the data sample.

    ``inputs`` equals mmseg's but is computed faster
    (:func:`negvision.data.images.planes.to_planes`). ``gt_ood_map`` (PixelData of (1, H, W), uint8)
    and the meta information ``is_ood`` are added if ``results`` has them.

    Args:
        meta_keys: Keys of ``results`` to store as meta information.
    """

    def __init__(self, meta_keys: Sequence[str] = _META_KEYS) -> None:
        super().__init__(meta_keys)

    def transform(self, results: dict) -> dict:
        """Pack ``results``; see mmseg's."""
        metainfo = {key: results[key] for key in self.meta_keys if key in results}
        others = {key: results[key] for key in results if key != "img" and key not in metainfo}
        packed: dict[str, Any] = super().transform(others)
        for key, value in metainfo.items():
            # mmseg deep-copies everything, which takes a third of the packing time.
            packed["data_samples"].set_field(value, key, field_type="metainfo")
        if "img" in results:
            packed = {"inputs": to_planes(results["img"]), **packed}
        if "gt_ood_map" in results:
            ood_map = torch.from_numpy(results["gt_ood_map"]).unsqueeze(0)
            packed["data_samples"].gt_ood_map = PixelData(data=ood_map)
        return packed
