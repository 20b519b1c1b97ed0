"""A model in PyTorch with the test pipeline of its config: from image files to what is on them."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from mmdet.models import BaseDetector
from mmengine.config import Config
from mmengine.dataset import Compose, pseudo_collate
from mmengine.model import BaseModel
from mmengine.registry import DefaultScope
from mmseg.models import BaseSegmentor

from negvision.data.images.header import MAX_PIXELS
from negvision.data.images.loading import decode_image
from negvision.errors import ConfigError
from negvision.face.recognizer import FaceRecognizer
from negvision.inference.pipeline import image_pipeline, kind_of
from negvision.inference.runtime.images import Source, named, require_pixels
from negvision.inference.runtime.preparing import batched
from negvision.inference.runtime.results import Detections, Embedding, LabelMap, Result

_TASKS = {BaseDetector: "detection", BaseSegmentor: "segmentation", FaceRecognizer: "face"}


class TorchModel:
    """What ``tools/test.py`` runs, on images without annotations.

    Args:
        cfg: A checked config.
        model: In evaluation.

    Attributes:
        task: Of :data:`negvision.inference.runtime.metadata.TASKS`.

    Raises:
        ConfigError: The config has no test pipeline, or the model does none of these tasks.
    """

    def __init__(self, cfg: Config, model: BaseModel) -> None:
        self.model = model
        self.task = task_of(model)
        transforms = image_pipeline(cfg)
        with DefaultScope.overwrite_default_scope(cfg.get("default_scope", "mmengine")):
            self.pipeline = Compose(transforms)
        # An array needs no loading.
        loads = bool(transforms) and kind_of(transforms[0]) == "LoadImageFromFile"
        self._loading = transforms[0] if loads else {}
        self._after_loading = self.pipeline.transforms[int(loads) :]

    def predict(self, images: Iterable[Source], batch_size: int = 1) -> Iterator[Result]:
        """Results of images, one each and in their order; see ``ExportedModel.predict``.

        Raises:
            DatasetError: A file cannot be read.
        """
        for batch in self.batches(images, batch_size):
            yield from self.run(batch)

    def batches(self, images: Iterable[Source], batch_size: int = 1) -> Iterator[list[dict]]:
        """Images as the pipeline packs them, as :meth:`predict` runs them together."""
        return batched(map(self._packed, images), batch_size, self._fits)

    def run(self, batch: Sequence[dict]) -> list[Result]:
        """Results of packed images as one batch."""
        with torch.no_grad():
            return [_result(sample) for sample in self.model.test_step(pseudo_collate(batch))]

    def decode(self, data: bytes, name: str) -> np.ndarray:
        """The array (H, W, 3) that the pipeline makes of an encoded image.

        Raises:
            DatasetError: It is damaged, too large or no image.
        """
        own = self._loading
        return decode_image(
            data,
            name,
            own.get("color_type", "color"),
            own.get("imdecode_backend") or "cv2",
            own.get("max_pixels", MAX_PIXELS),
        )

    def _packed(self, source: Source) -> dict[str, Any]:
        if not isinstance(source, np.ndarray):
            return self.pipeline({"img_path": str(source)})
        pixels = require_pixels(source)
        loaded: dict[str, Any] = {
            "img_path": named(source),
            "img": pixels.astype(np.float32) if self._loading.get("to_float32") else pixels,
            "img_shape": pixels.shape[:2],
            "ori_shape": pixels.shape[:2],
        }
        for transform in self._after_loading:
            loaded = transform(loaded)
        return loaded

    def _fits(self, one: dict, other: dict) -> bool:
        """Whether two images may run together: those of detectors are padded to one size."""
        if self.task == "detection":
            return True
        own, others = one["data_samples"], other["data_samples"]
        return own.img_shape == others.img_shape and (
            own.get("ori_shape") == others.get("ori_shape")
        )


def task_of(model: BaseModel) -> str:
    """What ``model`` does, of :data:`negvision.inference.runtime.metadata.TASKS`.

    Raises:
        ConfigError: Something else.
    """
    for kind, task in _TASKS.items():
        if isinstance(model, kind):
            return task
    raise ConfigError(
        f"{type(model).__name__} is neither a detector of mmdet, a segmentor of mmseg nor "
        "negvision.FaceRecognizer: its predictions are not known here. Evaluate it with "
        "tools/test.py"
    )


def _result(sample) -> Result:
    if "embedding" in sample:
        return Embedding(sample.embedding.cpu().numpy())
    if "pred_sem_seg" in sample:
        labels = sample.pred_sem_seg.data[0].to(torch.int32).cpu().numpy()
        scores, unknown = (
            sample.get(name).data[0].cpu().numpy() if name in sample else None
            for name in ("ood_map", "ood_mask")
        )
        return LabelMap(labels, scores, unknown)
    found = sample.pred_instances.cpu()
    ood, unknown = (
        found[name].numpy() if name in found else None for name in ("ood_score", "is_ood")
    )
    return Detections(
        found.bboxes.numpy(), found.scores.numpy(), found.labels.numpy(), ood, unknown
    )
