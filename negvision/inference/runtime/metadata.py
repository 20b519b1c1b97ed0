"""The metadata of an exported file: how to prepare images, and what the outputs mean."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from negvision.data.images.tiles import Tiles
from negvision.errors import ConfigError, ExportError

# Key of our metadata property in an ONNX file.
KEY = "negvision"
# Raised when older versions would misread the metadata.
FORMAT = 1
TASKS = ("detection", "segmentation", "classification", "face")


@dataclass(frozen=True)
class Preprocessing:
    """The steps from a decoded image to the input of the graph.

    Attributes:
        scale: (width, height) of the resized image, None for no resizing. With ``keep_ratio`` the
            longer side is at most the larger number, the shorter side at most the smaller one.
        keep_ratio: Whether the aspect ratio is kept.
        rgb: Whether the network takes RGB; images are decoded as BGR.
        mean: Subtracted from each channel, in the order of the network. None for no normalization.
        std: Divides each channel after the subtraction.
        pad_divisor: Images are padded at the bottom and on the right to a multiple of it.
        pad_value: Value of the padding, after normalization.
        size: Height and width that the graph requires, None for any.
        as_stored: Whether the EXIF orientation of files is ignored.
    """

    scale: tuple[int, int] | None = None
    keep_ratio: bool = True
    rgb: bool = True
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    pad_divisor: int = 1
    pad_value: float = 0.0
    size: tuple[int, int] | None = None
    as_stored: bool = False


@dataclass(frozen=True)
class Metadata:
    """Everything known about an exported model besides its graph.

    Attributes:
        task: One of ``TASKS``.
        preprocessing: See :class:`Preprocessing`.
        classes: Names, indexed by label; empty for faces.
        precision: "fp32", "fp16" or "int8".
        ood_score: Name of the OOD score, None for a model without one.
        ood_threshold: Higher OOD scores are unknown; None if there is no threshold.
        ood_quantiles: OOD scores of known samples at evenly spaced ranks; empty if not known.
        score_threshold: The graph drops boxes with a lower score.
        f1_threshold: Score with the best F1 on the validation set, from which boxes are shown;
            None if it is not known.
        best_f1: That F1.
        temperatures, offsets: Of each class, which calibrate the scores after the graph, see
            :class:`negvision.data.score_calibration.ScoreCalibration`; None for none.
        iou_threshold: IoU threshold of non-maximum suppression.
        max_boxes: Largest number of boxes per image.
        tiles: Detectors: the tiles in which large images are predicted, as
            :class:`negvision.data.images.tiles.Tiles` reads them; None for whole images.
        face_threshold: Faces: fields of :class:`negvision.data.face_threshold.FaceThreshold`, the
            similarity from which two images show one person; None if there is none.
        flip_sum: Faces: whether the embedding of the mirrored image is added.
        versions: Versions of the packages that exported the model, by import name; "git" is the
            commit.
        config: The full config as text.
    """

    task: str
    preprocessing: Preprocessing
    classes: tuple[str, ...] = ()
    precision: str = "fp32"
    ood_score: str | None = None
    ood_threshold: float | None = None
    ood_quantiles: tuple[float, ...] = ()
    score_threshold: float = 0.0
    f1_threshold: float | None = None
    best_f1: float | None = None
    temperatures: tuple[float, ...] | None = None
    offsets: tuple[float, ...] | None = None
    iou_threshold: float = 1.0
    max_boxes: int = 0
    tiles: str | None = None
    face_threshold: dict[str, Any] | None = None
    flip_sum: bool = False
    versions: dict[str, str] = field(default_factory=dict)
    config: str = ""

    def to_json(self) -> str:
        """The text stored under ``KEY``."""
        return json.dumps({"format": FORMAT, **asdict(self)})

    @classmethod
    def from_json(cls, text: str | None, path: str) -> Metadata:
        """Read the text that :meth:`to_json` wrote; ``path`` is named in errors.

        Raises:
            ExportError: The metadata are missing, malformed or of a later format.
        """
        if not text:
            raise ExportError(
                f"{path}: the model has no negvision metadata, which say how to prepare images. "
                "Export it with negvision export"
            )
        try:
            content = json.loads(text)
            written = content.pop("format")
            if written != FORMAT:
                raise ExportError(
                    f"{path}: the metadata have format {written!r}; this version of negvision "
                    f"reads format {FORMAT}. Use the version that exported the model, or export "
                    "it again"
                )
            own = _tuples(content.pop("preprocessing"))
            found = cls(preprocessing=Preprocessing(**own), **_tuples(content))
            _check(found)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise ExportError(
                f"{path}: the metadata of the model are malformed ({error}). Export it again with "
                "negvision export"
            ) from None
        return found


def _tuples(values: Mapping[str, Any]) -> dict[str, Any]:
    return {key: tuple(v) if isinstance(v, list) else v for key, v in values.items()}


def _check(found: Metadata) -> None:
    """Raise ValueError for values that cannot be used."""
    own = found.preprocessing
    if found.task not in TASKS:
        raise ValueError(f"task is {found.task!r}; it is one of {', '.join(TASKS)}")
    if not isinstance(own.pad_divisor, int) or own.pad_divisor < 1:
        raise ValueError(f"pad_divisor is {own.pad_divisor!r}")
    if (own.mean is None) != (own.std is None):
        raise ValueError("mean and std go together")
    try:
        Tiles.of(found.tiles)
    except ConfigError as error:
        raise ValueError(str(error)) from None
    for name in ("scale", "size"):
        sides = getattr(own, name)
        if sides is not None and not (
            len(sides) == 2 and all(isinstance(side, int) and side > 0 for side in sides)
        ):
            raise ValueError(f"{name} is {sides!r}")
    numbers = (found.ood_threshold or 0.0, *found.ood_quantiles)
    for values in (own.mean or (), own.std or (), numbers):
        if not all(math.isfinite(value) for value in values):
            raise ValueError(f"{values!r} is not finite")
    if (found.f1_threshold is None) != (found.best_f1 is None):
        raise ValueError("f1_threshold and best_f1 go together")
    for value in (found.f1_threshold or 0.0, found.best_f1 or 0.0):
        if not 0 <= value <= 1:
            raise ValueError(f"f1_threshold or best_f1 is {value!r}")
    if any(value == 0 for value in own.std or ()):
        raise ValueError(f"std is {own.std!r}")
