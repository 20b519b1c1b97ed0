"""Which anchors of an image become positive, worked out as training would do it."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from mmdet.models.dense_heads import AnchorHead
from mmdet.models.task_modules.prior_generators import anchor_inside_flags
from mmdet.models.utils import unpack_gt_instances
from mmengine.dataset import pseudo_collate
from mmengine.logging import MessageHub
from mmengine.structures import InstanceData
from torch import nn

from negvision.errors import ConfigError


@dataclass(frozen=True)
class AssignmentView:
    """An image as the network sees it, and the assignment of its anchors.

    Attributes:
        index: Of the image in the dataset.
        name: File name of the image.
        image: ``(H, W, 3)`` uint8, RGB: after the pipeline, padded as a batch of this image alone.
        image_shape: Height and width without the padding.
        boxes: ``(G, 4)`` float, x1 y1 x2 y2 in pixels of ``image``.
        labels: ``(G,)`` int.
        ignored: ``(M, 4)`` float, ignore and crowd boxes.
        classes: Names of the classes.
        priors: An ``(n_l, 4)`` float tensor of anchors for each level, finest first.
        gt_inds: ``(A,)`` int over the anchors of all levels: 0 negative, i + 1 of box i, -1
            ignored. 0 where not ``valid``.
        valid: ``(A,)`` bool: anchors that take part (``allowed_border``, padding).
    """

    index: int
    name: str
    image: np.ndarray
    image_shape: tuple[int, int]
    boxes: torch.Tensor
    labels: torch.Tensor
    ignored: torch.Tensor
    classes: tuple[str, ...]
    priors: tuple[torch.Tensor, ...]
    gt_inds: torch.Tensor
    valid: torch.Tensor

    @property
    def levels(self) -> torch.Tensor:
        """``(A,)``: the level of each anchor, counted from 0."""
        sizes = torch.tensor([len(priors) for priors in self.priors])
        return torch.repeat_interleave(torch.arange(len(sizes)), sizes)

    @property
    def positives_per_box(self) -> torch.Tensor:
        """``(G,)``: the number of positive anchors of each box."""
        return torch.bincount(self.gt_inds.clamp(min=0), minlength=len(self.boxes) + 1)[1:]

    @property
    def positives_per_level(self) -> torch.Tensor:
        """``(L,)``: the number of positive anchors on each level."""
        return torch.bincount(self.levels[self.gt_inds > 0], minlength=len(self.priors))

    @property
    def unmatched(self) -> list[int]:
        """Boxes without a positive anchor: training never shows them to the network."""
        return torch.nonzero(self.positives_per_box == 0).flatten().tolist()

    def class_name(self, box: int) -> str:
        """The class of a box; its number where the dataset names none."""
        label = int(self.labels[box])
        return self.classes[label] if label < len(self.classes) else str(label)


def assignment_views(model: nn.Module, dataset, indices: Iterable[int]) -> Iterator[AssignmentView]:
    """Run images through pipeline, preprocessor and assigner as a training step does.

    Differs from a step in one thing: each image is a batch of its own, so it is padded for itself.
    The sizes of the feature maps come from a forward pass of backbone and neck over zeros, in
    evaluation mode; neither weights nor statistics of the model change.

    Args:
        model: A detector of mmdet whose ``bbox_head`` (or ``rpn_head``) has an assigner that
            works on anchors alone.
        dataset: A dataset with its pipeline, ending in ``PackDetInputs``.
        indices: Images of it.

    Raises:
        ConfigError: the head has no assigner, its priors are not boxes, or its assigner needs
            predictions.
        IndexError: an index out of range.

    Example:
        >>> for view in assignment_views(model, dataset, range(8)):  # doctest: +SKIP
        ...     print(view.name, view.positives_per_box.tolist(), view.unmatched)
    """
    head = find_head(model)
    classes = tuple(dataset.metainfo.get("classes", ()))
    device = next(model.parameters()).device
    sizes: dict[tuple[int, int], list[tuple[int, int]]] = {}
    for index in indices:
        if not 0 <= index < len(dataset):
            raise IndexError(f"image {index}: the dataset has images 0 to {len(dataset) - 1}")
        batch = _preprocess(model, dataset[index])
        inputs, sample = batch["inputs"], batch["data_samples"][0]
        shape = tuple(inputs.shape[-2:])
        if shape not in sizes:
            sizes[shape] = _feature_sizes(model, shape, device)
        priors = _priors(head, sizes[shape], device)
        (truth,), (ignored,), (meta,) = unpack_gt_instances([sample])
        valid = _valid_flags(head, sizes[shape], priors, meta, device)
        gt_inds = _assign(head.assigner, priors, valid, truth, ignored)
        no_boxes = truth.bboxes.new_zeros((0, 4))
        yield AssignmentView(
            index=index,
            name=str(meta.get("img_path", index)).rpartition("/")[2],
            image=_displayable(model.data_preprocessor, inputs[0], meta["img_shape"]),
            image_shape=tuple(meta["img_shape"][:2]),
            boxes=truth.bboxes.cpu(),
            labels=truth.labels.cpu(),
            ignored=(no_boxes if ignored is None else ignored.bboxes).cpu(),
            classes=classes,
            priors=tuple(level.cpu() for level in priors),
            gt_inds=gt_inds.cpu(),
            valid=valid.cpu(),
        )


def find_head(model: nn.Module) -> nn.Module:
    """The head of ``model`` that assigns anchors.

    Raises:
        ConfigError: there is none, or its assigner cannot be run without predictions.
    """
    for name in ("bbox_head", "rpn_head"):
        head = getattr(model, name, None)
        if head is not None and getattr(head, "assigner", None) is not None:
            break
    else:
        raise ConfigError(
            f"model {type(model).__name__} has no head with an assigner: its positives follow from "
            "the head's own rule. Heads with one are e.g. ATSSHead, RetinaHead, "
            "negvision.ATSSFCOSHead"
        )
    if not hasattr(head, "assignment_priors") and not hasattr(head, "prior_generator"):
        raise ConfigError(f"{type(head).__name__} has no anchors: it assigns predictions to boxes")
    if getattr(head.assigner, "alpha", None) is not None:
        raise _needs_predictions(head.assigner)
    return head


def _needs_predictions(assigner) -> ConfigError:
    return ConfigError(
        f"{type(assigner).__name__} chooses positives by the predictions of a trained network; "
        "only assigners that go by anchors alone can be shown (ATSSAssigner without alpha, "
        "MaxIoUAssigner)"
    )


def _preprocess(model: nn.Module, packed: dict) -> dict:
    # Some batch augmentations ask for the iteration, which only a running loop sets.
    hub = MessageHub.get_current_instance()
    if hub.get_info("iter") is None:
        hub.update_info("iter", 0)
    with torch.no_grad():
        return model.data_preprocessor(pseudo_collate([packed]), training=True)


def _feature_sizes(
    model: nn.Module, shape: tuple[int, int], device: torch.device
) -> list[tuple[int, int]]:
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        with torch.no_grad():
            features = model.extract_feat(torch.zeros(1, 3, *shape, device=device))
    finally:
        # One by one: frozen stages of a backbone keep their mode.
        for module, mode in modes.items():
            module.training = mode
    return [tuple(feature.shape[-2:]) for feature in features]


def _priors(head: nn.Module, sizes: list, device: torch.device) -> list[torch.Tensor]:
    if hasattr(head, "assignment_priors"):
        priors = head.assignment_priors(sizes, device)
    else:
        priors = head.prior_generator.grid_priors(sizes, device=device)
    priors = [getattr(level, "tensor", level) for level in priors]
    if any(level.shape[-1] != 4 for level in priors):
        raise ConfigError(
            f"the priors of {type(head).__name__} are points and its assigner needs boxes; with "
            "points use negvision.ATSSFCOSHead"
        )
    return priors


def _valid_flags(
    head: nn.Module, sizes: list, priors: list[torch.Tensor], meta: dict, device: torch.device
) -> torch.Tensor:
    flat = torch.cat(priors)
    if not isinstance(head, AnchorHead):
        # The points of FCOS all take part, those on the padding too.
        return flat.new_ones(len(flat), dtype=torch.bool)
    border = head.train_cfg.get("allowed_border", -1)
    flags = head.prior_generator.valid_flags(sizes, meta["pad_shape"], device)
    return anchor_inside_flags(flat, torch.cat(flags), meta["img_shape"][:2], border)


def _assign(
    assigner,
    priors: list[torch.Tensor],
    valid: torch.Tensor,
    truth: InstanceData,
    ignored: InstanceData | None,
) -> torch.Tensor:
    counts = [len(level) for level in priors]
    arguments = {
        "pred_instances": InstanceData(priors=torch.cat(priors)[valid]),
        "gt_instances": truth,
        "gt_instances_ignore": ignored,
    }
    if "num_level_priors" in inspect.signature(assigner.assign).parameters:
        arguments["num_level_priors"] = [int(flags.sum()) for flags in valid.split(counts)]
    try:
        result = assigner.assign(**arguments)
    except AttributeError as error:
        if "scores" in str(error) or "bboxes" in str(error):
            raise _needs_predictions(assigner) from error
        raise
    gt_inds = result.gt_inds.new_zeros(len(valid))
    gt_inds[valid] = result.gt_inds
    return gt_inds


def _displayable(preprocessor: nn.Module, image: torch.Tensor, shape: tuple) -> np.ndarray:
    """Undo the normalisation; the padding becomes dark grey."""
    image = image.float()
    if getattr(preprocessor, "_enable_normalize", False):
        image = image * preprocessor.std + preprocessor.mean
    # Pictures are loaded in BGR unless the preprocessor turns them, as configs of mmdet have it.
    if not getattr(preprocessor, "_channel_conversion", False):
        image = image.flip(0)
    picture = image.round().clamp(0, 255).byte().permute(1, 2, 0).cpu().numpy().copy()
    picture[shape[0] :] = 40
    picture[:, shape[1] :] = 40
    return picture
