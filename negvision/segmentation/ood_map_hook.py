"""A hook that draws how far out of distribution each pixel is."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from negvision.data.images.loading import reader_of
from negvision.engine.sheet_hook import SheetHook
from negvision.errors import ConfigError
from negvision.ood.curve import score_curve
from negvision.registry import HOOKS
from negvision.visualization import contact_sheet, save_image, with_legend
from negvision.visualization.heat import draw_heat, heat_legend, shrunk


@dataclass(frozen=True)
class _Maps:
    """Reduced maps (h, w) of one prediction, and its caption."""

    heat: np.ndarray
    truth: np.ndarray | None
    unknown: np.ndarray | None
    caption: str


@HOOKS.register_module()
class OODMapHook(SheetHook):
    """Draw the OOD maps of a segmentor: a sheet in the work dir, and each image of a test.

    ``ood_maps.png`` shows images beside their maps; see
    :class:`negvision.engine.sheet_hook.SheetHook` for when and which. The colors of each map range
    from its 1st to its 99th percentile. True OOD regions are outlined, and with a calibrated
    threshold the predicted ones too, dashed.

    Use it as ``default_hooks.visualization``, where ``negvision test --drawings DIR`` sets
    ``draw`` and ``test_out_dir``: each image of a test then goes to ``DIR/NAME.png``.

    Args:
        num_images: Images on the sheet.
        columns: Images side by side, each with its map.
        tile_size: Longer side of each image on the sheet, in pixels.
        draw: Whether to draw each image of a test.
        test_out_dir: Folder of these drawings; by default ``ood_maps`` in the work dir.

    Raises:
        ValueError: An argument is below 1.
        ConfigError: The predictions have no OOD map.

    Example:
        >>> default_hooks = dict(visualization=dict(type="negvision.OODMapHook", num_images=8))
    """

    file_name = "ood_maps.png"
    label = "OOD maps"

    def __init__(
        self,
        num_images: int = 12,
        columns: int = 2,
        tile_size: int = 400,
        draw: bool = False,
        test_out_dir: str | None = None,
    ) -> None:
        super().__init__(num_images, columns, tile_size)
        self.draw = draw
        self.test_out_dir = test_out_dir
        self._threshold: float | None = None
        self._read = reader_of(None)
        self._taken: set[str] = set()

    def after_test_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        super().after_test_iter(runner, batch_idx, data_batch, outputs)
        if self.draw:
            folder = Path(self.test_out_dir or Path(runner.work_dir) / "ood_maps")
            for sample in outputs or ():
                self._draw_one(folder, sample)

    def keep(self, sample) -> _Maps:
        """The maps, at most ``tile_size`` pixels long."""
        return _maps(sample, self.tile_size)

    def sheet(self, dataset, shown: Mapping[str, tuple[dict, _Maps]]) -> np.ndarray:
        """See the base class."""
        maps = {path: kept for path, (_, kept) in shown.items()}
        return contact_sheet(
            [self._drawn(path, kept, self.tile_size) for path, kept in maps.items()],
            [kept.caption for kept in maps.values()],
            self.columns,
            "OOD score of each pixel; lighter is more out of distribution",
            heat_legend(
                any(kept.truth is not None for kept in maps.values()),
                any(kept.unknown is not None for kept in maps.values()),
            ),
        )

    def _start(self, runner, dataset) -> None:
        super()._start(runner, dataset)
        self._taken = set()
        self._read = reader_of(dataset)
        thresholds = (getattr(part, "ood_threshold", None) for part in runner.model.modules())
        self._threshold = next((value for value in thresholds if value is not None), None)

    def _draw_one(self, folder: Path, sample) -> None:
        maps = _maps(sample)
        drawn = with_legend(
            self._drawn(sample.img_path, maps),
            maps.caption,
            heat_legend(maps.truth is not None, maps.unknown is not None),
        )
        path = Path(sample.img_path)
        # Two folders, such as cities, may have images of the same name.
        name = path.stem if path.stem not in self._taken else f"{path.parent.name}_{path.stem}"
        self._taken.add(name)
        save_image(folder / f"{name}.png", drawn)

    def _drawn(self, path: str, maps: _Maps, longest: int | None = None) -> np.ndarray:
        image = self._read(path)
        return draw_heat(image, maps.heat, maps.truth, maps.unknown, self._threshold, longest)


def _maps(sample, longest: int | None = None) -> _Maps:
    if "ood_map" not in sample:
        raise ConfigError(
            f"{sample.img_path}: OODMapHook draws OOD maps, but the prediction has none. Set the "
            'type of the model to "negvision.AbeTEncoderDecoder" or "negvision.OODEncoderDecoder"'
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
    optional = (
        values if values is None else shrunk(values, longest) for values in (truth, unknown)
    )
    return _Maps(shrunk(heat.numpy(), longest), *optional, caption)
