"""The scored samples of one evaluation: what figures, tables and the report are made of."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from zipfile import BadZipFile

import numpy as np

from negvision.errors import UserError

TASKS = ("boxes", "pixels", "images")
_ARRAYS = ("is_ood", "image", "weights", "boxes", "labels")


@dataclass
class OODRecords:
    """Scored boxes, pixels or images, N of them, on M images.

    Attributes:
        task: Of ``TASKS``.
        scores: Name to (N,) float; higher is more OOD. The first is the model's own score.
        is_ood: (N,) bool.
        image: (N,) int64, index in ``paths``: samples of one image go together in a bootstrap.
        paths: Of the M images.
        classes: Names of the ID classes.
        weights: (N,) float64; of pixels, which are a sample of all. None: all weigh 1.
        boxes: (N, 4) float32, x1 y1 x2 y2 in pixels of the image; of boxes alone.
        labels: (N,) int64, predicted class; of boxes and images.
        strata: A name, such as "box size", to (names of the strata, (N,) int64 codes).
        notes: What stands beside the figures: ID AP, thresholds, counts. Plain values.
        heat: Image index to (h, w) float32, a reduced map of the first score; of pixels alone.
    """

    task: str
    scores: Mapping[str, np.ndarray]
    is_ood: np.ndarray
    image: np.ndarray
    paths: Sequence[str]
    classes: Sequence[str]
    weights: np.ndarray | None = None
    boxes: np.ndarray | None = None
    labels: np.ndarray | None = None
    strata: Mapping[str, tuple[Sequence[str], np.ndarray]] = field(default_factory=dict)
    notes: Mapping[str, float | int | str] = field(default_factory=dict)
    heat: Mapping[int, np.ndarray] = field(default_factory=dict)

    def save(self, path: str | Path) -> Path:
        """Write an ``.npz`` without any pickle in it; folders above it are made."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        arrays = {f"score/{name}": values for name, values in self.scores.items()}
        arrays |= {f"stratum/{name}": codes for name, (_, codes) in self.strata.items()}
        arrays |= {f"heat/{index}": values for index, values in self.heat.items()}
        for name in _ARRAYS:
            if getattr(self, name) is not None:
                arrays[name] = getattr(self, name)
        meta = {
            "task": self.task,
            "scores": list(self.scores),
            "paths": list(map(str, self.paths)),
            "classes": list(self.classes),
            "strata": {name: list(names) for name, (names, _) in self.strata.items()},
            "notes": dict(self.notes),
        }
        arrays["meta"] = np.array(json.dumps(meta))
        with open(path, "wb") as file:  # numpy would add a suffix of its own
            np.savez_compressed(file, **arrays)
        return path

    @classmethod
    def load(cls, path: str | Path) -> OODRecords:
        """Read what :meth:`save` wrote; nothing in the file is executed.

        Raises:
            UserError: There is no such file, or it is of another kind.
        """
        path = Path(path)
        if not path.is_file():
            raise UserError(f"{path}: there is no such file of OOD scores")
        try:
            with np.load(path, allow_pickle=False) as stored:
                arrays = {name: stored[name] for name in stored.files}
            meta = json.loads(str(arrays["meta"]))
            return cls(
                task=meta["task"],
                scores={name: arrays[f"score/{name}"] for name in meta["scores"]},
                paths=meta["paths"],
                classes=meta["classes"],
                strata={
                    name: (names, arrays[f"stratum/{name}"])
                    for name, names in meta["strata"].items()
                },
                notes=meta["notes"],
                heat={
                    int(name.removeprefix("heat/")): values
                    for name, values in arrays.items()
                    if name.startswith("heat/")
                },
                **{name: arrays.get(name) for name in _ARRAYS},
            )
        except (ValueError, KeyError, TypeError, OSError, EOFError, BadZipFile) as error:
            raise UserError(
                f"{path} does not hold OOD scores ({type(error).__name__}: {error}); name the "
                "file that the OOD metric of tools/test.py wrote (ood_scores.npz)"
            ) from None
