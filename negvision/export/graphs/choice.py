"""Which graph a model becomes, or why it cannot become one."""

from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn

from negvision.errors import ExportError
from negvision.export.graphs.dense import DenseDetector, why_not_dense
from negvision.export.graphs.faces import FaceEmbedder, face_size
from negvision.export.graphs.two_stage import TwoStageDetector, why_not_two_stage
from negvision.face.recognizer import FaceRecognizer

# More than any image has: such a size cuts nothing off.
_WHOLE = 2**31 - 1


@dataclass(frozen=True)
class Exportable:
    """A graph and what exporters need to know of it.

    Attributes:
        module: From tensors to a tuple of tensors.
        task: Of :data:`negvision.inference.runtime.metadata.TASKS`.
        inputs: Example inputs by name, "image" first.
        defaults: What the other inputs are where nobody gives them.
        dynamic: Of each input and output the names of the axes that vary, by place.
        outputs: Names.
        num_classes: 0 for faces.
        has_ood: Whether there are OOD scores.
        size: Height and width that the graph insists on, or None.
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


def choose_graph(model: nn.Module, resized: tuple[int, int] | None = None) -> Exportable:
    """The graph of ``model``, which is in evaluation with its weights loaded.

    Args:
        model: It may be changed in place.
        resized: Height and width of all images, where the test pipeline makes them so.

    Raises:
        ExportError: There is none; the message says what of the model is not known.
    """
    if isinstance(model, FaceRecognizer):
        return _face(model, resized)
    reasons = []
    for kind, why_not in ((DenseDetector, why_not_dense), (TwoStageDetector, why_not_two_stage)):
        reasons.append(why_not(model))
        if reasons[-1] is None:
            return _detector(kind(model))
    if find_spec("mmseg"):
        from negvision.export.graphs import segmentation

        reasons.append(segmentation.why_not_segmentor(model))
        if reasons[-1] is None:
            segmentation.replace_adaptive_pools(model)
            return _segmentor(segmentation.Segmentor(model))
    reason = reasons[_likely(model)] if len(reasons) == 3 else reasons[0]
    raise ExportError(
        f"{type(model).__name__} cannot be exported: {reason}.\nWhat can be: FaceRecognizer; "
        "detectors of one stage with mmdet's anchor heads or negvision's (ATSS, RetinaNet); Faster "
        "R-CNN without masks; segmentors of mmseg with one decode head. docs/export.md says more"
    )


def _likely(model: nn.Module) -> int:
    """The kind that a model comes closest to: 0 one stage, 1 two stages, 2 a segmentor."""
    if hasattr(model, "decode_head"):
        return 2
    return 1 if hasattr(model, "roi_head") else 0


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


def _detector(module: DenseDetector | TwoStageDetector) -> Exportable:
    cfg, head = module.cfg, module.head
    outputs = ("boxes", "scores", "labels", *["ood_scores"] * module.has_ood, "counts")
    return Exportable(
        module.eval(),
        "detection",
        # Sides of which no level of a pyramid is a single pixel: those are a case of their own.
        inputs={
            "image": torch.rand(2, 3, 256, 320),
            "sizes": torch.tensor([[250, 300], [256, 320]]),
        },
        defaults={"sizes": torch.full((1, 2), _WHOLE)},
        dynamic={
            "image": {0: "batch", 2: "height", 3: "width"},
            "sizes": {0: "batch"},
            **{name: {0: "batch"} for name in outputs},
        },
        outputs=outputs,
        num_classes=head.num_classes,
        has_ood=module.has_ood,
        limits={
            "score_threshold": float(cfg.get("score_thr", 0)),
            "iou_threshold": float(cfg.nms["iou_threshold"]),
            "max_boxes": int(cfg.max_per_img),
        },
    )


def _segmentor(module: nn.Module) -> Exportable:
    outputs = ("labels", *["ood_scores"] * module.has_ood)
    sides = {0: "batch", 1: "out_height", 2: "out_width"}
    return Exportable(
        module.eval(),
        "segmentation",
        inputs={
            "image": torch.rand(2, 3, 256, 320),
            "size": torch.tensor([250, 310]),
            "out_size": torch.tensor([125, 155]),
        },
        defaults={"size": torch.full((2,), _WHOLE), "out_size": torch.zeros(2, dtype=torch.int64)},
        dynamic={
            "image": {0: "batch", 2: "height", 3: "width"},
            **dict.fromkeys(outputs, sides),
        },
        outputs=outputs,
        num_classes=module.model.decode_head.num_classes,
        has_ood=module.has_ood,
    )
