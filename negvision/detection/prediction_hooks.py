"""Hooks that draw the detections of a validation or test, and write them as COCO results."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from mmengine.dist import collect_results, is_main_process
from mmengine.hooks import Hook

from negvision.data.formats.coco_masks import from_run_lengths, to_run_lengths
from negvision.data.images.loading import reader_of
from negvision.data.score_threshold import FIXED, shown_from
from negvision.engine.sheet_hook import SheetHook
from negvision.errors import ConfigError, UserError, counted
from negvision.files import atomic_write
from negvision.registry import HOOKS
from negvision.visualization import contact_sheet, save_image
from negvision.visualization.boxes import draw_predictions, prediction_legend


class _Detections(NamedTuple):
    """What is drawn of one image."""

    boxes: np.ndarray
    labels: np.ndarray
    scores: np.ndarray
    unknown: np.ndarray | None
    masks: list[dict] | None  # as run lengths, which are small enough to be sent between ranks

    @classmethod
    def of(cls, found) -> _Detections:
        found = found.cpu()
        unknown = found.is_ood.numpy() if "is_ood" in found else None
        masks = to_run_lengths(found.masks.numpy()) if "masks" in found else None
        columns = (found.bboxes, found.labels, found.scores)
        return cls(*(column.numpy() for column in columns), unknown, masks)

    def at_least(self, score: float) -> _Detections:
        rows = np.flatnonzero(self.scores >= score)
        unknown = None if self.unknown is None else self.unknown[rows]
        masks = None if self.masks is None else [self.masks[row] for row in rows]
        return _Detections(self.boxes[rows], self.labels[rows], self.scores[rows], unknown, masks)

    def draw(self, image: np.ndarray, classes, **options) -> np.ndarray:
        masks = None if self.masks is None else from_run_lengths(self.masks)
        return draw_predictions(
            image,
            self.boxes,
            self.labels,
            self.scores,
            classes,
            unknown=self.unknown,
            masks=masks,
            **options,
        )


@HOOKS.register_module()
class PredictionSheetHook(SheetHook):
    """Write ``predictions.png``: ground truth and detections of some images.

    See :class:`negvision.engine.sheet_hook.SheetHook` for when and which. Ground truth comes from
    the annotations, at the size of the original image. If the model has an OOD threshold,
    detections above it are dashed and tagged as unknown.

    Args:
        num_images: Images on the sheet.
        score_thr: Detections with a lower score are left out, in [0, 1]. None for the threshold
            with the best F1, see :class:`negvision.ScoreThresholdHook`; the title says which.
        columns: Images side by side.
        tile_size: Longer side of each image on the sheet, in pixels.

    Raises:
        ValueError: An argument is below 1, or ``score_thr`` is outside [0, 1].

    Example:
        >>> custom_hooks = [dict(type="negvision.PredictionSheetHook", score_thr=0.4)]
    """

    file_name = "predictions.png"
    label = "predictions"

    def __init__(
        self,
        num_images: int = 16,
        score_thr: float | None = None,
        columns: int = 4,
        tile_size: int = 448,
    ) -> None:
        super().__init__(num_images, columns, tile_size)
        self.score_thr = _checked_score(score_thr)
        self._shown = FIXED

    def keep(self, sample) -> _Detections:
        """All detections: the threshold is known after the evaluation."""
        return _Detections.of(sample.pred_instances)

    def _write(self, runner, dataset) -> None:
        self._shown = shown_from(self.score_thr, getattr(runner, "score_threshold", None))
        super()._write(runner, dataset)

    def sheet(self, dataset, shown: Mapping[str, tuple[dict, Any]]) -> np.ndarray:
        """See the base class."""
        classes = dataset.metainfo.get("classes", ())
        images, captions, has_ignored, has_unknown = [], [], False, False
        read = reader_of(dataset)
        for path, (info, everything) in shown.items():
            found = everything.at_least(self._shown.value)
            has_unknown |= found.unknown is not None
            instances = info.get("instances", [])
            truth = [item["bbox"] for item in instances if not item.get("ignore_flag")]
            ignored = [item["bbox"] for item in instances if item.get("ignore_flag")]
            has_ignored |= bool(ignored)
            boxes = {"truth": truth, "ignored": ignored}
            images.append(found.draw(read(path), classes, longest=self.tile_size, **boxes))
            name, count = os.path.basename(path), len(found.boxes)
            captions.append(f"{name}: {counted(len(truth), 'object')}, {count} found")
        title = f"Detections with a score of at least {self._shown}"
        return contact_sheet(
            images, captions, self.columns, title, prediction_legend(has_ignored, has_unknown)
        )


@HOOKS.register_module()
class DrawDetectionsHook(Hook):
    """Draw each test image with its detections, as requested by ``negvision test --drawings``.

    If the model has an OOD threshold, detections above it are dashed and tagged as unknown.

    Args:
        draw: Whether to draw.
        score_thr: Detections with a lower score are left out, in [0, 1]. None for the threshold
            of the checkpoint, or 0.3 if it has none.
        test_out_dir: Folder of the drawings, which keep the names of their images; needed if
            ``draw`` is true.

    Raises:
        ValueError: ``score_thr`` is outside [0, 1].

    Example:
        >>> default_hooks = dict(visualization=dict(type="negvision.DrawDetectionsHook"))
    """

    def __init__(
        self, draw: bool = False, score_thr: float | None = None, test_out_dir: str | None = None
    ) -> None:
        self.draw = draw
        self.score_thr = _checked_score(score_thr)
        self.test_out_dir = test_out_dir
        self._shown_from = 0.0
        self._taken: set[str] = set()
        self._read = reader_of(None)

    def before_test(self, runner) -> None:
        if self.draw and not self.test_out_dir:
            raise UserError("DrawDetectionsHook: draw=True needs test_out_dir, a folder")
        self._taken = set()
        if self.draw:
            self._read = reader_of(runner.test_dataloader.dataset)
            shown = shown_from(self.score_thr, getattr(runner, "score_threshold", None))
            self._shown_from = shown.value
            runner.logger.info(f"drawn from score {shown}")

    def after_test_iter(self, runner, batch_idx, data_batch=None, outputs=()) -> None:
        if not self.draw:
            return
        classes = runner.test_dataloader.dataset.metainfo.get("classes", ())
        for sample in outputs or ():
            found = _Detections.of(sample.pred_instances).at_least(self._shown_from)
            save_image(self._path(sample), found.draw(self._read(sample.img_path), classes))

    def _path(self, sample) -> Path:
        """A unique name for each image, also if two folders have one of the same name."""
        path = Path(sample.img_path)
        name = path.name if path.suffix in (".png", ".jpg", ".jpeg") else f"{path.stem}.jpg"
        if name in self._taken:
            name = f"{sample.img_id}_{name}"
        self._taken.add(name)
        return Path(self.test_out_dir) / name


class DetectionsWriter(Hook):
    """Write the detections of a test as a COCO results file.

    The file is a list of ``{"image_id", "category_id", "bbox", "score"}`` with ``bbox`` as
    ``[left, top, width, height]`` in pixels of the original image, readable by pycocotools'
    ``loadRes``. Category ids are those of the dataset (``cat_ids``) if it has them, else the
    labels. ``segmentation`` is added for models with masks, ``ood_score`` and, with a threshold,
    ``is_ood`` for heads with OOD scores, and ``file_name`` where several data sets are
    concatenated, whose image ids may be the same.

    Args:
        path: The file; parent folders are created.

    Raises:
        ConfigError: The model predicts no boxes.
        UserError: The file cannot be written.
    """

    priority = "LOW"

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self._images: list[list[dict]] = []

    def before_test_epoch(self, runner) -> None:
        self._images = []

    def after_test_iter(self, runner, batch_idx, data_batch=None, outputs=()) -> None:
        dataset = runner.test_dataloader.dataset
        several = hasattr(dataset, "datasets")
        # The first of several concatenated sets is the in-distribution one.
        cat_ids = getattr(getattr(dataset, "datasets", [dataset])[0], "cat_ids", None)
        for sample in outputs or ():
            if "pred_instances" not in sample:
                raise ConfigError(
                    f"--out {self.path} writes detections, and this model predicts "
                    f"{', '.join(sorted(sample.keys()))}. negvision predict writes label maps and "
                    "embeddings; leave out --out to evaluate the model"
                )
            predicted = sample.pred_instances
            extras = {
                name: predicted[name].tolist()
                for name in ("ood_score", "is_ood")
                if name in predicted
            }
            if "masks" in predicted:
                extras["segmentation"] = to_run_lengths(predicted.masks.cpu().numpy())
            columns = (predicted.bboxes, predicted.scores, predicted.labels)
            rows = zip(*(column.tolist() for column in columns), strict=True)
            self._images.append(
                [
                    {
                        "image_id": sample.img_id,
                        "category_id": cat_ids[label] if cat_ids else label,
                        "bbox": [left, top, right - left, bottom - top],
                        "score": score,
                        **({"file_name": sample.img_path} if several else {}),
                        **{name: values[row] for name, values in extras.items()},
                    }
                    for row, ((left, top, right, bottom), score, label) in enumerate(rows)
                ]
            )

    def after_test_epoch(self, runner, metrics=None) -> None:
        size = len(runner.test_dataloader.dataset)
        images = collect_results(self._images, size, device="cpu")
        if not is_main_process():
            return
        detections = [entry for image in images for entry in image]
        with atomic_write(self.path) as partial:
            partial.write_text(json.dumps(detections))
        runner.logger.info(f"{len(detections)} detections of {size} images in {self.path}")


def _checked_score(score_thr: float | None) -> float | None:
    if score_thr is not None and not 0 <= score_thr <= 1:
        raise ValueError(f"score_thr must be from 0 to 1, got {score_thr}")
    return score_thr
