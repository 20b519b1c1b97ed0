"""Validations and tests of a detector in tiles of large images."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from mmengine.hooks import Hook
from mmengine.structures import InstanceData

from negvision.data.images.loading import reader_of
from negvision.data.images.tiles import Tiles
from negvision.engine.config.model_parts import replace_method, unwrapped
from negvision.errors import ConfigError
from negvision.inference.exported_network import ExportedNetwork
from negvision.inference.runtime.model import ExportedModel
from negvision.inference.runtime.tiled import predict_in_tiles
from negvision.inference.torch_model import TorchModel
from negvision.registry import HOOKS


@HOOKS.register_module()
class TiledEvaluationHook(Hook):
    """Let a detector predict the images of validations and tests in overlapping tiles.

    Each tile runs through the test pipeline of the config, and the boxes are joined to those of the
    image (:func:`negvision.inference.runtime.tiled.join`), so metrics are of whole images. The
    options ``--tiles`` of ``negvision train`` and ``test`` add this hook; models that were trained
    with it predict in the same tiles.

    Args:
        tiles: "SIZE[:OVERLAP[:MERGE]]"; see :class:`negvision.data.images.tiles.Tiles`.

    Raises:
        ConfigError: ``tiles`` cannot be read, or the model is no detector of boxes.

    Example:
        >>> custom_hooks = [dict(type="negvision.TiledEvaluationHook", tiles="640:0.2")]
    """

    def __init__(self, tiles: str | int) -> None:
        found = Tiles.of(tiles)
        if found is None:
            raise ConfigError("negvision.TiledEvaluationHook: tiles is none; take the hook out")
        self.tiles = found
        self._undo: Callable[[], None] | None = None

    def before_run(self, runner) -> None:
        """Refuse, before any training, a model that cannot predict in tiles."""
        self._predictor(runner)

    def before_val_epoch(self, runner) -> None:
        self._begin(runner, "val_step", runner.val_dataloader)

    def before_test_epoch(self, runner) -> None:
        self._begin(runner, "test_step", runner.test_dataloader)

    def after_val_epoch(self, runner, metrics=None) -> None:
        self._end()

    def after_test_epoch(self, runner, metrics=None) -> None:
        self._end()

    def _begin(self, runner, name: str, loader: Any) -> None:
        self._end()  # of an evaluation that failed
        predictor, read = self._predictor(runner), reader_of(loader.dataset)

        def step(data: dict) -> list:
            samples = data["data_samples"]
            for sample in samples:
                pixels = np.ascontiguousarray(read(sample.img_path)[..., ::-1])
                found = predict_in_tiles(predictor.predict, pixels, self.tiles, len(samples))
                columns = (found.boxes, found.scores, found.labels)
                boxes, scores, labels = (torch.from_numpy(column.copy()) for column in columns)
                sample.pred_instances = InstanceData(bboxes=boxes, scores=scores, labels=labels)
            return samples

        self._undo = replace_method(unwrapped(runner.model), name, step)

    def _predictor(self, runner) -> TorchModel | ExportedModel:
        """What predicts tiles, with the model's own step: this hook replaces it."""
        model: Any = unwrapped(runner.model)
        if isinstance(model, ExportedNetwork):
            predictor: TorchModel | ExportedModel = model.exported
        else:
            predictor = TorchModel(runner.cfg, model)
            predictor.model = SimpleNamespace(test_step=model.test_step)
        if predictor.task != "detection" or predictor.ood_score is not None:
            raise ConfigError(
                f"negvision.TiledEvaluationHook (--tiles {self.tiles}): {type(model).__name__} is "
                "no detector, or has OOD scores, which are evaluated on whole images: --tiles none"
            )
        return predictor

    def _end(self) -> None:
        if self._undo is not None:
            self._undo()
            self._undo = None
