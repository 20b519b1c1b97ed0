"""Split a data set by classes: some are held out of training, to be the unknown of evaluation.

Images that show held-out classes leave the training set as wholes, or, pixel by pixel, become
void: left in, their objects would be trained as background. Evaluation has in-distribution (ID)
images without, and out-of-distribution (OOD) images or pixels of, the held-out classes.
"""

from negvision.data.splits.boxes import CocoParts, join_coco_parts, lost_boxes, split_coco
from negvision.data.splits.classes import check_names, remaining_classes
from negvision.data.splits.images import (
    LabeledImage,
    join_image_parts,
    read_image_folder,
    read_image_list,
    split_images,
)
from negvision.data.splits.output import staged_outputs
from negvision.data.splits.pixels import LabelTables, PixelCounts, label_tables, write_label_images

__all__ = [
    "CocoParts",
    "LabelTables",
    "LabeledImage",
    "PixelCounts",
    "check_names",
    "join_coco_parts",
    "join_image_parts",
    "label_tables",
    "lost_boxes",
    "read_image_folder",
    "read_image_list",
    "remaining_classes",
    "split_coco",
    "split_images",
    "staged_outputs",
    "write_label_images",
]
