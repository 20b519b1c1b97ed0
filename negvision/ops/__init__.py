"""Tensor functions with compiled kernels. They depend on torch alone.

Without the kernels, PyTorch computes the same results more slowly, and one warning is issued.
"""

from negvision.ops._extension import extension_info
from negvision.ops.atss import atss_assign
from negvision.ops.boxes import aligned_box_iou, box_similarity, pairwise_box_iou
from negvision.ops.max_iou import max_iou_assign
from negvision.ops.negatives import class_logsumexp, pair_logsumexp
from negvision.ops.pixels import distort_colors, image_planes
from negvision.ops.predictions import (
    dynamic_soft_label_assign,
    sim_ota_assign,
    tal_assign,
    task_aligned_targets,
)

__all__ = [
    "aligned_box_iou",
    "atss_assign",
    "box_similarity",
    "class_logsumexp",
    "distort_colors",
    "dynamic_soft_label_assign",
    "extension_info",
    "image_planes",
    "max_iou_assign",
    "pair_logsumexp",
    "pairwise_box_iou",
    "sim_ota_assign",
    "tal_assign",
    "task_aligned_targets",
]
