"""The loss of each image by itself, as a trained detector sees it."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from mmengine.structures import InstanceData
from torch import nn

from negvision.visualization.looking import seeded


def loss_of_image(model: nn.Module, image: torch.Tensor, sample) -> dict[str, float]:
    """Sum and parts of the training loss of one image, the weights and statistics unchanged.

    The image is a batch of its own and the model stays as it is, so in evaluation mode running
    statistics normalise and nothing is dropped. What a head samples at random is drawn alike for
    each image.

    Args:
        model: A detector of mmdet.
        image: ``(3, H, W)`` as the test pipeline packs it.
        sample: Its data sample. ``gt_instances`` and ``ignored_instances`` are in pixels of the
            original image, as test pipelines load them, and ``scale_factor`` leads to those of
            ``image``.

    Returns:
        ``loss`` first, then what it is the sum of.
    """
    fresh = type(sample)(metainfo=sample.metainfo)
    for name in ("gt_instances", "ignored_instances"):
        if name in sample:
            fresh.set_field(_resized(sample.get(name), sample.metainfo), name)
    with torch.no_grad(), seeded(0):
        data = model.data_preprocessor({"inputs": [image], "data_samples": [fresh]}, False)
        total, parts = model.parse_losses(model(**data, mode="loss"))
    return {"loss": float(total), **{k: float(v) for k, v in parts.items() if k != "loss"}}


def why_no_loss(model: nn.Module, sample) -> str:
    """What keeps :func:`loss_of_image` from this sample; "" where nothing does."""
    if not hasattr(model, "loss"):
        return f"{type(model).__name__} is no model to train"
    if "gt_instances" not in sample or "bboxes" not in sample.gt_instances:
        return "the test pipeline loads no annotations (LoadAnnotations after Resize)"
    absent = [name for name in ("scale_factor", "img_shape") if name not in sample.metainfo]
    if absent:
        return f"PackDetInputs of the test pipeline has no {' and no '.join(absent)} in meta_keys"
    if getattr(model, "with_mask", False) and "masks" not in sample.gt_instances:
        return "the test pipeline loads no masks (LoadAnnotations with_mask=True)"
    return ""


def _resized(instances: InstanceData, meta: Mapping) -> InstanceData:
    """A copy at the size of the network's image."""
    resized = instances.clone()
    boxes = getattr(instances.bboxes, "tensor", instances.bboxes)
    resized.bboxes = boxes * boxes.new_tensor(meta["scale_factor"]).repeat(2)
    if "masks" in instances:
        resized.masks = instances.masks.resize(meta["img_shape"][:2])
    return resized
