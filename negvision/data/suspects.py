"""What an audit finds wrong in the labels of a data set, and the JSON file that holds it."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import negvision
from negvision.data.formats.text_files import read_json_file
from negvision.errors import DatasetError, listed
from negvision.files import atomic_write

KINDS = {
    "missing": "an object without a box",
    "class": "a box with the class of another object",
    "location": "a box that is loose or misplaced",
    "duplicate": "a second box on one object",
    "identity": "a face of another person",
    "people": "a person with two names",
    "mixed": "two people under one name",
    "overlap": "a person of whom another split has a face",
    "region": "a region of pixels with the class of another",
    "image": "an image with the label of another class",
    "split": "an image that another split holds too",
}
_FORMAT = "negvision suspects 1"


@dataclass(frozen=True)
class Suspect:
    """A label that may be wrong.

    Attributes:
        kind: One of :data:`KINDS`.
        image: The file name, as the annotation file has it.
        image_id: In a COCO file; None elsewhere.
        annotation: Id of the annotation in a COCO file; else the place of the image in its list,
            for a region of pixels times 65,536 plus its number, as in
            :class:`negvision.data.sample_history.SampleHistory`. None for what has no annotation.
        bbox: (x, y, width, height) in pixels, of the annotation, or of the missing object.
        label: The class that the annotation has.
        proposed: The class that it may have instead; of a missing object, its class.
        proposed_bbox: The box that it may have instead.
        score: How suspicious it is, by the method; comparable within a kind only.
        probability: That the label is wrong, in [0, 1], calibrated on planted errors; None without.
        reason: In words.
    """

    kind: str
    image: str
    image_id: int | str | None = None
    annotation: int | str | None = None
    bbox: tuple[float, float, float, float] | None = None
    label: str | None = None
    proposed: str | None = None
    proposed_bbox: tuple[float, float, float, float] | None = None
    score: float = 0.0
    probability: float | None = None
    reason: str = ""


@dataclass(frozen=True)
class Suspects:
    """The result of an audit.

    Attributes:
        found: The most suspicious first.
        ann_file: The audited file, absolute; "" for a folder without one.
        digest: SHA-256 of that file when it was audited.
        classes: Names, in the order of the labels.
        method: "model", "folds" or "history".
        calibration: For each kind what its probabilities were fitted on, for the reader.
        versions: Of the libraries.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> _ = (folder / "train.json").write_text("{}")
        >>> audit = Suspects.of([Suspect("class", "a.jpg", 1, 7, label="cat", proposed="dog")],
        ...                     folder / "train.json", ["cat", "dog"], "model")
        >>> audit.save(folder / "suspects.json")
        >>> Suspects.load(folder / "suspects.json").check(folder / "train.json").found[0].proposed
        'dog'
    """

    found: Sequence[Suspect]
    ann_file: str
    digest: str
    classes: Sequence[str]
    method: str
    calibration: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        found: Collection[Suspect],
        ann_file: str | Path,
        classes: Sequence[str],
        method: str,
        calibration: Mapping[str, Any] | None = None,
    ) -> Suspects:
        """Suspects of a file as it is now; they are ordered."""
        ordered = sorted(found, key=lambda one: (-(one.probability or 0), -one.score, one.image))
        versions = {"negvision": negvision.__version__}
        path = str(Path(ann_file).absolute()) if str(ann_file) else ""
        calibration = calibration or {}
        return cls(ordered, path, digest(ann_file), list(classes), method, calibration, versions)

    def save(self, path: str | Path) -> None:
        """Write JSON, at once.

        Raises:
            UserError: The file cannot be written.
        """
        content = {"format": _FORMAT, **dataclasses.asdict(self)}
        content["suspects"] = content.pop("found")
        with atomic_write(path) as partial:
            partial.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: str | Path) -> Suspects:
        """Read a file of :meth:`save`.

        Raises:
            DatasetError: There is no such file, or it is another one or damaged.
        """
        if not Path(path).is_file():
            raise DatasetError(
                f"{path}: there is no such file of suspects; negvision audit writes one"
            )
        content = read_json_file(str(path))
        if not isinstance(content, dict) or content.pop("format", None) != _FORMAT:
            raise DatasetError(
                f"{path}: is no file of suspects, which negvision audit writes as suspects.json"
            )
        try:
            found = [read_suspect(one) for one in content.pop("suspects")]
            return cls(found, **content)
        except (KeyError, TypeError, ValueError) as error:
            raise DatasetError(
                f"{path}: this file of suspects is damaged ({error}); run negvision audit again"
            ) from None

    def check(self, ann_file: str | Path, classes: Sequence[str] | None = None) -> Suspects:
        """Itself, if it belongs to ``ann_file`` as that is now, and to ``classes`` if given.

        Raises:
            DatasetError: It was made for other annotations, or other classes.
        """
        if digest(ann_file) != self.digest:
            raise DatasetError(
                f"{ann_file}: these suspects are of {self.ann_file}, or of this file before it was "
                "changed; run negvision audit on it again"
            )
        if classes is not None and list(classes) != list(self.classes):
            raise DatasetError(
                f"{ann_file}: these suspects are for the classes {listed(self.classes, 10)}, and "
                f"there are {listed(classes, 10)}; run negvision audit with the same classes"
            )
        return self


def read_suspect(content: Mapping[str, Any]) -> Suspect:
    """A suspect of a JSON file.

    Raises:
        TypeError, ValueError: It is damaged.
    """
    boxes = {
        key: None if content.get(key) is None else tuple(map(float, content[key]))
        for key in ("bbox", "proposed_bbox")
    }
    fields: dict[str, Any] = {**content, **boxes}
    one = Suspect(**fields)
    if one.kind not in KINDS:
        raise ValueError(f"kind {one.kind!r}")
    sides = [side for box in boxes.values() if box is not None for side in box]
    lengths = {len(box) for box in boxes.values() if box is not None}
    if not all(map(math.isfinite, [one.score, one.probability or 0.0, *sides])) or lengths - {4}:
        raise ValueError(f"a box or number of {one.image!r}")
    return one


def digest(path: str | Path) -> str:
    """SHA-256 of a file; "" for "", a data set without one.

    Raises:
        DatasetError: There is no such file.
    """
    if not str(path):
        return ""
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise DatasetError(
            f"{path}: the annotation file cannot be read: {error.strerror}"
        ) from None
