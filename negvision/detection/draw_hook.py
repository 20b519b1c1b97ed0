"""Draw the detections of a test, one picture an image."""

from __future__ import annotations

from pathlib import Path

import mmcv
from mmengine.fileio import get
from mmengine.hooks import Hook

from negvision.detection.visualization.predictions import draw_predictions
from negvision.errors import UserError
from negvision.registry import HOOKS
from negvision.visualization import save_picture


@HOOKS.register_module()
class DrawDetectionsHook(Hook):
    """Write a picture of each test image with its detections; ``tools/test.py --show-dir`` asks.

    Where the model has an OOD threshold, detections above it are dashed and called unknown.

    Args:
        draw: Whether to draw at all.
        score_thr: Detections of a lower score are left out, in [0, 1].
        test_out_dir: Folder of the pictures, which keep the names of their images; needed where
            ``draw`` is true.

    Raises:
        ValueError: ``score_thr`` is out of its range.

    Example:
        >>> default_hooks = dict(visualization=dict(type="negvision.DrawDetectionsHook"))
    """

    def __init__(
        self, draw: bool = False, score_thr: float = 0.3, test_out_dir: str | None = None
    ) -> None:
        if not 0 <= score_thr <= 1:
            raise ValueError(f"score_thr must be from 0 to 1, got {score_thr}")
        self.draw = draw
        self.score_thr = score_thr
        self.test_out_dir = test_out_dir
        self._taken: set[str] = set()

    def before_test(self, runner) -> None:
        if self.draw and not self.test_out_dir:
            raise UserError("DrawDetectionsHook: draw=True needs test_out_dir, a folder")
        self._taken = set()

    def after_test_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        if not self.draw:
            return
        classes = runner.test_dataloader.dataset.metainfo.get("classes", ())
        for sample in outputs:
            found = sample.pred_instances
            found = found[found.scores >= self.score_thr].cpu()
            picture = draw_predictions(
                mmcv.imfrombytes(get(sample.img_path), channel_order="rgb"),
                found.bboxes.numpy(),
                found.labels.numpy(),
                found.scores.numpy(),
                classes,
                unknown=found.is_ood.numpy() if "is_ood" in found else None,
            )
            save_picture(self._path(sample), picture)

    def _path(self, sample) -> Path:
        """A name of its own for each image, also where two folders have one of the same name."""
        path = Path(sample.img_path)
        name = path.name if path.suffix in (".png", ".jpg", ".jpeg") else f"{path.stem}.jpg"
        if name in self._taken:
            name = f"{sample.img_id}_{name}"
        self._taken.add(name)
        return Path(self.test_out_dir) / name
