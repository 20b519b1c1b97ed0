"""An exported model in the place of a config's model, so that the same metrics evaluate it."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.model import BaseModel
from mmengine.structures import InstanceData, PixelData

from negvision.inference.runtime import Detections, Embedding, ExportedModel, LabelMap
from negvision.inference.runtime.preparing import Prepared, prepare
from negvision.registry import MODELS

SUFFIX = ".onnx"
# Metrics that compute other scores from logits, which an exported model does not put out.
_OF_LOGITS = ("OODBoxMetric", "OODPixelMetric")


@MODELS.register_module()
class ExportedNetwork(BaseModel):
    """Tests an ONNX file: images as the pipeline packs them go in, predictions come out.

    Colours and padding are those of the file, not of a ``data_preprocessor``; a resize was done by
    the pipeline.

    Args:
        file: Written by ``tools/export.py``.

    Attributes:
        score, ood_threshold: Where the file has OOD scores, as of a head that computes them.

    Raises:
        ExportError: See :class:`negvision.inference.runtime.ExportedModel`.

    Example:
        >>> model = dict(type="negvision.ExportedNetwork", file="atss.onnx")
    """

    def __init__(self, file: str) -> None:
        super().__init__()
        self.exported = ExportedModel(file)
        own = self.exported.metadata.preprocessing
        self._as_packed = dataclasses.replace(own, scale=None)
        if self.exported.metadata.ood_score is not None:
            # By which `negvision.ood.threshold.set_threshold` finds it.
            self.score = self.exported.metadata.ood_score
            self.ood_threshold = self.exported.metadata.ood_threshold

    def test_step(self, data: dict[str, Any]) -> list:
        """The data samples of a batch, with predictions of the exported model."""
        samples = data["data_samples"]
        batch = []
        for pixels, sample in zip(data["inputs"], samples, strict=True):
            one = prepare(pixels.numpy().transpose(1, 2, 0), self._as_packed)
            original = sample.metainfo.get("ori_shape", one.original)
            batch.append(dataclasses.replace(one, original=tuple(original)))
        results = [result for part in self._together(batch) for result in self.exported.run(part)]
        for sample, result in zip(samples, results, strict=True):
            self._add(sample, result)
        return samples

    def forward(self, *args, **kwargs) -> None:
        """Not trained, so not asked."""
        raise NotImplementedError("an exported model is tested by test_step alone")

    def _together(self, batch: Sequence[Prepared]) -> list[Sequence[Prepared]]:
        same = {(one.size, one.original) for one in batch}
        if self.exported.metadata.task == "segmentation" and len(same) > 1:
            return [[one] for one in batch]
        return [batch]

    def _add(self, sample, result: Detections | LabelMap | Embedding) -> None:
        if isinstance(result, Embedding):
            sample.embedding = torch.from_numpy(result.vector.copy())
        elif isinstance(result, LabelMap):
            self._add_maps(sample, result)
        else:
            sample.pred_instances = self._instances(result)

    def _add_maps(self, sample, result: LabelMap) -> None:
        labels = torch.from_numpy(result.labels).long()
        sample.pred_sem_seg = PixelData(data=labels[None])
        if result.ood_scores is not None:
            scores = torch.from_numpy(result.ood_scores)[None]
            sample.ood_map = PixelData(metainfo={"score": self.score}, data=scores)
            if self.ood_threshold is not None:
                sample.ood_mask = PixelData(data=scores > self.ood_threshold)

    def _instances(self, result: Detections) -> InstanceData:
        found = InstanceData()
        names = {"bboxes": "boxes", "scores": "scores", "labels": "labels"}
        for name, own in names.items():
            found[name] = torch.from_numpy(getattr(result, own).copy())
        if result.ood_scores is not None:
            found.ood_score = torch.from_numpy(result.ood_scores.copy())
            found.set_metainfo({"ood_score_name": self.score})
            if self.ood_threshold is not None:
                found.is_ood = found.ood_score > self.ood_threshold
        return found


def put_in_place(cfg: Config, file: str | Path) -> None:
    """Make ``cfg`` test an exported file in the place of its model, in place.

    Metrics of OOD scores are told to evaluate the score of the file alone.
    """
    cfg.model = {"type": "negvision.ExportedNetwork", "file": str(file)}
    cfg.load_from = None
    evaluators = cfg.get("test_evaluator")
    for evaluator in evaluators if isinstance(evaluators, list | tuple) else [evaluators]:
        if str((evaluator or {}).get("type")).rpartition(".")[2] in _OF_LOGITS:
            evaluator.scores = ()
