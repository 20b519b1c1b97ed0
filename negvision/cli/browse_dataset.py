"""``negvision browse-dataset CONFIG``: draw train images with their annotations."""

from __future__ import annotations

import argparse
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from negvision.cli.browsing import add_browsing_arguments, save_drawings
from negvision.errors import text_table

if TYPE_CHECKING:
    import numpy as np

HELP = "draw images as the train pipeline returns them, with their annotations"
_FOLDER = "dataset"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_browsing_arguments(parser, _FOLDER)


def run(args: argparse.Namespace) -> int:
    """Draw and count; 0."""
    table = ""

    def draw(cfg, dataset, indices):
        nonlocal table
        classes = tuple(dataset.metainfo.get("classes", ()))
        for index in indices:
            image, name = _draw_sample(dataset[index], classes)
            yield index, name, image
        # Wrappers that mix images have no annotations of their own.
        while not hasattr(dataset, "get_data_info"):
            dataset = dataset.dataset
        table = _class_table(dataset, classes)

    saved = save_drawings(args, _FOLDER, draw)
    print(f"{table}\n{saved}")
    return 0


def _draw_sample(packed: dict, classes: tuple[str, ...]) -> tuple[np.ndarray, str]:
    """Draw a sample of a pipeline that ends in ``PackDetInputs``; the drawing and the image's name.

    Args:
        packed: ``inputs``, a ``(3, H, W)`` tensor in BGR as mmdet loads it, and ``data_samples``.
        classes: Names.
    """
    import numpy as np
    from mmdet.structures.bbox import get_box_tensor

    from negvision.visualization import with_legend
    from negvision.visualization.boxes import draw_annotations

    sample = packed["data_samples"]
    image = packed["inputs"].flip(0).float().round().clamp(0, 255).byte()
    truth = sample.gt_instances
    masks = truth.masks.to_ndarray().astype(bool) if "masks" in truth else None
    ignored = []
    if "ignored_instances" in sample:
        ignored = get_box_tensor(sample.ignored_instances.bboxes).tolist()
    drawn = draw_annotations(
        np.ascontiguousarray(image.permute(1, 2, 0).numpy()),
        get_box_tensor(truth.bboxes).tolist(),
        truth.labels.tolist(),
        classes,
        masks,
        ignored,
    )
    name = Path(sample.metainfo.get("img_path", "image")).name
    height, width = image.shape[-2:]
    extra = f", {len(ignored)} ignored" if ignored else ""
    title = f"{name}: {width} x {height}, {len(truth.labels)} objects{extra}"
    return with_legend(drawn, title), name


def _class_table(dataset, classes: tuple[str, ...]) -> str:
    """Objects, ignored boxes and images of each class in the annotations of ``dataset``."""
    objects: Counter[int] = Counter()
    ignored: Counter[int] = Counter()
    images: Counter[int] = Counter()
    empty = 0
    for index in range(len(dataset)):
        instances = dataset.get_data_info(index).get("instances", [])
        kept = [item["bbox_label"] for item in instances if not item.get("ignore_flag")]
        objects.update(kept)
        images.update(set(kept))
        ignored.update(item["bbox_label"] for item in instances if item.get("ignore_flag"))
        empty += not kept
    rows = [
        [name, objects[label], images[label], ignored[label]] for label, name in enumerate(classes)
    ]
    rows.append(["all", objects.total(), len(dataset) - empty, ignored.total()])
    table = text_table(["class", "objects", "images", "ignored"], rows)
    return f"{table}\n\n{len(dataset):,} images, {empty:,} of them without objects"
