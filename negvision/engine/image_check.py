"""Check that a data set and the annotation file of its evaluator mean the same images."""

import logging
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from mmengine.evaluator import Evaluator
from mmengine.logging import print_log

from negvision.data.images.files import spellings
from negvision.engine.metrics import OODMetricBase
from negvision.errors import ConfigError, Problems


def leaf_datasets(dataset) -> Iterator:
    """The data sets in ``dataset`` that wrap no other."""
    wrapped = (getattr(dataset, "dataset", None), getattr(dataset, "_dataset", None))
    inner = [other for other in (*getattr(dataset, "datasets", ()), *wrapped) if other is not None]
    if not inner:
        yield dataset
    for other in inner:
        yield from leaf_datasets(other)


def check_images(dataset, evaluator: Evaluator, split: str) -> None:
    """Check the images of ``dataset``, wrapped or not, before they are evaluated.

    COCO's metrics know an image by its id, and nearly every file counts from 1: the ids of another
    split, or of two concatenated files, fit, and the result says nothing. An image is the same if
    its id is listed with the same name; folders count where names without them repeat. Reading all
    images is left out where data set and evaluator read one file.

    Args:
        dataset: Of the data loader.
        evaluator: Its metrics; those without an annotation file of COCO are left alone.
        split: "val" or "test", for the message.

    Raises:
        ConfigError: An image is not in the file, has another name there, shares its id with another
            one, or is both in-distribution and OOD.
    """
    parts = [part for part in leaf_datasets(dataset) if hasattr(part, "get_data_info")]
    for metric in evaluator.metrics:
        listed = _listed_images(metric)
        if listed is None or not parts:
            continue
        _warn_of_ignored(metric)
        ann_file = getattr(metric, "ann_file", None)
        if len(parts) == 1 and ann_file and _same_file(parts[0], ann_file):
            continue
        problems = _compare(parts, listed, isinstance(metric, OODMetricBase))
        if problems:
            of_file = f" {ann_file!r}" if ann_file else "'s annotation file"
            raise ConfigError(
                f"the images of {split} are not those of {split}_evaluator{of_file}:\n"
                f"{problems.report()}\n"
                f"Give {split}_dataloader.dataset and {split}_evaluator the same ann_file. Merge "
                "several files into one in which each image has an id of its own"
            )


def _warn_of_ignored(metric) -> None:
    """mmdet's metrics count objects that negvision ignores."""
    annotations = getattr(getattr(metric, "_coco_api", None), "anns", {}).values()
    count = sum(bool(a.get("ignore")) and not a.get("iscrowd") for a in annotations)
    if count:
        print_log(
            f"{count:,} annotations with ignore: 1 and no iscrowd count as objects in mmdet's "
            f"{type(metric).__name__}; negvision.CocoMetric ignores them",
            logger="current",
            level=logging.WARNING,
        )


def _listed_images(metric) -> dict | None:
    """Names by image id in the metric's annotation file; empty: the metric uses the samples' ids.

    None for a metric that does not use image ids.
    """
    truth = getattr(metric, "ground_truth", None)
    if isinstance(truth, dict) and "images" in truth:
        return {image["id"]: image.get("file_name") for image in truth["images"]}
    if not hasattr(metric, "_coco_api"):
        return None
    images = getattr(metric._coco_api, "imgs", {})
    return {image_id: image.get("file_name") for image_id, image in images.items()}


def _same_file(part, ann_file: str) -> bool:
    own = getattr(part, "ann_file", None)
    return bool(own) and os.path.realpath(own) == os.path.realpath(ann_file)


def compare_images(images: Iterable[tuple[Any, str]], listed: Mapping[Any, str | None]) -> Problems:
    """Compare images, given as id and path, with the names that a file lists by id.

    Without a file (``listed`` is empty) only the ids are compared with one another.

    Example:
        >>> images = [(1, "val/a.jpg"), (2, "val/c.jpg"), (2, "test/d.jpg")]
        >>> print(compare_images(images, {1: "a.jpg", 2: "b.jpg"}).summary())
        1 x image of another name in the file, 1 x id of two images
    """
    problems = Problems()
    base_names = Counter(os.path.basename(name) for name in listed.values() if name)
    seen: dict[Any, str] = {}
    for image_id, path in images:
        where = f"id {image_id!r}"
        if seen.setdefault(image_id, path) != path:
            problems.add("id of two images", where, f"{seen[image_id]} and {path}")
        elif listed and image_id not in listed:
            problems.add("image that is not in the file", where, path)
        elif listed and not _fits(path, listed[image_id], base_names):
            name = f"{path}, in the file {listed[image_id]}"
            problems.add("image of another name in the file", where, name)
    return problems


def _compare(parts: list, listed: dict, ood_metric: bool) -> Problems:
    kinds: dict[str, bool] = {}
    both = Problems()

    def known() -> Iterator[tuple[Any, str]]:
        for part in parts:
            for info in map(part.get_data_info, range(len(part))):
                path, is_ood = str(info.get("img_path", "")), bool(info.get("is_ood"))
                if ood_metric and path and kinds.setdefault(path, is_ood) != is_ood:
                    # It knows images by their paths.
                    both.add("image that is in-distribution and OOD", path)
                if "img_id" in info and not (ood_metric and is_ood):
                    yield info["img_id"], path

    problems = compare_images(known(), listed)
    problems.merge(both)
    return problems


def _fits(path: str, name: str | None, base_names: Counter) -> bool:
    if not path or not name:
        return True
    path = path.replace("\\", "/")
    return any(_lies_at(path, os.path.normpath(other), base_names) for other in spellings(name))


def _lies_at(path: str, name: str, base_names: Counter) -> bool:
    base = os.path.basename(name)
    if os.path.basename(path) != base or base_names[base] == 1:
        return os.path.basename(path) == base
    return f"/{os.path.normpath(path)}".endswith(f"/{name}")
