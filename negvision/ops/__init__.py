"""Tensor functions with compiled kernels; they know torch alone.

Where the kernels are not built, PyTorch computes the same results and one warning says so.
"""

from negvision.ops._extension import extension_info
from negvision.ops.atss import atss_assign
from negvision.ops.boxes import aligned_box_iou, pairwise_box_iou
from negvision.ops.negatives import class_logsumexp, pair_logsumexp
from negvision.ops.pixels import distort_colours, image_planes

__all__ = [
    "aligned_box_iou",
    "atss_assign",
    "class_logsumexp",
    "distort_colours",
    "extension_info",
    "image_planes",
    "pair_logsumexp",
    "pairwise_box_iou",
]
