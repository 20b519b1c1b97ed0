"""Run both sides on the same images, in batches of one and of several, and sum up."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from negvision.errors import ExportError
from negvision.export.parity.boxes import compare_boxes, relative
from negvision.inference.runtime import Detections, Embedding, ExportedModel, LabelMap, Metadata
from negvision.inference.runtime.results import Result
from negvision.inference.torch_model import TorchModel

BATCH_SIZES = (1, 4)


@dataclass(frozen=True)
class Tolerance:
    """The largest differences that are let pass.

    Attributes:
        score: Of scores, of OOD scores (relative above 1) and of embeddings (relative to the
            largest component).
        box: Of coordinates, in pixels of the image.
        share: Of boxes, pixels or embeddings so many may differ by more, or stand on one side
            alone.
    """

    score: float
    box: float
    share: float


# Of labels of pixels some are as good as tied. Half precision has 11 bits: a coordinate of 1,000
# pixels is known to half a pixel at best, and neighbours change their order.
TOLERANCES = {"fp32": Tolerance(1e-3, 0.5, 0.0), "fp16": Tolerance(2e-2, 2.0, 0.1)}
_TIED_PIXELS = 1e-3


@dataclass
class Differences:
    """What differs over all images.

    Attributes:
        images: Number of images.
        batch_sizes: In which they ran.
        values: By name ("score", "box", "ood", "labels", "embedding") the differences of all pairs.
        borderline: Boxes of one side alone that rounding decides about.
        unmatched: Other boxes of one side alone.
    """

    images: int = 0
    batch_sizes: Sequence[int] = BATCH_SIZES
    values: dict[str, list[np.ndarray]] = field(default_factory=dict)
    borderline: int = 0
    unmatched: int = 0

    def note(self, **values: np.ndarray | None) -> None:
        """Keep differences, (N,) each."""
        for name, differences in values.items():
            if differences is not None:
                self.values.setdefault(name, []).append(differences.ravel())

    @property
    def compared(self) -> int:
        """Pairs of boxes, pixels or embeddings."""
        return sum(map(len, next(iter(self.values.values()), [])))

    @property
    def largest(self) -> dict[str, float]:
        """The largest difference by name; of labels the share that differs."""
        joined = {name: np.concatenate(parts) for name, parts in self.values.items()}
        return {
            name: float(all_.mean() if name == "labels" else all_.max(initial=0))
            for name, all_ in joined.items()
        }

    def beyond(self, tolerance: Tolerance) -> list[str]:
        """What exceeds ``tolerance``, in words; empty where nothing does."""
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
            found.append(f"{self.unmatched} of {boxes} boxes are on one side alone")
        return found

    def line(self) -> str:
        """One line for people, beginning with what was compared."""
        forms = {"box": "{:.2g} px", "labels": "{:.2%}"}
        values = ", ".join(
            f"{name} {forms.get(name, '{:.2g}').format(value)}"
            for name, value in self.largest.items()
        )
        what = {"box": "boxes", "labels": "pixels", "embedding": "embeddings"}
        [kind] = [word for name, word in what.items() if name in self.values]
        rest = f", {self.borderline} at a threshold" if self.borderline else ""
        rest += f", {self.unmatched} on one side alone" if self.unmatched else ""
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
    """Run both on ``files`` and compare each result with its counterpart.

    Args:
        model: The exported one.
        reference: The one of PyTorch.
        files: Images.
        slack: Within what distance of a threshold rounding may decide about a box.
        batch_sizes: Images that run together; each image runs once for each.

    Raises:
        ExportError: There was nothing to compare: no box on any image.
    """
    found = Differences(images=len(files), batch_sizes=batch_sizes)
    for size in batch_sizes:
        both = (model.predict(files, size), reference.predict(files, size))
        for own, theirs in zip(*both, strict=True):
            compare_results(own, theirs, model.metadata, slack, found)
    if not found.compared and not found.unmatched:
        raise ExportError(
            f"nothing was compared: neither the model nor its export finds a box on the "
            f"{len(files)} images. Give images with objects that it knows: --images DIR"
        )
    return found


def compare_results(
    own: Result, theirs: Result, metadata: Metadata, slack: float, found: Differences
) -> None:
    """Note in ``found`` what differs between two results of one image; see :func:`compare`."""
    if isinstance(own, Detections):
        result = compare_boxes(theirs, own, metadata, slack)
        found.note(score=result.score, box=result.box, ood=result.ood)
        found.borderline += result.borderline
        found.unmatched += result.unmatched
    elif isinstance(own, LabelMap):
        if own.labels.shape != theirs.labels.shape:
            raise ExportError(
                f"labels are {own.labels.shape}, and {theirs.labels.shape} in PyTorch"
            )
        found.note(labels=own.labels != theirs.labels)
        if own.ood_scores is not None:
            found.note(ood=relative(theirs.ood_scores, own.ood_scores))
    elif isinstance(own, Embedding):
        scale = max(float(np.abs(theirs.vector).max()), 1e-12)
        found.note(embedding=relative(theirs.vector / scale, own.vector / scale).max(keepdims=True))
