"""One class for a model in either form: exported, or a config with a checkpoint."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import logging
import math
import os
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from negvision.compat import quiet_imports
from negvision.data.images import IMAGE_SUFFIXES
from negvision.data.images.tiles import Tiles
from negvision.data.score_threshold import shown_from
from negvision.errors import CheckpointError, ConfigError, UserError, did_you_mean
from negvision.inference.prediction import Prediction, as_bgr, is_many, is_path
from negvision.inference.runtime import Classification, Detections, Embedding, ExportedModel
from negvision.inference.runtime.face_detector import FaceDetector
from negvision.inference.runtime.images import Source
from negvision.inference.runtime.images import load as load_image
from negvision.inference.runtime.images import read_bytes as read
from negvision.inference.runtime.model import providers_of
from negvision.inference.runtime.results import Result
from negvision.inference.runtime.tiled import predict_in_tiles
from negvision.inference.sources import Frame, LeaveOut, end_at_once, find_sources

_log = logging.getLogger("negvision")
# Classes of a classifier that are named, as far as nothing is given.
_TOP = 5
# Files that hold their config; known here without the engine, which exported models do not need.
MODEL_SUFFIXES = (".pth", ".pt", ".ckpt", ".safetensors")


@dataclasses.dataclass(frozen=True)
class Verification:
    """Whether two images show one person.

    Attributes:
        similarity: Cosine of the embeddings, in [-1, 1].
        same: Whether it reaches the threshold; None without a threshold.
        threshold: In use, or None.
    """

    similarity: float
    same: bool | None
    threshold: float | None


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
        face_detector: ONNX file of YuNet, with which a face recognizer takes photographs; without
            it, images are aligned crops of faces.
        main_face: Of several faces in a photograph take the one that is large and near its
            center; otherwise they are an error.
        trust_checkpoint: Unpickle any object in the checkpoint. This can run arbitrary code.
        tiles: Predict large images in overlapping tiles, "SIZE[:OVERLAP]" in pixels, and join what
            they show; OVERLAP below 1 is a share of SIZE, 0.2 by default, and should be as large
            as the objects. "none" predicts whole images. None: as the model was evaluated in its
            training. See :func:`negvision.inference.runtime.tiled.join`.

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
        path: As given: the model, or its checkpoint.
        face_threshold: Of a face recognizer, a
            :class:`negvision.data.face_threshold.FaceThreshold`; None if it stores none.

    Raises:
        ConfigError: ``model`` has neither form, a checkpoint was given with an exported model, or
            an OOD threshold with a model that has no OOD score, ``top`` with one that is not a
            classifier, a face detector with one that is no face recognizer, or tiles with one that
            is no detector.
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
        face_detector: str | os.PathLike | None = None,
        main_face: bool = False,
        trust_checkpoint: bool = False,
        tiles: Tiles | str | int | None = None,
    ) -> None:
        if score_threshold is not None and not 0 <= score_threshold <= 1:
            raise UserError(f"score threshold {score_threshold}: give a number from 0 to 1")
        if ood_threshold is not None and math.isnan(ood_threshold):
            raise UserError("OOD threshold nan: give a number")
        if top is not None and top < 1:
            raise UserError(f"top {top}: give the number of classes to name, 1 or more")
        path = self.path = str(model)
        suffix = Path(path).suffix.lower()
        if checkpoint is None and (suffix in MODEL_SUFFIXES or Path(path).is_dir()):
            from negvision.engine.checkpoints.finding import find_model

            path, suffix = find_model(path), ".py"
            checkpoint = self.path = path
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
            with quiet_imports():
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
        self.tiles = self._model.tiles if tiles is None else self._tiles(tiles)
        self.face_threshold = self._model.face_threshold
        self._face_detector: FaceDetector | None = None
        if face_detector is not None:
            if self.task != "face":
                raise ConfigError(
                    f"{path} is for {self.task}; a face detector finds faces for a face recognizer"
                )
            self._face_detector = FaceDetector(face_detector, main_only=main_face)
        elif main_face:
            raise ConfigError("main_face (--main-face) needs a face detector")
        if ood_threshold is not None:
            if self.ood_score is None:
                raise ConfigError(
                    f"{path} has no OOD score, so there is nothing to compare with the OOD "
                    f"threshold {ood_threshold}"
                )
            self.ood_threshold = ood_threshold

    def predict(
        self,
        images: Iterable[Source],
        batch_size: int = 1,
        tiles: Tiles | str | int | None = None,
    ) -> list[Result]:
        """Predict each image, in order.

        Args:
            images: Files, or (H, W, 3) uint8 BGR arrays.
            batch_size: Largest number of images in a batch. Images of detectors are padded to the
                largest in the batch, which can change results slightly; segmentors only batch
                images of the same size. With tiles, the number of tiles.
            tiles: As of the class; None: those of the model.

        Returns:
            For each image :class:`negvision.inference.runtime.Detections` (boxes in pixels of the
            image, sorted by descending score), :class:`~negvision.inference.runtime.LabelMap`,
            :class:`~negvision.inference.runtime.Classification` or
            :class:`~negvision.inference.runtime.Embedding`.

        Raises:
            DatasetError: A file cannot be read, or is damaged or not an image.
            ExportError: An image does not have the size that an exported model requires.
        """
        if self._face_detector is not None:
            images = map(self.face_of, images)
        cut = self.tiles if tiles is None else self._tiles(tiles)
        if cut is None:
            found = self._model.predict(images, batch_size)
        else:
            found = (
                predict_in_tiles(self._model.predict, self._pixels(one), cut, batch_size)
                for one in images
            )
        return [self._with_thresholds(one) for one in found]

    def _pixels(self, source: Source) -> np.ndarray:
        return source if isinstance(source, np.ndarray) else self.decode(read(source), str(source))

    def _tiles(self, tiles: Tiles | str | int) -> Tiles | None:
        found = Tiles.of(tiles)
        if found is not None and self.task != "detection":
            raise ConfigError(
                f"{self.path} is for {self.task}; only detectors predict in tiles ({tiles})"
            )
        return found

    @property
    def face_detector_path(self) -> str | None:
        """The file of the face detector, if there is one."""
        return None if self._face_detector is None else self._face_detector.path

    def require_faces(self) -> None:
        """Raise ConfigError unless this is a face recognizer."""
        if self.task != "face":
            raise ConfigError(f"{self.path} is for {self.task}; this needs a face recognizer")

    def face_of(self, source: Source, name: str | None = None) -> np.ndarray:
        """The crop that a face recognizer takes: aligned, if there is a face detector.

        Args:
            source: A file, or (H, W, 3) uint8 BGR.
            name: Of the image, in errors.

        Raises:
            DatasetError: The image cannot be read, or has no face or several.
        """
        image = load_image(source, self._model.as_stored)
        if self._face_detector is None:
            return image
        if name is None:
            name = "" if isinstance(source, np.ndarray) else str(source)
        return self._face_detector.crop(image, name, self._model.crop_side)

    def embed(
        self, images: Iterable[Source], batch_size: int = 1, aligned: bool = False
    ) -> np.ndarray:
        """Embeddings of faces: (N, D) float32, not normalized.

        Args:
            images: Files, or (H, W, 3) uint8 BGR arrays.
            batch_size: Images in a batch.
            aligned: They are crops already, even if there is a face detector.

        Raises:
            ConfigError: The model is no face recognizer.
            DatasetError: As of :meth:`face_of`.
        """
        self.require_faces()
        found = (self._model.predict if aligned else self.predict)(images, batch_size)
        return np.array([one.vector for one in found if isinstance(one, Embedding)], np.float32)

    @functools.cached_property
    def probes(self) -> np.ndarray:
        """(4, D) embeddings of fixed images, which tell whether two models give the same ones."""
        self.require_faces()
        coarse = np.random.default_rng(0).integers(0, 256, (4, 7, 7, 3), dtype=np.uint8)
        side = (self._model.crop_side,) * 2
        return self.embed([cv2.resize(one, side) for one in coarse], len(coarse), aligned=True)

    def verify(self, one: Source, other: Source, threshold: float | None = None) -> Verification:
        """Compare the faces in two images.

        Args:
            one: A file, or (H, W, 3) uint8 BGR.
            other: Likewise.
            threshold: Similarity from which they are one person; default: that of the model.

        Raises:
            ConfigError: The model is no face recognizer.
            DatasetError: As of :meth:`face_of`.
        """
        first, second = self.embed([one, other])
        similarity = Embedding(first).similarity(Embedding(second))
        if threshold is None and self.face_threshold is not None:
            threshold = self.face_threshold.value
        same = None if threshold is None else similarity >= threshold
        return Verification(similarity, same, threshold)

    def __call__(
        self,
        source: Any,
        *,
        batch_size: int = 1,
        tiles: Tiles | str | int | None = None,
        allow_urls: bool = False,
        skip_bad: bool = False,
    ) -> Prediction | list[Prediction]:
        """Predict one image, or many.

        Args:
            source: An image file; a URL, if allowed; a PIL image; or an array in the order of PIL:
                (H, W), (H, W, 3) RGB or (H, W, 4) RGBA uint8. Or many: a list of these, a folder, a
                pattern such as "a/**/*.jpg", or a video.
            batch_size, tiles: As in :meth:`predict`.
            allow_urls: Whether images may be downloaded.
            skip_bad: Of many, leave out those that cannot be read, with a warning for each.

        Returns:
            A :class:`negvision.inference.prediction.Prediction`, or a list of them.

        Raises:
            UserError: A source does not exist or is no image.
        """
        many = is_many(source) or (is_path(source) and not _is_one(os.fspath(source)))
        options = {"batch_size": batch_size, "tiles": tiles, "allow_urls": allow_urls}
        found = list(self.stream(source, **options, skip_bad=skip_bad and many))
        return found if many else found[0]

    def stream(
        self,
        source: Any,
        *,
        batch_size: int = 1,
        tiles: Tiles | str | int | None = None,
        allow_urls: bool = False,
        skip_bad: bool = False,
    ) -> Iterator[Prediction]:
        """Like calling the model, one prediction at a time: for videos and large folders."""
        if batch_size < 1:
            raise UserError(f"batch_size is {batch_size}; give 1 or more")
        frames = self._frames(source, allow_urls, _warn_of if skip_bad else end_at_once)
        while batch := list(islice(frames, batch_size)):
            images = [frame.image for frame in batch]
            if self._face_detector is None:
                results = self.predict(images, batch_size, tiles)
            else:
                faces = [self.face_of(frame.image, frame.name) for frame in batch]
                results = list(self._model.predict(faces, batch_size))
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
