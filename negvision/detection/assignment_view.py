"""Which anchors of an image are positive in training: computed, drawn, and as a hook."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmdet.models.dense_heads import AnchorHead
from mmdet.models.utils import unpack_gt_instances
from mmengine.dataset import pseudo_collate
from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.logging import MessageHub
from mmengine.model import is_model_wrapper
from mmengine.structures import InstanceData
from torch.nn.parallel import DistributedDataParallel

from negvision.detection.assignment_counts import AssignmentCounts
from negvision.detection.heads.dense import valid_priors
from negvision.engine.sheet_hook import check_at_least_one
from negvision.errors import ConfigError
from negvision.registry import HOOKS
from negvision.visualization import contact_sheet, save_image, shown_path
from negvision.visualization.canvas import Canvas
from negvision.visualization.colors import (
    BOX_COLOR,
    IGNORED_COLOR,
    UNMATCHED_COLOR,
    level_color,
)
from negvision.visualization.looking import copy_for_looking, evenly_spaced, seeded
from negvision.visualization.sheet import LegendEntry


@dataclass(frozen=True)
class AssignmentView:
    """An image as the network sees it, and the assignment of its anchors."""

    index: int  # of the image in the dataset
    name: str  # file name of the image
    image: np.ndarray  # (H, W, 3) uint8 RGB: after the pipeline, padded
    image_shape: tuple[int, int]  # height and width without padding
    boxes: torch.Tensor  # (G, 4), x1 y1 x2 y2 in pixels of the image
    labels: torch.Tensor  # (G,) int
    ignored: torch.Tensor  # (M, 4), ignore and crowd boxes
    classes: tuple[str, ...]  # names
    priors: tuple[torch.Tensor, ...]  # anchors of each level, (n_l, 4), finest first
    gt_inds: torch.Tensor  # (A,): 0 negative or not valid, i + 1 of box i, -1 ignored
    valid: torch.Tensor  # (A,) bool: anchors that take part (allowed_border, padding)

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
    def counts(self) -> AssignmentCounts:
        """The positives by size of their box, and by level."""
        return AssignmentCounts.of(self.gt_inds, self.boxes, [len(p) for p in self.priors])

    @property
    def unmatched(self) -> list[int]:
        """Boxes without a positive anchor: training never shows them to the network."""
        return torch.nonzero(self.positives_per_box == 0).flatten().tolist()

    def class_name(self, box: int) -> str:
        """The class of a box, or its number if the dataset has no name for it."""
        label = int(self.labels[box])
        return self.classes[label] if label < len(self.classes) else str(label)


def assignment_views(model: Any, dataset, indices: Iterable[int]) -> Iterator[AssignmentView]:
    """Run images through pipeline, preprocessor and assigner as a training step does.

    Unlike in a step, each image is a batch of its own, padded separately. The sizes of the feature
    maps come from a forward pass of backbone and neck over zeros in evaluation mode, which changes
    neither weights nor statistics of the model.

    Args:
        model: A detector of mmdet whose ``bbox_head`` (or ``rpn_head``) has an assigner that
            needs only anchors.
        dataset: With its pipeline, ending in ``PackDetInputs``; ``indices`` are of its images.

    Raises:
        ConfigError: The head has no assigner, its priors are not boxes, or its assigner needs
            predictions.
        IndexError: An index is out of range.

    Example::

        for view in assignment_views(model, dataset, range(8)):
            print(view.name, view.positives_per_box.tolist(), view.unmatched)
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
            sizes[shape] = _feature_sizes(model, shape)
        priors = _priors(head, sizes[shape], device)
        (truth,), (ignored,), (meta,) = unpack_gt_instances([sample])
        valid = _valid_flags(head, sizes[shape], priors, meta)
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


def find_head(model: Any) -> Any:
    """The head of ``model`` that assigns anchors; ConfigError as in :func:`assignment_views`."""
    for name in ("bbox_head", "rpn_head"):
        head = getattr(model, name, None)
        if head is not None and getattr(head, "assigner", None) is not None:
            break
    else:
        raise ConfigError(
            f"model {type(model).__name__} has no head with an assigner: the head has its own rule "
            "for positives. Heads with an assigner include ATSSHead, RetinaHead and "
            "negvision.ATSSFCOSHead"
        )
    if not hasattr(head, "assignment_priors") and not hasattr(head, "prior_generator"):
        raise ConfigError(f"{type(head).__name__} has no anchors: it assigns predictions to boxes")
    assigner = getattr(head.assigner, "inner", head.assigner)
    if getattr(assigner, "alpha", None) is not None:
        raise _needs_predictions(assigner)
    return head


def _needs_predictions(assigner) -> ConfigError:
    return ConfigError(
        f"{type(assigner).__name__} needs the predictions of a trained network; only assigners "
        "that need nothing but anchors can be shown (ATSSAssigner without alpha, MaxIoUAssigner)"
    )


def _preprocess(model: Any, packed: dict) -> dict:
    # Some batch augmentations read the iteration, which only a running loop sets.
    hub = MessageHub.get_current_instance()
    if hub.get_info("iter") is None:
        hub.update_info("iter", 0)
    with torch.no_grad():
        return model.data_preprocessor(pseudo_collate([packed]), training=True)


def _feature_sizes(model: Any, shape: tuple[int, int]) -> list[tuple[int, int]]:
    device = next(model.parameters()).device
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        with torch.no_grad():
            features = model.extract_feat(torch.zeros(1, 3, *shape, device=device))
    finally:
        # Module by module: frozen stages of a backbone keep their mode.
        for module, mode in modes.items():
            module.training = mode
    return [tuple(feature.shape[-2:]) for feature in features]


def _priors(head: Any, sizes: list, device: torch.device) -> list[torch.Tensor]:
    if hasattr(head, "assignment_priors"):
        priors = head.assignment_priors(sizes, device)
    else:
        priors = head.prior_generator.grid_priors(sizes, device=device)
    priors = [getattr(level, "tensor", level) for level in priors]
    if any(level.shape[-1] != 4 for level in priors):
        raise ConfigError(
            f"the priors of {type(head).__name__} are points, but its assigner needs boxes; for "
            "points use negvision.ATSSFCOSHead"
        )
    return priors


def _valid_flags(head: Any, sizes: list, priors: list[torch.Tensor], meta: dict) -> torch.Tensor:
    flat, valid = torch.cat(priors), None
    # All points of FCOS take part, including those on the padding.
    if isinstance(head, AnchorHead):
        border = head.train_cfg.get("allowed_border", -1)
        valid = valid_priors(head.prior_generator, sizes, [meta], flat, border)
    return flat.new_ones(len(flat), dtype=torch.bool) if valid is None else valid[0]


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
    inner = getattr(assigner, "inner", assigner)
    if "num_level_priors" in inspect.signature(inner.assign).parameters:
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


def _displayable(preprocessor: Any, image: torch.Tensor, shape: tuple) -> np.ndarray:
    """Undo the normalization and color the padding dark gray."""
    image = image.float()
    if getattr(preprocessor, "_enable_normalize", False):
        image = image * preprocessor.std + preprocessor.mean
    # Images are loaded as BGR; most preprocessors convert them to RGB.
    if not getattr(preprocessor, "_channel_conversion", False):
        image = image.flip(0)
    pixels = image.round().clamp(0, 255).byte().permute(1, 2, 0).cpu().numpy().copy()
    pixels[shape[0] :] = 40
    pixels[:, shape[1] :] = 40
    return pixels


def draw_assignment(view: AssignmentView, longest: int | None = None) -> np.ndarray:
    """The image of ``view`` with its boxes and their positive anchors.

    Boxes are white and tagged with their class and number of positives. An anchor is a mark at its
    center and a faint outline in the color of its level. Boxes without positives are red, and
    ignore boxes are dashed. Returns (H, W, 3) uint8, RGB; ``longest`` is as in
    :class:`negvision.visualization.Canvas`.
    """
    canvas = Canvas(view.image, longest)
    for box in view.ignored.tolist():
        canvas.box(box, IGNORED_COLOR, dashed=True, hatched=True)
    counts = view.positives_per_box.tolist()
    for index, box in enumerate(view.boxes.tolist()):
        name = view.class_name(index)
        if counts[index]:
            canvas.box(box, BOX_COLOR, tag=f"{name}: {counts[index]}")
        else:
            canvas.box(box, UNMATCHED_COLOR, width=3, hatched=True, tag=f"{name}: no positive")
    start = 0
    for level, priors in enumerate(view.priors):
        positive = view.gt_inds[start : start + len(priors)] > 0
        spacing = _spacing(priors)
        for anchor in priors[positive].tolist():
            canvas.anchor(anchor, level_color(level), level, spacing)
        start += len(priors)
    return canvas.image()


def drawing_side(view: AssignmentView) -> int:
    """Longer side of a legible drawing: a multiple of the image's, at least 900 pixels."""
    side = max(view.image.shape[:2])
    return side * -(-900 // side)


def _spacing(priors: torch.Tensor) -> float | None:
    """The smallest distance between columns or rows of centers; None for a single anchor."""
    gaps = []
    for low, high in ((0, 2), (1, 3)):
        centers = ((priors[:, low] + priors[:, high]) / 2).unique()
        gaps += centers.diff().tolist()
    return min(gaps, default=None)


def assignment_legend(views: Sequence[AssignmentView]) -> list[LegendEntry]:
    """The legend of drawings of ``views``: boxes, and each level with its anchor size."""
    entries = [
        LegendEntry("box: number of its positives", BOX_COLOR),
        LegendEntry("box without a positive", UNMATCHED_COLOR),
    ]
    if any(len(view.ignored) for view in views):
        entries.append(LegendEntry("ignore box", IGNORED_COLOR, dashed=True))
    for level, size in enumerate(anchor_sizes(views)):
        text = f"level {level}: anchors {size} px" if size else f"level {level}"
        entries.append(LegendEntry(text, level_color(level), level))
    return entries


def anchor_sizes(views: Sequence[AssignmentView]) -> list[str]:
    """Square root of the anchors' area in pixels for each level; ``""`` without anchors."""
    sizes: list[str] = []
    for level in range(max((len(view.priors) for view in views), default=0)):
        sides: set[int] = set()
        for view in views:
            priors = view.priors[level].double()
            area = (priors[:, 2] - priors[:, 0]) * (priors[:, 3] - priors[:, 1])
            sides.update(area.clamp(min=0).sqrt().round().int().unique().tolist())
        ends = sorted({min(sides), max(sides)}) if sides else []
        sizes.append("-".join(str(side) for side in ends))
    return sizes


@HOOKS.register_module()
class AssignmentSheetHook(Hook):
    """Write ``assignments.png`` before training: boxes and their positive anchors by level.

    Shows train images after the pipeline. The hook leaves random states, model and dataset
    unchanged. If the model has no assigner that needs only anchors, it logs a warning instead.

    Args:
        num_images: Images on the sheet, spread evenly over the dataset.
        columns: Images side by side.
        tile_size: Longer side of each image on the sheet, in pixels.

    Raises:
        ValueError: An argument is below 1.

    Example:
        >>> custom_hooks = [dict(type="negvision.AssignmentSheetHook", num_images=8)]
    """

    # After the log lines of the same moment.
    priority = "VERY_LOW"
    file_name = "assignments.png"

    def __init__(self, num_images: int = 8, columns: int = 4, tile_size: int = 448) -> None:
        check_at_least_one(num_images=num_images, columns=columns, tile_size=tile_size)
        self.num_images = num_images
        self.columns = columns
        self.tile_size = tile_size

    def before_train(self, runner) -> None:
        if not is_main_process():
            return
        model = runner.model
        if isinstance(model, DistributedDataParallel):
            model = model.module
        dataset = copy_for_looking(runner.train_dataloader.dataset)
        indices = evenly_spaced(len(dataset), self.num_images)
        try:
            if is_model_wrapper(model):
                # One rank alone cannot run a model whose weights are sharded over all.
                raise ConfigError(f"{type(model).__name__} shards the model")
            with seeded(0):
                views = list(assignment_views(model, dataset, indices))
        except ConfigError as error:
            runner.logger.warning(f"{self.file_name} is not drawn: {error}")
            return
        sheet = contact_sheet(
            [draw_assignment(view, self.tile_size) for view in views],
            [
                f"{view.name}: {len(view.boxes)} boxes, {view.positives_per_box.sum()} positives"
                + (f", {len(view.unmatched)} without" if view.unmatched else "")
                for view in views
            ],
            self.columns,
            "Positive anchors of training images",
            assignment_legend(views),
        )
        path = save_image(Path(runner.work_dir) / self.file_name, sheet)
        runner.logger.info(f"assignments  {shown_path(path)}")
