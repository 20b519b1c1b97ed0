"""What a metric of OOD scores keeps of the detections of one image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from torch import Tensor

from negvision.errors import ConfigError
from negvision.ood import ood_score


@dataclass(frozen=True)
class ImageBoxes:
    """The N detections of one image.

    Attributes:
        path: Of the image; its identity.
        image_id: In its annotation file.
        is_ood: Whether it is of an OOD data set.
        boxes: (N, 4), x1 y1 x2 y2 in pixels of the original image.
        class_scores: (N,) float64.
        labels: (N,) int64.
        scores: Name of an OOD score to (N,), the model's own first; empty without detections.
    """

    path: str
    image_id: int
    is_ood: bool
    boxes: np.ndarray
    class_scores: np.ndarray
    labels: np.ndarray
    scores: dict[str, np.ndarray]

    @classmethod
    def of_sample(cls, sample: dict, score_names: Sequence[str], num_classes: int) -> ImageBoxes:
        """Take the detections out of a data sample.

        Args:
            sample: ``img_path``, ``img_id``, ``is_ood`` where true, and ``pred_instances``:
                ``bboxes`` (N, 4), ``scores``, ``labels``, ``ood_score`` and, for other scores,
                ``logits`` (N, K) or (N, K + 1) with the background last, ``temperature`` (N,).
            score_names: Scores to take of the logits beside ``ood_score``.
            num_classes: K, the ID classes.

        Raises:
            ConfigError: Something of it is not there.
        """
        missing = [key for key in ("img_path", "img_id") if key not in sample]
        if missing:
            raise ConfigError(
                f"the data samples have no {' and no '.join(missing)}; negvision.OODBoxMetric "
                "needs PackDetInputs with meta_keys that name img_id, img_path and is_ood"
            )
        found = sample["pred_instances"]
        boxes = _array(found["bboxes"]).reshape(-1, 4)
        return cls(
            path=str(sample["img_path"]),
            image_id=sample["img_id"],
            is_ood=bool(sample.get("is_ood", False)),
            boxes=boxes,
            class_scores=_array(found["scores"]).astype(np.float64).reshape(-1),
            labels=_array(found["labels"]).astype(np.int64).reshape(-1),
            # Where there is no proposal mmdet does not ask its box heads, and no field is there.
            scores=_scores_of(found, score_names, num_classes) if len(boxes) else {},
        )

    def at_least(self, threshold: float) -> ImageBoxes:
        """The detections of a class score of at least ``threshold``."""
        kept = self.class_scores >= threshold
        return replace(
            self,
            boxes=self.boxes[kept],
            class_scores=self.class_scores[kept],
            labels=self.labels[kept],
            scores={name: values[kept] for name, values in self.scores.items()},
        )

    def detections(self, category_ids: Sequence[int]) -> list[dict]:
        """In COCO's format; without those of a NaN or infinite box or class score."""
        finite = np.isfinite(self.boxes).all(1) & np.isfinite(self.class_scores)
        found = []
        for row in np.flatnonzero(finite):
            left, top, right, bottom = self.boxes[row].tolist()
            found.append(
                {
                    "image_id": self.image_id,
                    "category_id": category_ids[self.labels[row]],
                    "bbox": [left, top, right - left, bottom - top],
                    "score": float(self.class_scores[row]),
                }
            )
        return found


def _scores_of(found: Any, names: Sequence[str], num_classes: int) -> dict[str, np.ndarray]:
    own = found.get("ood_score_name", "ood_score")
    others = [name for name in names if name != own]
    if "ood_score" not in found or (others and "logits" not in found):
        raise ConfigError(
            "the predictions carry no ood_score and logits, so their head has no OOD score. Set "
            "the type of bbox_head to negvision.AbeTBBoxHead (Faster, Mask and Cascade R-CNN), "
            "negvision.OODBBoxHead (the same without AbeT) or negvision.AbeTATSSHead (ATSS)"
        )
    scores = {own: found["ood_score"]}
    for name in others:
        logits = found["logits"][:, :num_classes]
        scores[name] = ood_score(name, logits, found.get("temperature"))
    return {name: _array(values) for name, values in scores.items()}


def _array(values: Tensor | np.ndarray) -> np.ndarray:
    return values.detach().cpu().numpy() if isinstance(values, Tensor) else np.asarray(values)
