"""Hooks that draw how far out of distribution each pixel is."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import cv2
import mmcv
import numpy as np
from mmengine.dist import all_gather_object, is_main_process
from mmengine.fileio import get
from mmengine.hooks import Hook

from negvision.errors import ConfigError
from negvision.ood.curve import score_curve
from negvision.registry import HOOKS
from negvision.visualization import contact_sheet, save_picture, shown_path, with_legend
from negvision.visualization.heat import draw_heat, heat_legend
from negvision.visualization.looking import evenly_spaced


@dataclass(frozen=True)
class _Seen:
    """What is drawn of one prediction: maps (h, w), reduced, and what the caption says."""

    heat: np.ndarray
    truth: np.ndarray | None
    unknown: np.ndarray | None
    caption: str


@HOOKS.register_module()
class OODMapHook(Hook):
    """Draw the OOD maps of a segmentor: a sheet in the work dir, and one picture an image.

    ``ood_maps.png`` shows images beside their maps. It is written after each validation and test,
    over the one before; its path is shown once, at the end of training or test. The images are
    spread evenly over the dataset, the same ones each time. The colours of each map go from its
    1st to its 99th percentile. OOD regions of the truth are outlined, and where the checkpoint has
    a threshold the predicted ones, dashed.

    It stands at ``default_hooks.visualization``, where ``tools/test.py --show-dir DIR`` sets
    ``draw`` and ``test_out_dir``: each image of a test then goes to ``DIR/NAME.png``.

    Args:
        num_images: Images on the sheet.
        columns: Images side by side, each with its map.
        tile_size: Longer side of each image on the sheet, in pixels.
        draw: Whether to write a picture of each image of a test.
        test_out_dir: Folder of these pictures; by default ``ood_maps`` in the work dir.

    Raises:
        ValueError: An argument below 1.
        ConfigError: The predictions have no OOD map.

    Example:
        >>> default_hooks = dict(visualization=dict(type="negvision.OODMapHook", num_images=8))
    """

    # After the metrics and the log lines of the same moment.
    priority = "VERY_LOW"

    def __init__(
        self,
        num_images: int = 12,
        columns: int = 2,
        tile_size: int = 400,
        draw: bool = False,
        test_out_dir: str | None = None,
    ) -> None:
        sizes = {"num_images": num_images, "columns": columns, "tile_size": tile_size}
        for name, value in sizes.items():
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        self.num_images = num_images
        self.columns = columns
        self.tile_size = tile_size
        self.draw = draw
        self.test_out_dir = test_out_dir
        self._chosen: dict[str, None] = {}
        self._seen: dict[str, _Seen] = {}
        self._threshold: float | None = None
        self._path: Path | None = None
        self._taken: set[str] = set()

    def before_val_epoch(self, runner) -> None:
        self._start(runner, runner.val_dataloader.dataset)

    def before_test_epoch(self, runner) -> None:
        self._start(runner, runner.test_dataloader.dataset)

    def after_val_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        self._keep(outputs)

    def after_test_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        self._keep(outputs)
        if self.draw:
            folder = Path(self.test_out_dir or Path(runner.work_dir) / "ood_maps")
            for sample in outputs:
                self._draw_one(folder, sample)

    def after_val_epoch(self, runner, metrics=None) -> None:
        self._write(runner)
        if runner._train_loop is None or isinstance(runner._train_loop, Mapping):
            self._tell(runner)

    def after_test_epoch(self, runner, metrics=None) -> None:
        self._write(runner)
        self._tell(runner)

    def after_train(self, runner) -> None:
        self._tell(runner)

    def _start(self, runner, dataset) -> None:
        self._seen, self._taken = {}, set()
        chosen = evenly_spaced(len(dataset), self.num_images)
        self._chosen = dict.fromkeys(dataset.get_data_info(index)["img_path"] for index in chosen)
        thresholds = (getattr(part, "ood_threshold", None) for part in runner.model.modules())
        self._threshold = next((value for value in thresholds if value is not None), None)

    def _keep(self, samples) -> None:
        for sample in samples:
            if sample.img_path in self._chosen:
                self._seen[sample.img_path] = _seen(sample, self.tile_size)

    def _draw_one(self, folder: Path, sample) -> None:
        seen = _seen(sample)
        picture = with_legend(
            self._picture(sample.img_path, seen),
            seen.caption,
            heat_legend(seen.truth is not None, seen.unknown is not None),
        )
        path = Path(sample.img_path)
        # Two folders, such as cities, may have an image of the same name.
        name = path.stem if path.stem not in self._taken else f"{path.parent.name}_{path.stem}"
        self._taken.add(name)
        save_picture(folder / f"{name}.png", picture)

    def _picture(self, path: str, seen: _Seen, longest: int | None = None) -> np.ndarray:
        image = mmcv.imfrombytes(get(path), channel_order="rgb")
        return draw_heat(image, seen.heat, seen.truth, seen.unknown, self._threshold, longest)

    def _write(self, runner) -> None:
        # Each image was predicted by one rank, or by two where the sampler fills up the last batch.
        ranks = all_gather_object(self._seen)
        if not is_main_process():
            return
        seen = {path: found for rank in ranks for path, found in rank.items()}
        shown = [path for path in self._chosen if path in seen]
        sheet = contact_sheet(
            [self._picture(path, seen[path], self.tile_size) for path in shown],
            [seen[path].caption for path in shown],
            self.columns,
            "OOD score of each pixel; lighter is more out of distribution",
            heat_legend(
                any(seen[path].truth is not None for path in shown),
                any(seen[path].unknown is not None for path in shown),
            ),
        )
        self._path = save_picture(Path(runner.work_dir) / "ood_maps.png", sheet)

    def _tell(self, runner) -> None:
        if self._path is not None:
            runner.logger.info(f"OOD maps  {shown_path(self._path)}")
            self._path = None


def _seen(sample, longest: int | None = None) -> _Seen:
    if "ood_map" not in sample:
        raise ConfigError(
            f"{sample.img_path}: OODMapHook draws OOD maps, and the prediction has none. Give the "
            'model type="negvision.AbeTEncoderDecoder" or "negvision.OODEncoderDecoder"'
        )
    heat = sample.ood_map.data[0].float().cpu()
    unknown = sample.ood_mask.data[0].cpu().numpy() if "ood_mask" in sample else None
    truth, caption = None, os.path.basename(sample.img_path)
    if "gt_ood_map" in sample:
        labels = sample.gt_ood_map.data[0].cpu()
        truth, valid = (labels == 1).numpy(), labels != 255
        caption += f": {truth.mean():.1%} OOD"
        if truth.any() and (labels == 0).any():
            auroc = score_curve(heat[valid], labels[valid] == 1).auroc()
            caption += f", AUROC {auroc:.3f}"
    return _Seen(
        _shrunk(heat.numpy(), longest), _shrunk(truth, longest), _shrunk(unknown, longest), caption
    )


def _shrunk(values: np.ndarray | None, longest: int | None) -> np.ndarray | None:
    if values is None or longest is None or max(values.shape) <= longest:
        return values
    factor = longest / max(values.shape)
    size = tuple(max(round(side * factor), 1) for side in values.shape[::-1])
    if values.dtype == bool:
        # A region of one pixel stays visible.
        return cv2.resize(values.astype(np.float32), size, interpolation=cv2.INTER_AREA) > 0
    return cv2.resize(values, size, interpolation=cv2.INTER_AREA)
