"""Base class of hooks that draw the predictions of some images on one sheet."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.dist import all_gather_object, is_main_process
from mmengine.hooks import Hook

from negvision.visualization import save_image, shown_path
from negvision.visualization.looking import evenly_spaced


class SheetHook(Hook):
    """Draws predictions of the same images, spread evenly over the dataset, on one sheet.

    The sheet goes to the work dir after each validation and test and replaces the previous one.
    Its path is logged once, at the end of training or test. Subclasses set ``file_name`` and
    ``label`` and implement :meth:`keep` and :meth:`sheet`.

    Args:
        num_images: Images on the sheet.
        columns: Images side by side.
        tile_size: Longer side of each image on the sheet, in pixels.

    Raises:
        ValueError: An argument is below 1.
    """

    # After the metrics and the log lines of the same moment.
    priority = "VERY_LOW"
    file_name = ""
    label = ""

    def __init__(self, num_images: int, columns: int, tile_size: int) -> None:
        check_at_least_one(num_images=num_images, columns=columns, tile_size=tile_size)
        self.num_images = num_images
        self.columns = columns
        self.tile_size = tile_size
        self._chosen: dict[str, dict] = {}
        self._seen: dict[str, Any] = {}
        self._path: Path | None = None

    def keep(self, sample) -> Any:
        """What the sheet needs of a predicted sample; it is sent between ranks."""
        raise NotImplementedError

    def sheet(self, dataset, shown: Mapping[str, tuple[dict, Any]]) -> np.ndarray:
        """The sheet, (H, W, 3) uint8 RGB.

        ``shown`` has the path of each image with its data info and the result of :meth:`keep`.
        """
        raise NotImplementedError

    def before_val_epoch(self, runner) -> None:
        self._start(runner, runner.val_dataloader.dataset)

    def before_test_epoch(self, runner) -> None:
        self._start(runner, runner.test_dataloader.dataset)

    def after_val_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        for sample in outputs or ():
            if sample.img_path in self._chosen:
                self._seen[sample.img_path] = self.keep(sample)

    after_test_iter = after_val_iter

    def after_val_epoch(self, runner, metrics=None) -> None:
        self._write(runner, runner.val_dataloader.dataset)
        if runner._train_loop is None or isinstance(runner._train_loop, Mapping):
            self._log_path(runner)

    def after_test_epoch(self, runner, metrics=None) -> None:
        self._write(runner, runner.test_dataloader.dataset)
        self._log_path(runner)

    def after_train(self, runner) -> None:
        self._log_path(runner)

    def _start(self, runner, dataset) -> None:
        self._seen = {}
        chosen = map(dataset.get_data_info, evenly_spaced(len(dataset), self.num_images))
        # By path: two images of concatenated data sets may share an id.
        self._chosen = {info["img_path"]: info for info in chosen}

    def _write(self, runner, dataset) -> None:
        # Each image was predicted by one rank, or by two if the sampler fills the last batch.
        ranks = all_gather_object(self._seen)
        if not is_main_process():
            return
        seen = {path: kept for rank in ranks for path, kept in rank.items()}
        shown = {path: (info, seen[path]) for path, info in self._chosen.items() if path in seen}
        sheet = self.sheet(dataset, shown)
        self._path = save_image(Path(runner.work_dir) / self.file_name, sheet)

    def _log_path(self, runner) -> None:
        if self._path is not None:
            runner.logger.info(f"{self.label}  {shown_path(self._path)}")
            self._path = None


def check_at_least_one(**values: int) -> None:
    """Raise ValueError naming the first of ``values`` below 1."""
    for name, value in values.items():
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")
