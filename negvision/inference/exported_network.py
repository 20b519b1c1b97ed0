"""An exported model as the model of a config, so that the same metrics evaluate it."""

import dataclasses
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.model import BaseModel
from mmengine.structures import InstanceData, PixelData

from negvision.engine.checkpoints.channels import KEY
from negvision.inference.runtime import Classification, Embedding, ExportedModel, LabelMap
from negvision.inference.runtime.images import batched, prepare
from negvision.inference.runtime.results import Detections, Result
from negvision.registry import MODELS

SUFFIX = ".onnx"
# Metrics that compute further scores from logits, which exported models do not return.
_OF_LOGITS = ("OODBoxMetric", "OODPixelMetric", "OODImageMetric")


@MODELS.register_module()
class ExportedNetwork(BaseModel):
    """Tests an ONNX file on the images that the test pipeline of a config packs.

    The file defines channel order, normalization and padding, so a ``data_preprocessor`` is
    ignored. Resizing is done by the pipeline.

    Args:
        file: Written by ``negvision export``.

    Attributes:
        score, ood_threshold: As in a head with an OOD score; only if the file has one.

    Raises:
        ExportError: See :class:`negvision.inference.runtime.ExportedModel`.

    In a config::

        model = dict(type="negvision.ExportedNetwork", file="atss.onnx")
    """

    def __init__(self, file: str) -> None:
        super().__init__()
        self.exported = ExportedModel(file)
        own = self.exported.metadata
        self._as_packed = dataclasses.replace(own.preprocessing, scale=None)
        if own.ood_score is not None:
            # The attributes that `negvision.ood.threshold.set_threshold` looks for.
            self.score = own.ood_score
            self.ood_threshold = own.ood_threshold

    def test_step(self, data: dict[str, Any]) -> list:
        """The data samples of a batch with the predictions of the exported model."""
        samples = data["data_samples"]
        batch = []
        for pixels, sample in zip(data["inputs"], samples, strict=True):
            one = prepare(pixels.numpy().transpose(1, 2, 0), self._as_packed)
            original = sample.metainfo.get("ori_shape", one.original)
            batch.append(dataclasses.replace(one, original=tuple(original)))
        parts = batched(batch, len(batch), self.exported.fits)
        results = [result for part in parts for result in self.exported.run(part)]
        for sample, result in zip(samples, results, strict=True):
            self._add(sample, result)
        return samples

    def forward(self, *args, **kwargs) -> None:
        """Not supported: an exported model cannot be trained."""
        raise NotImplementedError("an exported model only supports test_step")

    def _add(self, sample, result: Result) -> None:
        if isinstance(result, Embedding):
            sample.embedding = torch.from_numpy(result.vector.copy())
        elif isinstance(result, Classification):
            probabilities = torch.from_numpy(result.probabilities.copy())
            sample.pred_score, sample.pred_label = probabilities.max(0)
            if result.ood_score is not None:
                sample.ood_score = torch.tensor(result.ood_score)
                sample.set_metainfo({"ood_score_name": self.score})
                if self.ood_threshold is not None:
                    sample.pred_is_ood = sample.ood_score > self.ood_threshold
        elif isinstance(result, LabelMap):
            labels = torch.from_numpy(result.labels).long()
            sample.pred_sem_seg = PixelData(data=labels[None])
            if result.ood_scores is not None:
                scores = torch.from_numpy(result.ood_scores)[None]
                sample.ood_map = PixelData(metainfo={"score": self.score}, data=scores)
                if self.ood_threshold is not None:
                    sample.ood_mask = PixelData(data=scores > self.ood_threshold)
        else:
            sample.pred_instances = self._instances(result)

    def _instances(self, result: Detections) -> InstanceData:
        boxes, scores, labels = (
            torch.from_numpy(values.copy())
            for values in (result.boxes, result.scores, result.labels)
        )
        found = InstanceData(bboxes=boxes, scores=scores, labels=labels)
        if result.ood_scores is not None:
            found.ood_score = torch.from_numpy(result.ood_scores.copy())
            found.set_metainfo({"ood_score_name": self.score})
            if self.ood_threshold is not None:
                found.is_ood = found.ood_score > self.ood_threshold
        return found


def put_in_place(cfg: Config, file: str | Path) -> None:
    """Change ``cfg`` in place so that it tests an exported file instead of its model.

    Metrics of several OOD scores evaluate the score of the file only.
    """
    cfg.model = {"type": "negvision.ExportedNetwork", "file": str(file)}
    cfg.load_from = None
    cfg.pop(KEY, None)
    evaluators = cfg.get("test_evaluator")
    for evaluator in evaluators if isinstance(evaluators, list | tuple) else [evaluators]:
        if str((evaluator or {}).get("type")).rpartition(".")[2] in _OF_LOGITS:
            evaluator.scores = ()
