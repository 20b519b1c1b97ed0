"""What a person decided about suspects, and the file that keeps it from audit to audit."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from negvision.audit.boxes import overlaps
from negvision.data.formats.text_files import read_json_file
from negvision.data.suspects import Suspect, read_suspect
from negvision.errors import DatasetError
from negvision.files import atomic_write

FILE_NAME = "decisions.json"
ACCEPTED, REJECTED = "accept", "reject"
_FORMAT = "negvision decisions 1"
# Two audits find a missing object with boxes of this overlap.
_SAME = 0.5


@dataclass
class Decisions:
    """Decisions by suspect.

    Attributes:
        path: Of the file.
        made: The suspects and "accept" or "reject".
    """

    path: Path
    made: dict[Suspect, str] = field(default_factory=dict)

    @classmethod
    def load(cls, path: Path) -> Decisions:
        """Read a file; none is no decision.

        Raises:
            DatasetError: It is another file, or damaged.
        """
        if not path.is_file():
            return cls(path)
        content = read_json_file(str(path))
        try:
            if content["format"] != _FORMAT:
                raise ValueError(f"format {content['format']!r}")
            made = {read_suspect(one["suspect"]): one["decision"] for one in content["decisions"]}
            if set(made.values()) - {ACCEPTED, REJECTED}:
                raise ValueError("a decision is accept or reject")
        except (KeyError, TypeError, ValueError) as error:
            raise DatasetError(
                f"{path}: no decisions of negvision audit --review, or damaged ({error}); correct "
                "or remove it"
            ) from None
        return cls(path, made)

    def decide(self, suspect: Suspect, decision: str | None) -> None:
        """Make a decision, or take it back with None, and write the file at once.

        Raises:
            UserError: It cannot be written.
        """
        self.made = {
            one: made
            for one, made in self.made.items()
            if _place(one) != _place(suspect) or not _same_box(one, suspect)
        }
        if decision is not None:
            self.made[suspect] = decision
        pairs = [
            {"decision": decision, "suspect": dataclasses.asdict(one)}
            for one, decision in self.made.items()
        ]
        with atomic_write(self.path) as partial:
            partial.write_text(json.dumps({"format": _FORMAT, "decisions": pairs}, indent=1) + "\n")

    def of(self, found: Sequence[Suspect]) -> dict[Suspect, str]:
        """The decisions that hold for the suspects of this audit.

        An annotation is known by its id and kind of error, with the same proposal; a missing
        object by the overlap of its box.
        """
        by_place: dict[tuple, list[tuple[Suspect, str]]] = {}
        for one, decision in self.made.items():
            by_place.setdefault(_place(one), []).append((one, decision))
        held = {}
        for suspect in found:
            for one, decision in by_place.get(_place(suspect), ()):
                if _same_box(one, suspect):
                    held[suspect] = decision
        return held


def _place(one: Suspect) -> tuple:
    return one.kind, one.image, one.annotation, one.label, one.proposed


def _same_box(one: Suspect, other: Suspect) -> bool:
    boxes = [suspect.proposed_bbox or suspect.bbox for suspect in (one, other)]
    if one.kind == "split" or None in boxes:
        return boxes[0] == boxes[1]
    first, second = (np.array([[x, y, x + w, y + h]]) for x, y, w, h in filter(None, boxes))
    return bool(overlaps(first, second)[0] >= _SAME)
