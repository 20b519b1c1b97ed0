"""``negvision browse-dataset CONFIG``: draw train images with their annotations."""

import sys
from collections import Counter
from pathlib import Path

import numpy as np
import torch
from mmdet.structures import DetDataSample
from mmdet.structures.bbox import get_box_tensor
from tqdm import tqdm

from negvision.cli.browsing import (
    browsing_parser,
    chosen_indices,
    picture_path,
    read_config,
    text_table,
    train_dataset,
)
from negvision.detection.visualization.predictions import draw_annotations
from negvision.engine.quiet import captured_pycocotools
from negvision.errors import reports_user_errors
from negvision.visualization import save_picture, with_legend
from negvision.visualization.looking import seeded


def picture_of(packed: dict, classes: tuple[str, ...]) -> tuple[np.ndarray, str]:
    """Picture and image name of what a pipeline that ends in ``PackDetInputs`` gives.

    Args:
        packed: ``inputs``, a ``(3, H, W)`` tensor in BGR as mmdet loads it, and ``data_samples``.
        classes: Names.
    """
    sample: DetDataSample = packed["data_samples"]
    image = packed["inputs"].flip(0).float().round().clamp(0, 255).byte()
    truth = sample.gt_instances
    masks = truth.masks.to_ndarray().astype(bool) if "masks" in truth else None
    ignored = sample.ignored_instances.bboxes if "ignored_instances" in sample else None
    picture = draw_annotations(
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
    return with_legend(picture, f"{name}: {width} x {height}, {count} objects{extra}"), name


def class_table(dataset, classes: tuple[str, ...]) -> str:
    """Objects, ignore boxes and images of each class in the annotations of ``dataset``."""
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
    return f"{table}\n\n{len(dataset):,} images, {empty:,} of them without an object"


@reports_user_errors
def main(argv: list[str] | None = None) -> int:
    """Draw and count; 0, or 2 after a user error, which is printed."""
    parser = browsing_parser(
        "browse-dataset",
        "Draw images as the train pipeline gives them, with boxes, masks and ignore boxes.",
        "dataset",
    )
    args = parser.parse_args(argv)
    cfg, folder = read_config(args)
    # The same pictures each time: random augmentations start from one seed.
    with captured_pycocotools(), seeded(0), torch.no_grad():
        dataset = train_dataset(cfg)
        classes = tuple(dataset.metainfo.get("classes", ()))
        indices = chosen_indices(args, len(dataset))
        # disable=None: the bar shows on a terminal only.
        for index in tqdm(indices, desc="images", leave=False, disable=None, file=sys.stdout):
            picture, name = picture_of(dataset[index], classes)
            save_picture(picture_path(folder, index, name), picture)
    # Wrappers that mix images have no annotations of their own.
    while not hasattr(dataset, "get_data_info"):
        dataset = dataset.dataset
    print(class_table(dataset, classes))
    print(f"\npictures  {folder}/ ({len(set(indices))} files)")
    return 0
