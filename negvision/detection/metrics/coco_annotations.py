"""Read COCO ground truth for evaluation."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from mmengine.logging import print_log

from negvision.data.formats.coco_file import find_classes, read_coco_file
from negvision.detection.coco_check import check_annotations, check_images
from negvision.errors import DatasetError, Problems


def load_coco_annotations(ann_file: str | Path, need_annotations: bool = True) -> dict[str, Any]:
    """Read a COCO annotation file as :class:`negvision.CocoDataset` does, for evaluation.

    What is an object in training is one here: boxes are clipped to their image, boxes narrower
    than a pixel and unusable annotations are left out and reported, and ``ignore: 1`` means
    ``iscrowd: 1``. A missing ``iscrowd`` becomes 0, a missing ``area`` width x height of the box
    (pixels²). Annotations are renumbered 1, 2, ...: COCO's matching marks "unmatched" with id 0, so
    an annotation with this id would never count as found, and two with one id would count as one.

    Args:
        ann_file: The JSON file.
        need_annotations: As in :func:`negvision.data.formats.coco_file.read_coco_file`.

    Returns:
        ``images``, ``annotations`` and ``categories`` of the file; other entries are dropped.

    Raises:
        FileNotFoundError: No such file.
        DatasetError: The file is not JSON, lacks one of the three lists, or nothing in it can be
            used.
    """
    path = Path(ann_file)
    if not path.is_file():
        raise FileNotFoundError(
            f"annotation file {str(ann_file)!r} of the metric does not exist "
            f"(looked for {path.absolute()}); set ann_file in val_evaluator/test_evaluator, "
            f"or the data root the config builds it from"
        )
    content = read_coco_file(str(ann_file), need_annotations=need_annotations)
    _, category_ids = find_classes(str(ann_file), content, None)
    problems, notes = Problems(), Problems()
    images = check_images(content["images"], problems)
    by_image = check_annotations(content["annotations"], images, set(category_ids), problems, notes)
    if problems and not by_image:
        raise DatasetError(
            f"{ann_file}: the metric cannot use this file:\n{problems.report()}\nCorrect the file."
        )
    for found, level in ((problems, logging.WARNING), (notes, logging.INFO)):
        if found:
            print_log(f"{ann_file}, evaluation: {found.summary()}", logger="current", level=level)
    annotations = [annotation for found in by_image.values() for annotation in found]
    return {
        "images": [image for image in images.values() if image is not None],
        "annotations": [
            {"iscrowd": 0, **annotation, "id": number}
            for number, annotation in enumerate(annotations, start=1)
        ],
        "categories": content["categories"],
    }
