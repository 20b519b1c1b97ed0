"""The other side of a comparison: the model in PyTorch, as ``tools/test.py`` runs it."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.dataset import Compose, pseudo_collate
from mmengine.model import BaseModel
from mmengine.registry import DefaultScope

from negvision.export.pipeline import image_pipeline
from negvision.export.runtime.results import Detections, Embedding, LabelMap


class Reference:
    """A model of PyTorch with the test pipeline of its config.

    Args:
        cfg: The config.
        model: In evaluation.
    """

    def __init__(self, cfg: Config, model: BaseModel) -> None:
        self.model = model
        self.scope = cfg.get("default_scope", "mmengine")
        with DefaultScope.overwrite_default_scope(self.scope):
            self.pipeline = Compose(image_pipeline(cfg))

    def predict(self, batches: Sequence[Sequence[Path]]) -> Iterator:
        """Results of files, batch by batch, as those of ``ExportedModel.predict``."""
        for batch in batches:
            packed = [self.pipeline({"img_path": str(path)}) for path in batch]
            with torch.no_grad():
                for sample in self.model.test_step(pseudo_collate(packed)):
                    yield _result(sample)


def _result(sample) -> Detections | LabelMap | Embedding:
    if "embedding" in sample:
        return Embedding(sample.embedding.numpy())
    if "pred_sem_seg" in sample:
        labels = sample.pred_sem_seg.data[0].to(torch.int32).numpy()
        scores = sample.ood_map.data[0].numpy() if "ood_map" in sample else None
        unknown = sample.ood_mask.data[0].numpy() if "ood_mask" in sample else None
        return LabelMap(labels, scores, unknown)
    found = sample.pred_instances
    ood, unknown = (
        found[name].numpy() if name in found else None for name in ("ood_score", "is_ood")
    )
    return Detections(
        found.bboxes.numpy(), found.scores.numpy(), found.labels.numpy(), ood, unknown
    )
