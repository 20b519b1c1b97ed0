"""One class for a model in whatever form it is there: exported, or a config with a checkpoint."""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from negvision.errors import CheckpointError, ConfigError, UserError
from negvision.inference.devices import providers_of
from negvision.inference.runtime import Detections, Embedding, ExportedModel
from negvision.inference.runtime.images import Source, decode
from negvision.inference.runtime.results import Result


class Inferencer:
    """A model, ready to predict.

    Args:
        model: An exported model (``.onnx``), or a config.
        checkpoint: Weights for the config; an exported model has its own.
        device: As torch names it: "cpu", "cuda", "cuda:1".
        score_threshold: Boxes of a lower score are left out. None leaves none out beyond those that
            ``test_cfg`` of the model does.
        ood_threshold: Unknown is what scores higher. None for that of the model, if it has one.
        trust_checkpoint: Unpickle whatever the checkpoint holds, which can run any code.

    Attributes:
        task: "detection", "segmentation" or "face".
        classes: Names, in the order of labels; empty for faces and where nobody knows them.
        score_threshold: As given.
        ood_threshold: The one in use, or None.
        ood_score: Name of the OOD score, or None for a model without one.

    Raises:
        ConfigError: ``model`` is neither form, the checkpoint does not go with it, or an OOD
            threshold was given to a model without OOD scores.
        CheckpointError: The checkpoint cannot be used.
        ExportError: The exported model cannot be used.
        UserError: There is no such device, or a threshold is out of its range.

    Example:
        >>> model = Inferencer("configs/atss_r50.py", "epoch_12.pth", score_threshold=0.3)
        >>> for found in model.predict(["a.jpg", "b.jpg"], batch_size=2):
        ...     print(len(found), found.boxes[:1], model.classes[found.labels[0]])
    """

    def __init__(
        self,
        model: str | os.PathLike,
        checkpoint: str | os.PathLike | None = None,
        *,
        device: str = "cpu",
        score_threshold: float | None = None,
        ood_threshold: float | None = None,
        trust_checkpoint: bool = False,
    ) -> None:
        if score_threshold is not None and not 0 <= score_threshold <= 1:
            raise UserError(f"score threshold {score_threshold}: scores lie from 0 to 1")
        if ood_threshold is not None and math.isnan(ood_threshold):
            raise UserError("OOD threshold nan: give a number")
        model = str(model)
        suffix = Path(model).suffix.lower()
        if suffix == ".onnx":
            if checkpoint is not None:
                raise ConfigError(
                    f"{model} has its weights inside; leave the checkpoint {str(checkpoint)!r} out"
                )
            self._open_exported(model, device)
        elif suffix == ".py":
            if checkpoint is None:
                raise CheckpointError(
                    f"{model} is a config, and its weights are missing. Name a checkpoint "
                    "(.pth or .safetensors) behind it"
                )
            self._open_config(model, checkpoint, device, trust_checkpoint)
        else:
            raise ConfigError(
                f"{model} is neither an exported model (.onnx) nor a config (.py). "
                "A checkpoint follows its config"
            )
        self.score_threshold = score_threshold
        if ood_threshold is not None:
            if self.ood_score is None:
                raise ConfigError(
                    f"{model} has no OOD score that could lie above the threshold {ood_threshold}"
                )
            self.ood_threshold = ood_threshold

    def _open_exported(self, path: str, device: str) -> None:
        exported = ExportedModel(path, providers=providers_of(device))
        own = exported.metadata
        self._model, self._decode = exported, decode
        self.task, self.classes = own.task, own.classes
        self.ood_score, self.ood_threshold = own.ood_score, own.ood_threshold

    def _open_config(
        self, path: str, checkpoint: str | os.PathLike, device: str, trust: bool
    ) -> None:
        # Imports torch and OpenMMLab, which an exported model does without.
        from negvision.inference.from_config import open_config

        opened = open_config(path, checkpoint, device, trust)
        self._model, self._decode = opened.model, opened.model.decode
        self.task, self.classes = opened.model.task, opened.classes
        self.ood_score, self.ood_threshold = opened.ood_score, opened.ood_threshold

    def predict(self, images: Iterable[Source], batch_size: int = 1) -> list[Result]:
        """Results of images, one each and in their order.

        Args:
            images: Files, or arrays (H, W, 3) uint8 with blue first.
            batch_size: So many run together at most. Images of detectors are padded to the largest
                of their batch, which a network notices; segmentors take those of one size together.

        Returns:
            Of each image :class:`negvision.inference.runtime.Detections` (boxes in pixels of the
            image, by falling score), :class:`~negvision.inference.runtime.LabelMap` or
            :class:`~negvision.inference.runtime.Embedding`.

        Raises:
            DatasetError: A file cannot be read or is no whole image.
            ExportError: An image is not of the size that an exported model is made for.
        """
        return [self._judged(result) for result in self._model.predict(images, batch_size)]

    def decode(self, data: bytes, name: str) -> np.ndarray:
        """The array (H, W, 3) uint8, blue first, that the model sees of an encoded image.

        Args:
            data: What stands in a file.
            name: Named in errors.

        Raises:
            DatasetError: It is damaged, too large or no image.
        """
        return self._decode(data, name)

    def _judged(self, result: Result) -> Result:
        if isinstance(result, Embedding):
            return result
        if isinstance(result, Detections) and self.score_threshold is not None:
            result = above(result, self.score_threshold)
        scores, threshold = result.ood_scores, self.ood_threshold
        unknown = None if scores is None or threshold is None else scores > threshold
        return dataclasses.replace(result, unknown=unknown)


def above(found: Detections, score_threshold: float) -> Detections:
    """The boxes of a score that is not lower."""
    kept = found.scores >= score_threshold
    values = {field.name: getattr(found, field.name) for field in dataclasses.fields(found)}
    return Detections(**{key: v if v is None else v[kept] for key, v in values.items()})
