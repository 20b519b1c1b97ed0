"""Hooks that leave pictures a person can judge a run by."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import mmcv
from mmengine.dist import all_gather_object, is_main_process
from mmengine.fileio import get
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from torch.nn.parallel import DistributedDataParallel

from negvision.detection.assignment_view import assignment_views
from negvision.detection.visualization.assignments import assignment_legend, draw_assignment
from negvision.detection.visualization.predictions import draw_predictions, prediction_legend
from negvision.errors import ConfigError
from negvision.registry import HOOKS
from negvision.visualization import contact_sheet, save_picture, shown_path
from negvision.visualization.looking import copy_for_looking, evenly_spaced, seeded


class _SheetHook(Hook):
    # After the metrics and the log lines of the same moment.
    priority = "VERY_LOW"

    def __init__(self, num_images: int, columns: int, tile_size: int) -> None:
        for name, value in {
            "num_images": num_images,
            "columns": columns,
            "tile_size": tile_size,
        }.items():
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        self.num_images = num_images
        self.columns = columns
        self.tile_size = tile_size


@HOOKS.register_module()
class PredictionSheetHook(_SheetHook):
    """Write ``predictions.png`` into the work dir: ground truth and detections of some images.

    The sheet is written after each validation and test, over the one before; its path is shown
    once, at the end of training or test. The images are spread evenly over the dataset, the same
    ones each time. Ground truth comes from the annotations, at the size of the original image.
    Where the model has an OOD threshold, detections above it are dashed and called unknown.

    Args:
        num_images: Images on the sheet.
        score_thr: Detections of a lower score are left out.
        columns: Images side by side.
        tile_size: Longer side of each image on the sheet, in pixels.

    Raises:
        ValueError: an argument below 1, or ``score_thr`` outside of [0, 1].

    Example:
        >>> custom_hooks = [dict(type="negvision.PredictionSheetHook", score_thr=0.4)]
    """

    def __init__(
        self,
        num_images: int = 16,
        score_thr: float = 0.3,
        columns: int = 4,
        tile_size: int = 448,
    ) -> None:
        super().__init__(num_images, columns, tile_size)
        if not 0 <= score_thr <= 1:
            raise ValueError(f"score_thr must be from 0 to 1, got {score_thr}")
        self.score_thr = score_thr
        self._truth: dict = {}
        self._seen: dict = {}
        self._path: Path | None = None

    def before_val_epoch(self, runner) -> None:
        self._start(runner.val_dataloader.dataset)

    def before_test_epoch(self, runner) -> None:
        self._start(runner.test_dataloader.dataset)

    def after_val_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        self._keep(outputs)

    def after_test_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        self._keep(outputs)

    def after_val_epoch(self, runner, metrics=None) -> None:
        self._write(runner, runner.val_dataloader.dataset)
        if runner._train_loop is None or isinstance(runner._train_loop, Mapping):
            self._tell(runner)

    def after_test_epoch(self, runner, metrics=None) -> None:
        self._write(runner, runner.test_dataloader.dataset)
        self._tell(runner)

    def after_train(self, runner) -> None:
        self._tell(runner)

    def _start(self, dataset) -> None:
        self._seen = {}
        chosen = [
            dataset.get_data_info(index) for index in evenly_spaced(len(dataset), self.num_images)
        ]
        # By path: in data sets that were concatenated two images may share an id.
        self._truth = {info["img_path"]: info for info in chosen}

    def _keep(self, samples) -> None:
        for sample in samples:
            if sample.img_path in self._truth:
                found = sample.pred_instances
                found = found[found.scores >= self.score_thr]
                self._seen[sample.img_path] = (
                    found.bboxes.cpu().numpy(),
                    found.labels.cpu().numpy(),
                    found.scores.cpu().numpy(),
                    found.is_ood.cpu().numpy() if "is_ood" in found else None,
                )

    def _write(self, runner, dataset) -> None:
        # Each image was predicted by one rank, or by two where the sampler fills up the last batch.
        ranks = all_gather_object(self._seen)
        if not is_main_process():
            return
        seen = {path: found for rank in ranks for path, found in rank.items()}
        classes = dataset.metainfo.get("classes", ())
        pictures, captions, has_ignored, has_unknown = [], [], False, False
        for path, info in self._truth.items():
            if path not in seen:
                continue
            boxes, labels, scores, unknown = seen[path]
            has_unknown |= unknown is not None
            instances = info.get("instances", [])
            truth = [item["bbox"] for item in instances if not item.get("ignore_flag")]
            ignored = [item["bbox"] for item in instances if item.get("ignore_flag")]
            has_ignored |= bool(ignored)
            image = mmcv.imfrombytes(get(path), channel_order="rgb")
            pictures.append(
                draw_predictions(
                    image, boxes, labels, scores, classes, truth, ignored, self.tile_size, unknown
                )
            )
            captions.append(f"{os.path.basename(path)}: {len(truth)} objects, {len(boxes)} found")
        title = f"Detections with a score of at least {self.score_thr:g}"
        sheet = contact_sheet(
            pictures, captions, self.columns, title, prediction_legend(has_ignored, has_unknown)
        )
        self._path = save_picture(Path(runner.work_dir) / "predictions.png", sheet)

    def _tell(self, runner) -> None:
        if self._path is not None:
            runner.logger.info(f"predictions  {shown_path(self._path)}")
            self._path = None


@HOOKS.register_module()
class AssignmentSheetHook(_SheetHook):
    """Write ``assignments.png`` before training: boxes and their positive anchors by level.

    Shows images of the train set after its pipeline. The run is not touched: random states, the
    model and the dataset are as they were when the hook is done.

    Args:
        num_images: Images on the sheet, spread evenly over the dataset.
        columns: Images side by side.
        tile_size: Longer side of each image on the sheet, in pixels.

    A model without an assigner that works on anchors alone is trained all the same, with a
    warning in the place of the sheet.

    Raises:
        ValueError: an argument below 1.

    Example:
        >>> custom_hooks = [dict(type="negvision.AssignmentSheetHook", num_images=8)]
    """

    name = "assignments.png"

    def __init__(self, num_images: int = 8, columns: int = 4, tile_size: int = 448) -> None:
        super().__init__(num_images, columns, tile_size)

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
                # One rank alone cannot run a model whose weights are spread over all.
                raise ConfigError(f"{type(model).__name__} shards the model")
            with seeded(0):
                views = list(assignment_views(model, dataset, indices))
        except ConfigError as error:
            runner.logger.warning(f"no {self.name} is drawn: {error}")
            return
        sheet = contact_sheet(
            [draw_assignment(view, self.tile_size) for view in views],
            [caption_of(view) for view in views],
            self.columns,
            "Positive anchors of training images",
            assignment_legend(views),
        )
        path = save_picture(Path(runner.work_dir) / self.name, sheet)
        runner.logger.info(f"assignments  {shown_path(path)}")


def caption_of(view) -> str:
    """What stands below the picture of an assignment."""
    text = f"{view.name}: {len(view.boxes)} boxes, {int(view.positives_per_box.sum())} positives"
    return text + (f", {len(view.unmatched)} without" if view.unmatched else "")
