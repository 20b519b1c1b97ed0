"""Run a config and a checkpoint in PyTorch, from image files to predictions."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import cv2
import mmcv
import numpy as np
import torch
from mmdet.models import BaseDetector
from mmengine.config import Config
from mmengine.dataset import Compose, pseudo_collate
from mmengine.model import BaseModel
from mmengine.registry import DefaultScope
from mmseg.models import BaseSegmentor

from negvision.classification.classifier import ScoredClassifier
from negvision.data.face_threshold import FaceThreshold
from negvision.data.images.decoding import AS_STORED
from negvision.data.images.integrity import require_complete
from negvision.data.images.loading import LoadImageFromFile
from negvision.data.score_calibration import ScoreCalibration
from negvision.data.score_threshold import ScoreThreshold
from negvision.engine.calibration import class_scores
from negvision.engine.checkpoints.loading import install_loaders
from negvision.engine.config.check import check_config
from negvision.engine.config.options import tiles_of
from negvision.engine.config.reading import load_config
from negvision.engine.file_handlers import install_file_handlers
from negvision.engine.quiet import silence_idle_warnings
from negvision.errors import ConfigError, UserError
from negvision.face.recognizer import FaceRecognizer
from negvision.inference.pipeline import image_pipeline, kind_of, test_pipeline
from negvision.inference.runtime.images import Source, batched, load, name_of
from negvision.inference.runtime.results import (
    Classification,
    Detections,
    Embedding,
    LabelMap,
    Result,
)
from negvision.inference.weights import load_model, named_classes, ood_of, ood_quantiles

_TASKS = {
    BaseDetector: "detection",
    BaseSegmentor: "segmentation",
    ScoredClassifier: "classification",
    FaceRecognizer: "face",
}


class TorchModel:
    """Runs the test pipeline and the model of a config on images without annotations.

    Args:
        cfg: A checked config.
        model: In evaluation mode.
        meta: Of the checkpoint; it may have names of the classes.

    Attributes:
        task: One of :data:`negvision.inference.runtime.metadata.TASKS`.
        classes: Names; () for faces and if neither checkpoint nor config has them.
        ood_score: Name of the OOD score, or None for a model without one.
        ood_threshold: Threshold of the checkpoint, or None.
        ood_quantiles: Of the OOD scores of known samples, or ().
        score_threshold: From which boxes are shown, or None.
        calibration: Of the scores, or None.
        face_threshold: Similarity from which two faces are one person, or None.
        tiles: In which the evaluations of the config predict, or None.
        crop_side: Side of the aligned crops of faces that the model takes, in pixels.

    Raises:
        ConfigError: The config has no test pipeline, or the model has another task.
    """

    def __init__(
        self, cfg: Config, model: BaseModel, meta: Mapping[str, Any] | None = None
    ) -> None:
        self.model = model
        self.task = task_of(model)
        self.classes = () if self.task == "face" else named_classes(cfg, meta or {})
        self.ood_score, self.ood_threshold = ood_of(model)
        self.ood_quantiles = ood_quantiles(meta or {})
        self.score_threshold = ScoreThreshold.of_meta(meta or {}, "the checkpoint")
        self.calibration = ScoreCalibration.of_meta(meta or {}, "the checkpoint")
        self.face_threshold = FaceThreshold.of_meta(meta or {}, "the checkpoint")
        self.tiles = tiles_of(cfg) if self.task == "detection" else None
        aligned = [t for t in test_pipeline(cfg) if kind_of(t) == "AlignFace"]
        self.crop_side = int(aligned[0].get("size", 112)) if aligned else 112
        transforms = image_pipeline(cfg)
        if not transforms or kind_of(transforms[0]) != "LoadImageFromFile":
            transforms.insert(0, {"type": "negvision.LoadImageFromFile"})
        with DefaultScope.overwrite_default_scope(cfg.get("default_scope", "mmengine")):
            self._load, *after = Compose(transforms).transforms
        self._after_loading = Compose(after)

    @classmethod
    def open(
        cls, config: str, checkpoint: str | os.PathLike, device: str = "cpu", trust: bool = False
    ) -> TorchModel:
        """Build the model of a config file and load the weights of a checkpoint.

        Arguments and errors are those of :class:`negvision.inference.inferencer.Inferencer`.
        """
        silence_idle_warnings()
        install_loaders(trust)
        install_file_handlers(trust)
        place = torch_device(device)
        cfg = load_config(config)
        if cfg.get("model") is None:
            raise ConfigError(f"config {config!r} has no model")
        if config.endswith(".py"):
            check_config(cfg)
        else:  # checked before the training; the other components load slowly
            check_config(cfg, ("model", "test_dataloader"))
        module, meta = load_model(cfg, os.fspath(checkpoint), trust)
        return cls(cfg, module.to(place), meta)

    def predict(self, images: Iterable[Source], batch_size: int = 1) -> Iterator[Result]:
        """Predict each image, in order; see ``ExportedModel.predict``.

        Raises:
            DatasetError: A file cannot be read.
        """
        for batch in self.batches(images, batch_size):
            yield from self.run(batch)

    def batches(self, images: Iterable[Source], batch_size: int = 1) -> Iterator[list[dict]]:
        """Images as the pipeline packs them, in the batches that :meth:`predict` runs."""
        return batched(map(self._packed, images), batch_size, self._fits)

    def run(self, batch: Sequence[dict]) -> list[Result]:
        """Predict packed images as one batch."""
        with torch.no_grad():
            samples = self.model.test_step(pseudo_collate(batch))
            found = [_result(sample, self.calibration) for sample in samples]
        return [
            one.calibrated(self.calibration)
            if isinstance(one, Detections | Classification)
            else one
            for one in found
        ]

    def decode(self, data: bytes, name: str) -> np.ndarray:
        """Decode an image as the pipeline does: (H, W, 3) uint8 BGR.

        Raises:
            DatasetError: The data are damaged, too large or not an image.
        """
        own = self._load
        if isinstance(own, LoadImageFromFile):
            image = own.decode(data, name)
        else:  # of another package, whose decoder it keeps
            require_complete(data, name)
            image = mmcv.imfrombytes(data, flag=own.color_type, backend=own.imdecode_backend)
        return image if image.ndim == 3 else cv2.cvtColor(image, cv2.COLOR_GRAY2BGR)

    @property
    def as_stored(self) -> bool:
        """Whether the EXIF orientation of files is ignored."""
        return self._load.color_type.endswith((AS_STORED, "unchanged"))

    def _packed(self, source: Source) -> dict[str, Any]:
        if not isinstance(source, np.ndarray):
            return self._after_loading(self._load({"img_path": str(source)}))
        pixels = load(source)
        if self._load.color_type.startswith("grayscale"):
            pixels = cv2.cvtColor(pixels, cv2.COLOR_BGR2GRAY)
        loaded: dict[str, Any] = {
            "img_path": name_of(source),
            "img": pixels.astype(np.float32) if self._load.to_float32 else pixels,
            "img_shape": pixels.shape[:2],
            "ori_shape": pixels.shape[:2],
        }
        return self._after_loading(loaded)

    def _fits(self, one: dict, other: dict) -> bool:
        """Whether two images may run together: images of detectors are padded to one size."""
        if self.task == "detection":
            return True
        own, others = one["data_samples"], other["data_samples"]
        same = self.task != "segmentation" or own.get("ori_shape") == others.get("ori_shape")
        return own.img_shape == others.img_shape and same


def torch_device(name: str) -> torch.device:
    """The device with this name; UserError if there is none."""
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UserError(f"device {name!r}: give cpu, cuda, cuda:NUMBER or mps") from None
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise UserError("device 'mps': torch finds no GPU of Apple that it can use")
    count = torch.cuda.device_count()
    if device.type == "cuda" and (device.index or 0) >= count:
        raise UserError(
            f"device {name!r}: torch finds {count} CUDA devices; `negvision doctor` shows details"
        )
    return device


def task_of(model: BaseModel) -> str:
    """The task of ``model``, one of :data:`negvision.inference.runtime.metadata.TASKS`.

    Raises:
        ConfigError: It has another task.
    """
    for kind, task in _TASKS.items():
        if isinstance(model, kind):
            return task
    raise ConfigError(
        f"{type(model).__name__} is not a detector of mmdet, a segmentor of mmseg, a classifier of "
        "negvision or negvision.FaceRecognizer, so its predictions cannot be read here. Evaluate "
        "it with negvision test"
    )


def _result(sample, calibration: ScoreCalibration | None) -> Result:
    """The result of a predicted sample; ConfigError if it holds what no result has."""
    if "embedding" in sample:
        return Embedding(sample.embedding.cpu().numpy())
    if "pred_sem_seg" in sample:
        labels = sample.pred_sem_seg.data[0].to(torch.int32).cpu().numpy()
        scores, unknown = (
            sample.get(name).data[0].cpu().numpy() if name in sample else None
            for name in ("ood_map", "ood_mask")
        )
        confidence = None
        if calibration is not None:
            temperatures = torch.tensor(calibration.temperatures)
            logits = sample.seg_logits.data[None]
            confidence = class_scores(logits, temperatures)[0].cpu().numpy()
        return LabelMap(labels, scores, unknown, confidence)
    if "pred_label" in sample:
        probabilities = sample.logits.softmax(0).cpu().numpy()
        unknown = bool(sample.pred_is_ood) if "pred_is_ood" in sample else None
        return Classification(probabilities, float(sample.ood_score), unknown)
    if "pred_instances" not in sample or "pred_panoptic_seg" in sample:
        raise ConfigError(
            f"the model predicts {', '.join(sorted(sample.keys()))}; boxes, their masks, label "
            "maps, classes and embeddings can be read here. Evaluate it with negvision test"
        )
    found = sample.pred_instances.cpu()
    optional = (
        found[name].numpy() if name in found else None for name in ("ood_score", "is_ood", "masks")
    )
    return Detections(found.bboxes.numpy(), found.scores.numpy(), found.labels.numpy(), *optional)
