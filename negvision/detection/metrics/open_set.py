"""Open-set detection: are unknown objects found, and are they taken for known ones?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from negvision.detection.metrics.box_matching import match_boxes
from negvision.detection.metrics.coco_evaluation import evaluate_coco

# Share of the boxes on ID images that a threshold on the OOD score keeps.
KEPT_ID = 0.95


@dataclass(frozen=True)
class OpenSetImage:
    """The N boxes of one image, and its M unknown objects."""

    boxes: np.ndarray  # (N, 4), x1 y1 x2 y2
    class_scores: np.ndarray  # (N,)
    ood_scores: np.ndarray  # (N,)
    unknown: np.ndarray  # (M, 4), x1 y1 x2 y2; of an ID image without any


def open_set_figures(
    known: Sequence[OpenSetImage],
    unknown: Sequence[OpenSetImage],
    class_score: float,
    iou: float = 0.5,
) -> dict[str, float]:
    """What becomes of the unknown objects of OOD images.

    Boxes with at least ``class_score`` count. A box is called unknown if its OOD score exceeds
    that of 95 % of the boxes on ID images. On an OOD image boxes choose objects by descending
    class score, as in COCO.

    Returns:
        ``unknown_recall``, the share of unknown objects whose box is called unknown;
        ``open_set_error``, the number of those whose box keeps a known class (the absolute
        open-set error); ``unknown_objects``, all of them; ``unknown_ap50``, COCO's AP at IoU 0.5 of
        the unknown objects, with the boxes of all images ranked by their OOD score.

    Source: Miller et al., "Dropout Sampling for Robust Object Detection in Open-Set Conditions",
    ICRA 2018 (the error); Han et al., "Expanding Low-Density Latent Regions for Open-Set Object
    Detection", CVPR 2022 (with AP of the unknown).

    Example:
        >>> box, none = np.array([[0.0, 0, 10, 10]]), np.zeros((0, 4))
        >>> known = [OpenSetImage(box, np.array([0.9]), np.array([-2.0]), none)]
        >>> unknown = [OpenSetImage(box, np.array([0.8]), np.array([-1.0]), box)]
        >>> found = open_set_figures(known, unknown, class_score=0.5)
        >>> [round(value, 3) for value in found.values()]
        [1.0, 0, 1, 1.0]
    """
    inside = np.concatenate([one.ood_scores[one.class_scores >= class_score] for one in known])
    limit = np.quantile(inside, KEPT_ID, method="inverted_cdf") if len(inside) else np.inf
    objects = called = mistaken = 0
    for one in unknown:
        kept = np.flatnonzero(one.class_scores >= class_score)
        kept = kept[np.argsort(-one.class_scores[kept], kind="stable")]
        free = np.zeros(len(one.unknown), dtype=bool)
        taken = match_boxes(_tensor(one.boxes[kept]), _tensor(one.unknown), free, iou)
        flagged = one.ood_scores[kept] > limit
        objects += len(one.unknown)
        called += int((flagged & (taken >= 0)).sum())
        mistaken += int((~flagged & (taken >= 0)).sum())
    return {
        "unknown_recall": called / objects if objects else 0.0,
        "open_set_error": mistaken,
        "unknown_objects": objects,
        "unknown_ap50": _average_precision([*known, *unknown], class_score, iou),
    }


def _average_precision(images: Sequence[OpenSetImage], class_score: float, iou: float) -> float:
    truth: dict[str, list[dict[str, Any]]] = {
        "images": [{"id": number} for number in range(len(images))],
        "annotations": [],
        "categories": [{"id": 1, "name": "unknown"}],
    }
    detections: list[Mapping[str, Any]] = []
    for number, one in enumerate(images):
        for box in _sides(one.unknown):
            area = box[2] * box[3]
            common = {"image_id": number, "category_id": 1, "bbox": box}
            truth["annotations"].append(
                {"id": len(truth["annotations"]) + 1, "area": area, "iscrowd": 0, **common}
            )
        kept = one.class_scores >= class_score
        for box, score in zip(_sides(one.boxes[kept]), one.ood_scores[kept].tolist(), strict=True):
            common = {"image_id": number, "category_id": 1, "bbox": box}
            detections.append({**common, "score": score})
    if not truth["annotations"]:
        return 0.0
    return evaluate_coco(truth, detections, [1]).average_precision(iou=iou)


def _sides(boxes: np.ndarray) -> list[list[float]]:
    """x1 y1 x2 y2 to x, y, width, height."""
    return np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], 1).tolist()


def _tensor(boxes: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.asarray(boxes, np.float64).reshape(-1, 4))
