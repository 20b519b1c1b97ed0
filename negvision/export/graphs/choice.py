"""Choose the graph of a model, and describe both in its metadata."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from mmengine.config import Config
from mmengine.model import BaseModel
from torch import Tensor, nn

from negvision.classification.classifier import ScoredClassifier
from negvision.data.score_calibration import ScoreCalibration
from negvision.data.score_threshold import ScoreThreshold
from negvision.engine.checkpoints.provenance import provenance
from negvision.engine.config.options import tiles_of
from negvision.errors import ExportError
from negvision.export.graphs.classification import Classifier
from negvision.export.graphs.dense import DenseDetector, why_not_dense
from negvision.export.graphs.faces import FaceEmbedder, face_size
from negvision.export.graphs.segmentation import (
    Segmentor,
    replace_adaptive_pools,
    why_not_segmentor,
)
from negvision.export.graphs.two_stage import TwoStageDetector, why_not_two_stage
from negvision.face.recognizer import FaceRecognizer
from negvision.inference.pipeline import read_preprocessing
from negvision.inference.runtime.metadata import Metadata
from negvision.inference.weights import named_classes, ood_of, ood_quantiles
from negvision.ood.statistics import check_fitted

# Larger than any image, so that nothing is cut off.
_UNLIMITED = 2**31 - 1


@dataclass(frozen=True)
class Exportable:
    """A graph and what exporters need to know about it.

    Attributes:
        module: Takes tensors and returns a tuple of tensors.
        task: One of :data:`negvision.inference.runtime.metadata.TASKS`.
        inputs: Example inputs by name, "image" first.
        dynamic: Names of the dynamic axes of each input and output, by index.
        outputs: Names.
        defaults: Values of the other inputs if they are not given.
        num_classes: 0 for faces.
        has_ood: Whether there are OOD scores.
        size: Height and width that the graph requires, or None.
        limits: Of the boxes, for the metadata.
    """

    module: nn.Module
    task: str
    inputs: dict[str, Tensor]
    dynamic: dict[str, dict[int, str]]
    outputs: tuple[str, ...]
    defaults: dict[str, Tensor] = field(default_factory=dict)
    num_classes: int = 0
    has_ood: bool = False
    size: tuple[int, int] | None = None
    limits: dict[str, Any] = field(default_factory=dict)


def graph_and_metadata(
    cfg: Config, model: BaseModel, meta: Mapping[str, Any], precision: str = "fp32"
) -> tuple[Exportable, Metadata]:
    """The graph of a model and the metadata of its file.

    Args:
        cfg: The full config.
        model: With its weights and, if it has one, its OOD threshold; may be changed in place.
        meta: Of the checkpoint.
        precision: "fp32", "fp16" or "int8".

    Raises:
        ExportError: The model or its preprocessing is not supported, or it has another number of
            classes than the config or checkpoint names.
    """
    own = read_preprocessing(cfg, model)
    resized = None if own.scale is None or own.keep_ratio else own.scale[::-1]
    calibration = ScoreCalibration.of_meta(meta, "the checkpoint")
    graph = choose_graph(model, resized or own.size, calibration)
    found = provenance()
    versions = {**found["versions"], **({"git": found["git"]} if found["git"] else {})}
    score, threshold = ood_of(model) if graph.has_ood else (None, None)
    classes = named_classes(cfg, meta) if graph.num_classes else ()
    best = ScoreThreshold.of_meta(meta, "the checkpoint") if graph.task == "detection" else None
    tiles = tiles_of(cfg) if graph.task == "detection" else None
    if calibration is not None and len(calibration.offsets) != graph.num_classes:
        raise ExportError(
            f"the checkpoint is calibrated for {len(calibration.offsets)} classes, and the model "
            f"has {graph.num_classes}: calibrate it again with negvision calibrate"
        )
    if classes and len(classes) != graph.num_classes:
        raise ExportError(
            f"the model has {graph.num_classes} classes, but the checkpoint or the config names "
            f"{len(classes)}: {', '.join(classes[:5])}... Use the config that it was trained with"
        )
    return graph, Metadata(
        task=graph.task,
        preprocessing=replace(own, size=graph.size),
        classes=classes or tuple(str(number) for number in range(graph.num_classes)),
        precision=precision,
        ood_score=score,
        ood_threshold=threshold,
        ood_quantiles=ood_quantiles(meta) if graph.has_ood else (),
        f1_threshold=None if best is None else best.value,
        best_f1=None if best is None else best.f1,
        temperatures=None if calibration is None else calibration.temperatures,
        offsets=None if calibration is None else calibration.offsets,
        tiles=None if tiles is None else str(tiles),
        face_threshold=meta.get("face_threshold") if graph.task == "face" else None,
        flip_sum=bool(getattr(model, "flip_test", False)),
        versions=versions,
        config=cfg.pretty_text,
        **graph.limits,
    )


def choose_graph(
    model: BaseModel,
    resized: tuple[int, int] | None = None,
    calibration: ScoreCalibration | None = None,
) -> Exportable:
    """The graph of ``model``, which is in evaluation mode with its weights loaded.

    Args:
        model: It may be changed in place.
        resized: Height and width of all images, if the test pipeline resizes to a fixed size.
        calibration: Of a segmentor, whose graph then has the scores of its labels.

    Raises:
        ExportError: The model is not supported; the message says which part.
    """
    check_fitted(model)
    if isinstance(model, FaceRecognizer):
        return _face(model, resized)
    if isinstance(model, ScoredClassifier):
        return _classifier(model, resized)
    if (dense := why_not_dense(model)) is None:
        return _detector(DenseDetector(model))
    if (two_stage := why_not_two_stage(model)) is None:
        return _detector(TwoStageDetector(model))
    if (segmentor := why_not_segmentor(model)) is None:
        replace_adaptive_pools(model)
        scales = None if calibration is None else torch.tensor(calibration.temperatures)
        return _segmentor(Segmentor(model, scales))
    if hasattr(model, "decode_head"):
        reason = segmentor
    else:
        reason = two_stage if hasattr(model, "roi_head") else dense
    raise ExportError(
        f"{type(model).__name__} cannot be exported: {reason}.\nSupported are FaceRecognizer; "
        "single-stage detectors with anchor heads of mmdet or negvision (ATSS, RetinaNet); Faster "
        "R-CNN without masks; segmentors of mmseg with one decode head; classifiers of negvision. "
        "See docs/export.md"
    )


def _face(model: FaceRecognizer, resized: tuple[int, int] | None) -> Exportable:
    size = face_size(model, resized)
    return Exportable(
        FaceEmbedder(model).eval(),
        "face",
        inputs={"image": torch.rand(2, 3, *size)},
        dynamic={"image": {0: "batch"}, "embeddings": {0: "batch"}},
        outputs=("embeddings",),
        size=size,
    )


def _classifier(model: ScoredClassifier, resized: tuple[int, int] | None) -> Exportable:
    outputs = ("probabilities", "ood_scores")
    # Pooling takes any size, but images that all have one need no graph for others.
    sides = {} if resized else {2: "height", 3: "width"}
    return Exportable(
        Classifier(model).eval(),
        "classification",
        inputs={"image": torch.rand(2, 3, *(resized or (96, 128)))},
        dynamic={"image": {0: "batch", **sides}, **{name: {0: "batch"} for name in outputs}},
        outputs=outputs,
        num_classes=model.num_classes,
        has_ood=True,
        size=resized,
    )


def _detector(module: DenseDetector | TwoStageDetector) -> Exportable:
    cfg: Any = module.cfg
    outputs = ("boxes", "scores", "labels", *["ood_scores"] * module.has_ood, "counts")
    return Exportable(
        module.eval(),
        "detection",
        # At these sides no pyramid level is a single pixel, which exporters would specialize.
        inputs={
            "image": torch.rand(2, 3, 256, 320),
            "sizes": torch.tensor([[250, 300], [256, 320]]),
        },
        defaults={"sizes": torch.full((1, 2), _UNLIMITED)},
        dynamic={
            "image": {0: "batch", 2: "height", 3: "width"},
            "sizes": {0: "batch"},
            **{name: {0: "batch"} for name in outputs},
        },
        outputs=outputs,
        num_classes=module.head.num_classes,
        has_ood=module.has_ood,
        limits={
            "score_threshold": float(cfg.get("score_thr", 0)),
            "iou_threshold": float(cfg.nms["iou_threshold"]),
            "max_boxes": int(cfg.max_per_img),
        },
    )


def _segmentor(module: Segmentor) -> Exportable:
    scored = ["scores"] * (module.temperatures is not None)
    outputs = ("labels", *["ood_scores"] * module.has_ood, *scored)
    sides = {0: "batch", 1: "out_height", 2: "out_width"}
    return Exportable(
        module.eval(),
        "segmentation",
        inputs={
            "image": torch.rand(2, 3, 256, 320),
            "size": torch.tensor([250, 310]),
            "out_size": torch.tensor([125, 155]),
        },
        defaults={
            "size": torch.full((2,), _UNLIMITED),
            "out_size": torch.zeros(2, dtype=torch.int64),
        },
        dynamic={
            "image": {0: "batch", 2: "height", 3: "width"},
            **dict.fromkeys(outputs, sides),
        },
        outputs=outputs,
        num_classes=module.model.decode_head.num_classes,
        has_ood=module.has_ood,
    )
