"""One class for a model in either form: exported, or a config with a checkpoint."""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from negvision.errors import CheckpointError, ConfigError, UserError
from negvision.inference.runtime import Detections, Embedding, ExportedModel
from negvision.inference.runtime.images import Source
from negvision.inference.runtime.model import providers_of
from negvision.inference.runtime.results import Result


class Inferencer:
    """A model that is ready to predict.

    Args:
        model: An exported model (``.onnx``) or a config (``.py``).
        checkpoint: Weights for the config; an exported model contains its own.
        device: As torch names it: "cpu", "cuda", "cuda:1".
        score_threshold: Drops boxes with a lower score, in [0, 1]. None keeps all boxes that the
            ``test_cfg`` of the model keeps.
        ood_threshold: Higher OOD scores are unknown. None uses the threshold of the model, if any.
        trust_checkpoint: Unpickle any object in the checkpoint. This can run arbitrary code.

    Attributes:
        task: "detection", "segmentation" or "face".
        classes: Names, indexed by label; empty for faces and if neither file has them.
        score_threshold: As given.
        ood_threshold: The threshold in use, or None.
        ood_score: Name of the OOD score, or None for a model without one.

    Raises:
        ConfigError: ``model`` has neither form, a checkpoint was given with an exported model, or
            an OOD threshold with a model that has no OOD score.
        CheckpointError: The checkpoint cannot be used.
        ExportError: The exported model cannot be used.
        UserError: The device does not exist, or a threshold is out of range.

    With a config and its checkpoint, and two images::

        model = Inferencer("configs/atss_r50.py", "epoch_12.pth", score_threshold=0.3)
        for found in model.predict(["a.jpg", "b.jpg"], batch_size=2):
            print(len(found), found.boxes[:1], model.classes[found.labels[0]])

    Example:
        An exported model that returns the mean color of an image as its embedding.

        >>> import tempfile
        >>> import numpy as np
        >>> import onnx
        >>> from negvision.inference.runtime.metadata import KEY, Metadata, Preprocessing
        >>> text = '''<ir_version: 10, opset_import: ["": 18]>
        ... mean (float[b, 3, h, w] image) => (float[b, c] embeddings) {
        ...     axes = Constant <value_ints = [2, 3]> ()
        ...     embeddings = ReduceMean <keepdims = 0> (image, axes)
        ... }'''
        >>> graph = onnx.parser.parse_model(text)
        >>> onnx.helper.set_model_props(graph, {KEY: Metadata("face", Preprocessing()).to_json()})
        >>> with tempfile.NamedTemporaryFile(suffix=".onnx") as file:
        ...     onnx.save(graph, file.name)
        ...     model = Inferencer(file.name)
        >>> [found] = model.predict([np.full((4, 4, 3), (30, 20, 10), np.uint8)])  # BGR
        >>> found.vector
        array([10., 20., 30.], dtype=float32)
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
            raise UserError(f"score threshold {score_threshold}: give a number from 0 to 1")
        if ood_threshold is not None and math.isnan(ood_threshold):
            raise UserError("OOD threshold nan: give a number")
        path = str(model)
        suffix = Path(path).suffix.lower()
        if suffix == ".onnx":
            if checkpoint is not None:
                raise ConfigError(
                    f"{path} contains its weights; leave out the checkpoint {str(checkpoint)!r}"
                )
            self._model = ExportedModel(path, providers=providers_of(device))
        elif suffix == ".py":
            if checkpoint is None:
                raise CheckpointError(
                    f"{path} is a config and needs weights. Give a checkpoint (.pth or "
                    ".safetensors) after it"
                )
            # Imports torch and OpenMMLab, which exported models do not need.
            from negvision.inference.torch_model import TorchModel

            self._model = TorchModel.open(path, checkpoint, device, trust_checkpoint)
        else:
            raise ConfigError(
                f"{path} is neither an exported model (.onnx) nor a config (.py). "
                "A checkpoint follows its config"
            )
        self.score_threshold = score_threshold
        self.task, self.classes = self._model.task, self._model.classes
        self.ood_score, self.ood_threshold = self._model.ood_score, self._model.ood_threshold
        if ood_threshold is not None:
            if self.ood_score is None:
                raise ConfigError(
                    f"{path} has no OOD score, so there is nothing to compare with the OOD "
                    f"threshold {ood_threshold}"
                )
            self.ood_threshold = ood_threshold

    def predict(self, images: Iterable[Source], batch_size: int = 1) -> list[Result]:
        """Predict each image, in order.

        Args:
            images: Files, or (H, W, 3) uint8 BGR arrays.
            batch_size: Largest number of images in a batch. Images of detectors are padded to the
                largest in the batch, which can change results slightly; segmentors only batch
                images of the same size.

        Returns:
            For each image :class:`negvision.inference.runtime.Detections` (boxes in pixels of the
            image, sorted by descending score), :class:`~negvision.inference.runtime.LabelMap` or
            :class:`~negvision.inference.runtime.Embedding`.

        Raises:
            DatasetError: A file cannot be read, or is damaged or not an image.
            ExportError: An image does not have the size that an exported model requires.
        """
        return [self._with_thresholds(one) for one in self._model.predict(images, batch_size)]

    def decode(self, data: bytes, name: str) -> np.ndarray:
        """Decode an image as the model does: (H, W, 3) uint8 BGR.

        Args:
            data: Content of an image file.
            name: Its name in error messages.

        Raises:
            DatasetError: The data are damaged, too large or not an image.
        """
        return self._model.decode(data, name)

    def _with_thresholds(self, result: Result) -> Result:
        if isinstance(result, Embedding):
            return result
        if isinstance(result, Detections) and self.score_threshold is not None:
            result = result.above(self.score_threshold)
        scores, threshold = result.ood_scores, self.ood_threshold
        unknown = None if scores is None or threshold is None else scores > threshold
        return dataclasses.replace(result, unknown=unknown)
