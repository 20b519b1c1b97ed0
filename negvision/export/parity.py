"""Compare the predictions of an exported model with those of PyTorch."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from negvision.errors import ExportError
from negvision.inference.runtime import (
    Classification,
    Detections,
    Embedding,
    ExportedModel,
    LabelMap,
    Metadata,
)
from negvision.inference.runtime.results import Result
from negvision.inference.torch_model import TorchModel

BATCH_SIZES = (1, 4)
# Boxes of one label with a larger IoU are the same box.
_SAME = 0.5


@dataclass(frozen=True)
class Tolerance:
    """The largest accepted differences.

    Attributes:
        score: Of scores, of probabilities, of OOD scores (relative above 1) and of embeddings
            (relative to the largest component).
        box: Of coordinates, in pixels of the image.
        share: Share of boxes, pixels, classified images or embeddings that may differ by more or be
            unmatched.
    """

    score: float
    box: float
    share: float


# Half precision has 11 bits: a coordinate of 1,000 pixels is accurate to half a pixel at best, and
# neighbors change their order.
TOLERANCES = {"fp32": Tolerance(1e-3, 0.5, 0.0), "fp16": Tolerance(2e-2, 2.0, 0.1)}
# Share of pixels whose two best labels are practically tied.
_TIED_PIXELS = 1e-3


@dataclass
class Differences:
    """The differences over all images.

    Attributes:
        images: Number of images.
        batch_sizes: The batch sizes with which each image was predicted.
        values: Differences of all pairs, by name: "score", "box", "ood", "labels",
            "probability", "embedding".
        borderline: Unmatched boxes that rounding explains.
        unmatched: Other unmatched boxes.
    """

    images: int = 0
    batch_sizes: Sequence[int] = BATCH_SIZES
    values: dict[str, list[np.ndarray]] = field(default_factory=dict)
    borderline: int = 0
    unmatched: int = 0

    def note(self, **values: np.ndarray | None) -> None:
        """Add differences, (N,) each."""
        for name, differences in values.items():
            if differences is not None:
                self.values.setdefault(name, []).append(differences.ravel())

    @property
    def compared(self) -> int:
        """Pairs of boxes, pixels, classified images or embeddings."""
        return sum(map(len, next(iter(self.values.values()), [])))

    @property
    def largest(self) -> dict[str, float]:
        """The largest difference by name; for labels the share that differs."""
        joined = {name: np.concatenate(parts) for name, parts in self.values.items()}
        return {
            name: float(all_.mean() if name == "labels" else all_.max(initial=0))
            for name, all_ in joined.items()
        }

    def beyond(self, tolerance: Tolerance) -> list[str]:
        """Descriptions of what exceeds ``tolerance``."""
        found = []
        for name, parts in self.values.items():
            limit = tolerance.box if name == "box" else 0 if name == "labels" else tolerance.score
            allowed = max(tolerance.share, _TIED_PIXELS if name == "labels" else 0)
            differences = np.concatenate(parts)
            count = int((differences > limit).sum())
            if count > allowed * len(differences):
                found.append(
                    f"{name}: {count:,} of {len(differences):,} differ by more than {limit:g}, "
                    f"at most {self.largest[name]:.3g}"
                )
        boxes = self.compared + self.unmatched
        if self.unmatched > tolerance.share * boxes:
            found.append(f"{self.unmatched} of {boxes} boxes are unmatched")
        return found

    def line(self) -> str:
        """A summary in one line."""
        forms = {"box": "{:.2g} px", "labels": "{:.2%}"}
        values = ", ".join(
            f"{name} {forms.get(name, '{:.2g}').format(value)}"
            for name, value in self.largest.items()
        )
        what = {
            "box": "boxes",
            "labels": "pixels",
            "probability": "predictions",
            "embedding": "embeddings",
        }
        [kind] = [word for name, word in what.items() if name in self.values]
        rest = f", {self.borderline} at a threshold" if self.borderline else ""
        rest += f", {self.unmatched} unmatched" if self.unmatched else ""
        return (
            f"{self.images} images, batches of {' and '.join(map(str, self.batch_sizes))}: "
            f"{self.compared:,} {kind} compared{rest}; largest differences: {values}"
        )


def compare(
    model: ExportedModel,
    reference: TorchModel,
    files: Sequence[Path],
    slack: float = 1e-3,
    batch_sizes: Sequence[int] = BATCH_SIZES,
) -> Differences:
    """Run both models on ``files`` and compare their results.

    Args:
        model: The exported model.
        reference: The PyTorch model.
        files: Images.
        slack: Distance from a threshold within which rounding may decide about a box.
        batch_sizes: Each image is predicted once with each batch size.

    Raises:
        ExportError: There is no box on any image, so nothing was compared.
    """
    found = Differences(images=len(files), batch_sizes=batch_sizes)
    for size in batch_sizes:
        both = (model.predict(files, size), reference.predict(files, size))
        for own, theirs in zip(*both, strict=True):
            compare_results(own, theirs, model.metadata, slack, found)
    if not found.compared and not found.unmatched:
        raise ExportError(
            f"nothing was compared: neither the model nor its export finds a box on the "
            f"{len(files)} images. Give images of objects that it detects: --images DIR"
        )
    return found


def check_defaults(
    model: ExportedModel, file: Path, batch_sizes: Sequence[int] = BATCH_SIZES
) -> None:
    """Run an ONNX file without its optional inputs, which count as the full size.

    Args:
        model: The exported model.
        file: An image, which fills each batch.
        batch_sizes: Images per batch.

    Raises:
        ExportError: It does not run, or its outputs are others than with the full size.
    """
    inputs = model.inputs_of(next(iter(model.batches([file]))))
    for size in batch_sizes:
        image = np.repeat(inputs["image"], size, 0)
        given = {"image": image}
        for name, value in inputs.items():
            if name != "image":
                shape = (size, 2) if value.ndim == 2 else (2,)
                given[name] = np.broadcast_to(np.array(image.shape[-2:], np.int64), shape).copy()
        wanted, found = model.graph(given), model.graph({"image": image})
        for name, values in wanted.items():
            if values.shape != found[name].shape or not np.allclose(
                values, found[name], rtol=1e-4, atol=1e-5, equal_nan=True
            ):
                raise ExportError(
                    f"without the optional inputs {', '.join(given.keys() - {'image'})}, the "
                    f"output {name!r} of a batch of {size} is another than with the full size"
                )


def compare_results(
    own: Result, theirs: Result, metadata: Metadata, slack: float, found: Differences
) -> None:
    """Add the differences of two results of one image to ``found``; see :func:`compare`."""
    assert type(own) is type(theirs)
    if isinstance(own, Detections) and isinstance(theirs, Detections):
        _compare_boxes(theirs, own, metadata, slack, found)
    elif isinstance(own, LabelMap) and isinstance(theirs, LabelMap):
        if own.labels.shape != theirs.labels.shape:
            raise ExportError(
                f"labels have the shape {own.labels.shape}, and {theirs.labels.shape} in PyTorch"
            )
        found.note(labels=own.labels != theirs.labels)
        if own.ood_scores is not None and theirs.ood_scores is not None:
            found.note(ood=_relative(theirs.ood_scores, own.ood_scores))
        if own.scores is not None and theirs.scores is not None:
            # Classes have temperatures of their own.
            same = own.labels == theirs.labels
            found.note(score=_absolute(theirs.scores, own.scores)[same])
    elif isinstance(own, Classification) and isinstance(theirs, Classification):
        difference = _absolute(theirs.probabilities, own.probabilities)
        found.note(probability=difference.max(keepdims=True))
        if own.ood_score is not None and theirs.ood_score is not None:
            scores = np.array([theirs.ood_score]), np.array([own.ood_score])
            found.note(ood=_relative(*scores))
    elif isinstance(own, Embedding) and isinstance(theirs, Embedding):
        scale = max(float(np.abs(theirs.vector).max()), 1e-12)
        difference = _relative(theirs.vector / scale, own.vector / scale)
        found.note(embedding=difference.max(keepdims=True))


def _compare_boxes(
    one: Detections, other: Detections, metadata: Metadata, slack: float, found: Differences
) -> None:
    """Match the boxes of two runs on one image.

    Rounding explains an unmatched box if its score is within ``slack`` of the score threshold or of
    the last box that was returned, or if its IoU with another box of its label is within ten times
    ``slack`` of the NMS threshold, or with such a box above that threshold.
    """
    pairs = _pairs(one, other)
    ours, theirs = (np.array([pair[side] for pair in pairs], np.int64) for side in (0, 1))
    explained = [
        *_borderline(one, other, set(ours.tolist()), metadata, slack),
        *_borderline(other, one, set(theirs.tolist()), metadata, slack),
    ]
    found.note(
        score=_absolute(one.scores[ours], other.scores[theirs]),
        box=_absolute(one.boxes[ours], other.boxes[theirs]).max(1, initial=0),
    )
    if one.ood_scores is not None and other.ood_scores is not None:
        found.note(ood=_relative(one.ood_scores[ours], other.ood_scores[theirs]))
    found.borderline += sum(explained)
    found.unmatched += len(explained) - sum(explained)


def _absolute(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Absolute differences; infinite for a NaN."""
    difference = np.abs(one.astype(np.float64) - other)
    return np.where(np.isnan(difference), np.inf, difference)


def _relative(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Absolute differences, relative for numbers above 1; infinite for a NaN."""
    return _absolute(one, other) / np.maximum(np.nan_to_num(np.abs(one)), 1)


def _iou(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """IoU (N, M) of boxes (N, 4) and (M, 4); 0 if neither has an area."""
    low = np.maximum(one[:, None, :2], other[None, :, :2])
    high = np.minimum(one[:, None, 2:], other[None, :, 2:])
    inner = np.clip(high - low, 0, None).prod(-1)
    area, other_area = ((b[:, 2:] - b[:, :2]).prod(-1) for b in (one, other))
    union = area[:, None] + other_area[None] - inner
    return np.divide(inner, union, out=np.zeros_like(inner), where=union > 0)


def _pairs(one: Detections, other: Detections) -> list[tuple[int, int]]:
    """Greedy matching by descending score: the free box of the same label with the largest IoU."""
    overlap = _iou(one.boxes, other.boxes)
    overlap[one.labels[:, None] != other.labels[None]] = 0
    pairs = []
    for row in range(len(one) if len(other) else 0):
        column = int(overlap[row].argmax())
        if overlap[row, column] > _SAME:
            pairs.append((row, column))
            overlap[:, column] = 0
    return pairs


def _borderline(
    one: Detections, other: Detections, matched: set[int], metadata: Metadata, slack: float
) -> list[bool]:
    """Whether rounding explains each unmatched box of ``one``."""
    rest = [row for row in range(len(one)) if row not in matched]
    if not rest:
        return []
    limit = metadata.score_threshold
    if max(len(one), len(other)) >= metadata.max_boxes:
        limit = max(limit, *(float(side.scores.min()) for side in (one, other) if len(side)))
    boxes = np.concatenate([one.boxes, other.boxes])
    labels = np.concatenate([one.labels, other.labels])
    overlap = _iou(one.boxes[rest], boxes)
    overlap[one.labels[rest][:, None] != labels[None]] = 0
    at_threshold = (np.abs(overlap - metadata.iou_threshold) <= 10 * slack).any(1)
    excused = (np.abs(one.scores[rest] - limit) <= slack) | at_threshold
    # If rounding keeps or suppresses a box, it also decides about those that the box suppresses.
    suppressed = overlap[:, rest] > metadata.iou_threshold
    return (excused | (suppressed & excused[None]).any(1)).tolist()
