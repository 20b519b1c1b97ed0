"""Numbers of annotations that travel with a sample through a training pipeline.

Transforms drop, cut and mirror boxes, and know nothing of their ids. So the number of a box is
added to its label in bits that no class uses, and taken out again where the sample is packed.
Regions of label images go as one more map, which transforms move like the labels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch

from negvision.data.sample_history import digest_of
from negvision.engine.image_check import leaf_datasets
from negvision.errors import ConfigError

_CLASS_BITS = 20
_CLASS = (1 << _CLASS_BITS) - 1
# Regions are those of every fourth pixel in both directions: heads predict no finer.
_STEP = 4
_LEAST = 4
REGIONS = 1 << 16
# Transforms after which `homography_matrix` tells where a box lies in the original image.
_TRACED = frozenset({
    "LoadImageFromFile", "LoadAnnotations", "Resize", "RandomResize", "RandomChoiceResize",
    "FixScaleResize", "RandomFlip", "RandomCrop", "Pad", "RandomZoom", "PhotoMetricDistortion",
    "YOLOXHSVRandomAug", "FilterAnnotations", "PackDetInputs",
})  # fmt: skip


class Origin(NamedTuple):
    """Where a sample comes from; its data sample has it as metainfo ``origin``."""

    number: int  # among the samples of all sets
    image: int  # the id in the COCO file, or the number
    homography: np.ndarray | None  # from the original image to this one, (3, 3)
    shape: tuple[int, ...]  # of the original image
    regions: tuple[int, ...]  # label of each region of the label image


class SampleNumbers:
    """Number the samples and annotations of a training set.

    Args:
        dataset: Of the data loader; several sets are numbered one after another.
        task: As in :class:`negvision.data.sample_history.SampleHistory`.

    Attributes:
        annotations: (N,) int64, ids of the boxes by their number; None for other tasks.
        digest: Of the annotation files.
        classes: Names, or none.
        traced: Whether boxes can be followed back to the original image.

    Raises:
        ConfigError: The pipeline of a set is not known to load and pack annotations.
    """

    def __init__(self, dataset: Any, task: str) -> None:
        leaves = list(leaf_datasets(dataset))
        files = [getattr(leaf, "ann_file", "") for leaf in leaves]
        self.digest = digest_of(*(file for file in files if file and Path(file).is_file()))
        metainfo = getattr(leaves[0], "metainfo", None) or {}
        self.classes = tuple(map(str, metainfo.get("classes") or ()))
        self._undo: list[Callable[[], None]] = []
        self.traced, self.annotations = True, None
        ids, samples, boxes = [], 0, 0
        try:
            for leaf in leaves:
                offsets = None
                if task == "detection":
                    found = list(_instance_ids(leaf))
                    offsets = boxes + np.cumsum([0, *map(len, found)])
                    boxes = int(offsets[-1])
                    ids += [one for many in found for one in many]
                self._insert(leaf, task, samples, offsets)
                samples += len(leaf)
        except ConfigError:
            self.close()
            raise
        if task == "detection":
            numeric = all(type(one) is int for one in ids) and len(set(ids)) == len(ids)
            self.annotations = np.array(ids if numeric else range(len(ids)), np.int64)

    def close(self) -> None:
        """Give the pipelines back as they were."""
        for undo in self._undo:
            undo()
        self._undo = []

    def _insert(self, leaf: Any, task: str, first: int, offsets: np.ndarray | None) -> None:
        steps: list = getattr(getattr(leaf, "pipeline", None), "transforms", [])
        names = [type(step).__name__ for step in steps]
        loads = [i for i, name in enumerate(names) if name.startswith("Load") and "Ann" in name]
        needs_load = task in ("detection", "segmentation")
        if not names or not names[-1].startswith("Pack") or (needs_load and not loads):
            raise ConfigError(
                f"SampleHistoryHook cannot follow the annotations of {type(leaf).__name__}: its "
                f"pipeline is {', '.join(names) or 'empty'}. It must load annotations and end with "
                "a transform Pack...; sets that mix images of another set are not supported. "
                "Remove the hook from custom_hooks, or train on the set itself"
            )
        before, self.traced = list(steps), self.traced and _TRACED.issuperset(names)
        steps[-1] = _Pack(before[-1], first)
        if offsets is not None:
            steps.insert(loads[-1] + 1, _NumberBoxes(offsets))
        elif task == "segmentation":
            steps.insert(loads[-1] + 1, _add_regions)

        def undo() -> None:
            steps[:] = before

        self._undo.append(undo)


def _instance_ids(dataset: Any) -> Iterator[list]:
    for index in range(len(dataset)):
        instances = dataset.get_data_info(index).get("instances", ())
        yield [instance.get("annotation_id") for instance in instances]


class _NumberBoxes:
    """Add the number of each box, plus one, to its label; not to ignored ones."""

    def __init__(self, offsets: np.ndarray) -> None:
        self._offsets = offsets

    def __call__(self, results: dict) -> dict:
        labels = np.asarray(results["gt_bboxes_labels"], np.int64)
        numbers = self._offsets[results["sample_idx"]] + 1 + np.arange(len(labels))
        used = labels >= 0
        if "gt_ignore_flags" in results:
            used &= ~np.asarray(results["gt_ignore_flags"], bool)
        results["gt_bboxes_labels"] = labels + (numbers << _CLASS_BITS) * used
        return results


def _add_regions(results: dict) -> dict:
    results["gt_regions"], results["region_labels"] = regions_of(results["gt_seg_map"])
    results["seg_fields"].append("gt_regions")
    return results


class _Pack:
    """The transform that packs samples, with their origin and numbers as well."""

    def __init__(self, pack: Callable[[dict], dict], first: int) -> None:
        self._pack, self._first = pack, first

    def __call__(self, results: dict) -> dict:
        number = self._first + results["sample_idx"]
        image = results.get("img_id")
        origin = Origin(
            number,
            image if isinstance(image, int) else number,
            results.get("homography_matrix"),
            tuple(results.get("ori_shape", ())[:2]),
            tuple(results.get("region_labels", ())),
        )
        labels = results.get("gt_bboxes_labels")
        numbers = None
        if labels is not None and "instances" in results:
            numbered = labels > _CLASS
            numbers = np.where(numbered, (labels >> _CLASS_BITS) - 1, -1)
            results["gt_bboxes_labels"] = np.where(numbered, labels & _CLASS, labels)
            if "gt_ignore_flags" in results:
                numbers = numbers[np.asarray(results["gt_ignore_flags"]) == 0]
        packed = self._pack(results)
        sample = packed["data_samples"]
        # set_metainfo would copy it deeply.
        sample.set_field(origin, "origin", field_type="metainfo")
        if numbers is not None:
            sample.gt_instances.number = torch.from_numpy(numbers)
        if "gt_regions" in results:
            regions = torch.from_numpy(results["gt_regions"].astype(np.int32))
            sample.set_data({"gt_regions": regions[None]})
        return packed


def regions_of(labels: np.ndarray, void: int = 255) -> tuple[np.ndarray, list[int]]:
    """Connected regions of one class of a label image, of about 64 pixels or more.

    Regions are found on every fourth pixel in both directions, each of which stands for the
    4 x 4 pixels below and right of it. They are numbered class by class.

    Args:
        labels: (H, W) integers.
        void: The label of pixels without a class.

    Returns:
        (H, W) uint16, 0 for no region and else its number plus one; and the label of each region.

    Example:
        >>> labels = np.zeros((16, 32), np.uint8)
        >>> labels[:, 12:20] = 3
        >>> regions, of = regions_of(labels)
        >>> regions[0, ::4].tolist(), of
        ([1, 1, 1, 3, 3, 2, 2, 2], [0, 0, 3])
    """
    coarse = labels[::_STEP, ::_STEP]
    regions, of = np.zeros(coarse.shape, np.uint16), []
    for label in np.flatnonzero(np.bincount(coarse.ravel())):
        if label == void:
            continue
        mask = (coarse == label).view(np.uint8)
        _, parts, stats, _ = cv2.connectedComponentsWithStats(mask, None, None, None, 4, cv2.CV_16U)
        kept = stats[:, cv2.CC_STAT_AREA] >= _LEAST
        kept[0] = False
        last = len(of) + np.cumsum(kept)
        kept &= last < REGIONS
        regions += np.where(kept, last, 0).astype(np.uint16)[parts]
        of += [int(label)] * int(kept.sum())
    whole = regions.repeat(_STEP, 0).repeat(_STEP, 1)
    return np.ascontiguousarray(whole[: labels.shape[0], : labels.shape[1]]), of
