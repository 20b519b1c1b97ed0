"""Tensor functions with compiled kernels; they know torch alone.

Where the kernels are not built, PyTorch computes the same results and one warning says so.
"""

from negvision.ops._extension import extension_info
from negvision.ops.atss import atss_assign
from negvision.ops.boxes import aligned_box_iou, pairwise_box_iou

__all__ = ["aligned_box_iou", "atss_assign", "extension_info", "pairwise_box_iou"]
