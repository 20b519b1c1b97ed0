"""``negvision browse-dataset CONFIG``: draw train images with their annotations."""

from __future__ import annotations

import argparse
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from negvision.cli.arguments import add_browsing_arguments
from negvision.cli.output import progress_bar, text_table

if TYPE_CHECKING:
    import numpy as np

HELP = "draw images of a config with their annotations"
DESCRIPTION = "Draw images as the train pipeline returns them, with boxes, masks and ignored boxes."
_FOLDER = "dataset"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_browsing_arguments(parser, _FOLDER)


def run(args: argparse.Namespace) -> int:
    """Draw and count; 0."""
    import torch

    from negvision.cli.browsing import chosen_indices, image_path, read_config, train_dataset
    from negvision.compat.patches import captured_pycocotools
    from negvision.visualization import save_image
    from negvision.visualization.looking import seeded

    cfg, folder = read_config(args, _FOLDER)
    # Seeded, so that random augmentations give the same images every time.
    with captured_pycocotools(), seeded(0), torch.no_grad():
        dataset = train_dataset(cfg)
        classes = tuple(dataset.metainfo.get("classes", ()))
        indices = chosen_indices(args, len(dataset))
        for index in progress_bar(indices, "images"):
            image, name = draw_sample(dataset[index], classes)
            save_image(image_path(folder, index, name), image)
    # Wrappers that mix images have no annotations of their own.
    while not hasattr(dataset, "get_data_info"):
        dataset = dataset.dataset
    print(class_table(dataset, classes))
    print(f"\nimages  {folder}/ ({len(set(indices))} files)")
    return 0


def draw_sample(packed: dict, classes: tuple[str, ...]) -> tuple[np.ndarray, str]:
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
    ignored = sample.ignored_instances.bboxes if "ignored_instances" in sample else None
    drawn = draw_annotations(
        np.ascontiguousarray(image.permute(1, 2, 0).numpy()),
        get_box_tensor(truth.bboxes).tolist(),
        truth.labels.tolist(),
        classes,
        masks,
        [] if ignored is None else get_box_tensor(ignored).tolist(),
    )
    name = Path(sample.metainfo.get("img_path", "image")).name
    height, width = image.shape[-2:]
    count = len(truth.labels)
    extra = "" if ignored is None or not len(ignored) else f", {len(ignored)} ignored"
    return with_legend(drawn, f"{name}: {width} x {height}, {count} objects{extra}"), name


def class_table(dataset, classes: tuple[str, ...]) -> str:
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
        [name, f"{objects[label]:,}", f"{images[label]:,}", f"{ignored[label]:,}"]
        for label, name in enumerate(classes)
    ]
    total = [f"{objects.total():,}", f"{len(dataset) - empty:,}", f"{ignored.total():,}"]
    rows.append(["all", *total])
    table = text_table(["class", "objects", "images", "ignored"], rows)
    return f"{table}\n\n{len(dataset):,} images, {empty:,} of them without objects"
