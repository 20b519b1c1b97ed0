"""One class for a model in either form: exported, or a config with a checkpoint."""

from __future__ import annotations

import dataclasses
import inspect
import logging
import math
import os
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from negvision.data.images import IMAGE_SUFFIXES
from negvision.data.score_threshold import shown_from
from negvision.errors import CheckpointError, ConfigError, UserError, did_you_mean
from negvision.inference.prediction import Prediction, as_bgr, is_many, is_path
from negvision.inference.runtime import Classification, Detections, Embedding, ExportedModel
from negvision.inference.runtime.images import Source
from negvision.inference.runtime.model import providers_of
from negvision.inference.runtime.results import Result
from negvision.inference.sources import Frame, LeaveOut, end_at_once, find_sources

_log = logging.getLogger("negvision")
# Classes of a classifier that are named, as far as nothing is given.
_TOP = 5
# Files that hold their config; known here without the engine, which exported models do not need.
MODEL_SUFFIXES = (".pth", ".pt", ".ckpt", ".safetensors")


class Inferencer:
    """A model that is ready to predict.

    Args:
        model: An exported model (``.onnx``); a checkpoint (``.pth``, ``.safetensors``) or work dir,
            which have their config; or a config (``.py``).
        checkpoint: Weights for the config; an exported model contains its own.
        device: As torch names it: "cpu", "cuda", "cuda:1".
        score_threshold: Drops boxes with a lower score, in [0, 1]. None keeps all boxes that the
            ``test_cfg`` of the model keeps.
        ood_threshold: Higher OOD scores are unknown. None uses the threshold of the model, if any.
        top: How many classes of an image a classifier names; 5 by default.
        trust_checkpoint: Unpickle any object in the checkpoint. This can run arbitrary code.

    Attributes:
        task: "detection", "segmentation", "classification" or "face".
        classes: Names, indexed by label; empty for faces and if neither file has them.
        score_threshold: As given.
        shown_threshold: Boxes with at least this score are drawn, and where it comes from, a
            :class:`negvision.data.score_threshold.ScoreThreshold`: as given, else the one with the
            best F1 on the validation set, which the model stores, else 0.3.
        ood_threshold: The threshold in use, or None.
        ood_quantiles: OOD scores of known samples at evenly spaced ranks from the lowest to the
            highest, as ``negvision calibrate-ood`` stores them; () if not known.
        ood_score: Name of the OOD score, or None for a model without one.
        top: As given, or 5; None if the model is not a classifier.

    Raises:
        ConfigError: ``model`` has neither form, a checkpoint was given with an exported model, or
            an OOD threshold with a model that has no OOD score, or ``top`` with one that is not a
            classifier.
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
        top: int | None = None,
        trust_checkpoint: bool = False,
    ) -> None:
        if score_threshold is not None and not 0 <= score_threshold <= 1:
            raise UserError(f"score threshold {score_threshold}: give a number from 0 to 1")
        if ood_threshold is not None and math.isnan(ood_threshold):
            raise UserError("OOD threshold nan: give a number")
        if top is not None and top < 1:
            raise UserError(f"top {top}: give the number of classes to name, 1 or more")
        path = str(model)
        suffix = Path(path).suffix.lower()
        if checkpoint is None and (suffix in MODEL_SUFFIXES or Path(path).is_dir()):
            from negvision.engine.checkpoints.finding import find_model

            path, suffix = find_model(path), ".py"
            checkpoint = path
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
                f"{path} is neither an exported model (.onnx), a checkpoint (.pth, .safetensors), "
                "a work dir nor a config (.py)"
            )
        self.score_threshold = score_threshold
        self.shown_threshold = shown_from(score_threshold, self._model.score_threshold)
        self.task, self.classes = self._model.task, self._model.classes
        self.ood_score, self.ood_threshold = self._model.ood_score, self._model.ood_threshold
        self.ood_quantiles = self._model.ood_quantiles
        self.top = (top or _TOP) if self.task == "classification" else None
        if top is not None and self.top is None:
            raise ConfigError(
                f"{path} is for {self.task}; top {top} is how many classes a classifier names"
            )
        if score_threshold is not None and self.top is not None:
            raise ConfigError(
                f"{path} is a classifier: each class has a probability, and none is dropped by "
                f"score threshold {score_threshold}. How many are named is set by top (--top)"
            )
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
            image, sorted by descending score), :class:`~negvision.inference.runtime.LabelMap`,
            :class:`~negvision.inference.runtime.Classification` or
            :class:`~negvision.inference.runtime.Embedding`.

        Raises:
            DatasetError: A file cannot be read, or is damaged or not an image.
            ExportError: An image does not have the size that an exported model requires.
        """
        return [self._with_thresholds(one) for one in self._model.predict(images, batch_size)]

    def __call__(
        self,
        source: Any,
        *,
        batch_size: int = 1,
        allow_urls: bool = False,
        skip_bad: bool = False,
    ) -> Prediction | list[Prediction]:
        """Predict one image, or many.

        Args:
            source: An image file; a URL, if allowed; a PIL image; or an array in the order of PIL:
                (H, W), (H, W, 3) RGB or (H, W, 4) RGBA uint8. Or many: a list of these, a folder, a
                pattern such as "a/**/*.jpg", or a video.
            batch_size: As in :meth:`predict`.
            allow_urls: Whether images may be downloaded.
            skip_bad: Of many, leave out those that cannot be read, with a warning for each.

        Returns:
            A :class:`negvision.inference.prediction.Prediction`, or a list of them.

        Raises:
            UserError: A source does not exist or is no image.
        """
        many = is_many(source) or (is_path(source) and not _is_one(os.fspath(source)))
        options = {"batch_size": batch_size, "allow_urls": allow_urls}
        found = list(self.stream(source, **options, skip_bad=skip_bad and many))
        return found if many else found[0]

    def stream(
        self,
        source: Any,
        *,
        batch_size: int = 1,
        allow_urls: bool = False,
        skip_bad: bool = False,
    ) -> Iterator[Prediction]:
        """Like calling the model, one prediction at a time: for videos and large folders."""
        if batch_size < 1:
            raise UserError(f"batch_size is {batch_size}; give 1 or more")
        frames = self._frames(source, allow_urls, _warn_of if skip_bad else end_at_once)
        while batch := list(islice(frames, batch_size)):
            results = self.predict([frame.image for frame in batch], batch_size)
            for frame, result in zip(batch, results, strict=True):
                shown = self.top, self.shown_threshold.value
                yield Prediction(
                    frame.image, frame.name, result, self.classes, frame.number, *shown
                )

    def _frames(self, source: Any, allow_urls: bool, leave_out: LeaveOut) -> Iterator[Frame]:
        sources = source if is_many(source) else [source]
        for number, one in enumerate(sources):
            if is_path(one):
                found = find_sources([os.fspath(one)], allow_urls, leave_out=leave_out)
                if line := found.passed_over.line():
                    _log.warning("%s: passed over: %s", one, line)
                yield from found.read(self.decode, leave_out)
            else:
                yield Frame(as_bgr(one, f"image {number}", self._model.as_stored), "")

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
        is_one = isinstance(result, Classification)
        scores, threshold = result.ood_score if is_one else result.ood_scores, self.ood_threshold
        unknown = None if scores is None or threshold is None else scores > threshold
        return dataclasses.replace(result, unknown=unknown)


def _warn_of(error: UserError) -> None:
    _log.warning("left out: %s", error)


def _is_one(source: str) -> bool:
    """Whether a path or URL names one image."""
    return "://" in source or (Path(source).suffix.lower() in IMAGE_SUFFIXES and "*" not in source)


def load(model: Any, checkpoint: str | os.PathLike | None = None, **options: Any) -> Inferencer:
    """Load a model to predict with.

    Args:
        model: What :func:`negvision.train` returned, a work dir, a checkpoint, an exported model
            or a config.
        checkpoint: For a config.
        **options: Of :class:`Inferencer`.

    Raises:
        UserError: As of :class:`Inferencer`.

    After a training::

        model = negvision.load("work_dirs/raccoon")
        print(model("photo.jpg").names)
    """
    known = inspect.signature(Inferencer).parameters
    for name in options:
        if name not in known:
            raise ConfigError(f"negvision.load has no option {name!r}{did_you_mean(name, known)}")
    return Inferencer(model, checkpoint, **options)
