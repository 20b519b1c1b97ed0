"""What an exported file says about itself: how to prepare images, and what its outputs mean."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from negvision.errors import ExportError

# Of the metadata properties of an ONNX file the one that is ours.
KEY = "negvision"
# Raised when older runtimes would misread what is written.
FORMAT = 1
TASKS = ("detection", "segmentation", "face")


@dataclass(frozen=True)
class Preprocessing:
    """From an image file to the input of the graph, as the test pipeline of the config does it.

    Attributes:
        scale: (width, height) of the resized image, or None for the image as it is. With
            ``keep_ratio`` the longer side is at most the larger number, the shorter side at most
            the smaller one.
        keep_ratio: Whether the image keeps its shape.
        rgb: Whether the network takes red first; files are decoded with blue first.
        mean: Of each channel, in the order of the network; subtracted. None for neither.
        std: Divides what is left.
        pad_divisor: Sides become multiples of it, filled up below and on the right.
        pad_value: What they are filled with, after mean and deviation.
        size: Height and width that the graph insists on, or None where any will do.
    """

    scale: tuple[int, int] | None = None
    keep_ratio: bool = True
    rgb: bool = True
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    pad_divisor: int = 1
    pad_value: float = 0.0
    size: tuple[int, int] | None = None


@dataclass(frozen=True)
class Metadata:
    """Everything that is known of an exported model beside its graph.

    Attributes:
        task: Of ``TASKS``.
        preprocessing: See there.
        classes: Names, in the order of labels; empty for faces.
        precision: "fp32", "fp16" or "int8".
        ood_score: Name of the OOD score, or None for a model without one.
        ood_threshold: What scores above it is unknown, or None.
        score_threshold: Boxes of a lower score are not put out.
        iou_threshold: Boxes of a class overlap one another by no more.
        max_boxes: As many boxes an image are put out at most.
        flip_sum: Of faces: whether the mirrored image is added.
        versions: By import name, of what exported the model; "git" is the commit.
        config: The whole config as text.
    """

    task: str
    preprocessing: Preprocessing
    classes: tuple[str, ...] = ()
    precision: str = "fp32"
    ood_score: str | None = None
    ood_threshold: float | None = None
    score_threshold: float = 0.0
    iou_threshold: float = 1.0
    max_boxes: int = 0
    flip_sum: bool = False
    versions: dict[str, str] = field(default_factory=dict)
    config: str = ""

    def to_json(self) -> str:
        """What stands under ``KEY`` in the file."""
        return json.dumps({"format": FORMAT, **asdict(self)})

    @classmethod
    def from_json(cls, text: str | None, path: str) -> Metadata:
        """Read what :meth:`to_json` wrote; ``path`` is named in errors.

        Raises:
            ExportError: There is nothing, or it is malformed or of a later format.
        """
        if not text:
            raise ExportError(
                f"{path}: the model has no metadata of negvision, so there is no telling how "
                "images have to be prepared for it. Export it with tools/export.py"
            )
        try:
            content = json.loads(text)
            written = content.pop("format")
            if written != FORMAT:
                raise ExportError(
                    f"{path}: the metadata have format {written!r} and this negvision reads format "
                    f"{FORMAT}. Use the version that exported the model, or export it anew"
                )
            own = _tuples(content.pop("preprocessing"))
            found = cls(preprocessing=Preprocessing(**own), **_tuples(content))
            _check(found)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise ExportError(
                f"{path}: the metadata of the model are malformed ({error}). Export it anew with "
                "tools/export.py"
            ) from None
        return found


def _tuples(values: Mapping[str, Any]) -> dict[str, Any]:
    return {key: tuple(v) if isinstance(v, list) else v for key, v in values.items()}


def _check(found: Metadata) -> None:
    """Raise ValueError where a value cannot be worked with."""
    own = found.preprocessing
    if found.task not in TASKS:
        raise ValueError(f"task is {found.task!r}; it is one of {', '.join(TASKS)}")
    if not isinstance(own.pad_divisor, int) or own.pad_divisor < 1:
        raise ValueError(f"pad_divisor is {own.pad_divisor!r}")
    if (own.mean is None) != (own.std is None):
        raise ValueError("mean and std go together")
    for name in ("scale", "size"):
        sides = getattr(own, name)
        if sides is not None and not (
            len(sides) == 2 and all(isinstance(side, int) and side > 0 for side in sides)
        ):
            raise ValueError(f"{name} is {sides!r}")
    for values in (own.mean or (), own.std or (), (found.ood_threshold or 0.0,)):
        if not all(math.isfinite(value) for value in values):
            raise ValueError(f"{values!r} is not finite")
    if any(value == 0 for value in own.std or ()):
        raise ValueError(f"std is {own.std!r}")
