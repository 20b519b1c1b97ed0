"""The images among the entries of a folder, and a line about the others."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

from negvision.data.images import IMAGE_SUFFIXES
from negvision.errors import Problems

_MOST_KINDS = 8
# Folders that systems leave between those of a data set.
_STRAY = frozenset(
    {"__MACOSX", "__pycache__", "@eaDir", "lost+found", "$RECYCLE.BIN", "System Volume Information"}
)


def is_stray(path: str) -> bool:
    """Whether a file or folder is none of a data set: hidden, or left there by a system.

    Such are ``.ipynb_checkpoints``, whose copies of images would become a class, and ``._a.jpg`` of
    macOS, which is no image.

    Args:
        path: Relative to the folder of the data set.

    Example:
        >>> is_stray(".ipynb_checkpoints"), is_stray("cat/._1.jpg"), is_stray("cat/1.jpg")
        (True, True, False)
    """
    return any(part.startswith(".") or part in _STRAY for part in path.split("/"))


class PassedOver:
    """Entries of folders that are not read, by kind.

    Example:
        >>> passed = PassedOver()
        >>> passed.chosen(["a.jpg", "._a.jpg", "b.HEIC", "c.heic", "notes"])
        ['a.jpg']
        >>> passed.line()
        '2 .heic, 1 hidden, 1 without a suffix'
    """

    def __init__(self) -> None:
        self._names: dict[str, list[str]] = defaultdict(list)

    @property
    def counts(self) -> Counter[str]:
        """Kind -> number of entries."""
        return Counter({kind: len(names) for kind, names in self._names.items()})

    def named(self, names: Iterable[str], suffixes: Sequence[str] = IMAGE_SUFFIXES) -> list[str]:
        """Those of ``names`` that are not stray and have one of ``suffixes``; no file is asked."""
        chosen = []
        for name in names:
            suffix = os.path.splitext(name)[1].lower()
            if is_stray(os.path.basename(name)):
                self._names["hidden"].append(name)
            elif suffix in suffixes:
                chosen.append(name)
            else:
                self._names[suffix or "without a suffix"].append(name)
        return chosen

    def chosen(self, paths: Iterable[str], suffixes: Sequence[str] = IMAGE_SUFFIXES) -> list[str]:
        """:meth:`named`, and files; a link to nothing is kept, to be named as unreadable."""
        others = []
        for path in paths:
            if os.path.isdir(path) and not is_stray(os.path.basename(path)):
                self._names["folders"].append(path)
            else:
                others.append(path)
        named = self.named(others, suffixes)
        return [path for path in named if os.path.isfile(path) or not os.path.exists(path)]

    def notes(self) -> Problems:
        """What was passed over, for the log of a data set."""
        notes = Problems()
        for kind, names in self._names.items():
            for name in names:
                notes.add(f"file passed over: {kind}", name)
        return notes

    def line(self) -> str:
        """What was passed over, most frequent first; "" for nothing."""
        kinds = self.counts.most_common()
        rest = sum(count for _, count in kinds[_MOST_KINDS:])
        parts = [f"{count:,} {kind}" for kind, count in kinds[:_MOST_KINDS]]
        return ", ".join([*parts, *[f"{rest:,} others"] * bool(rest)])

    def but(self) -> str:
        """``", but "`` and :meth:`line`, for a sentence about what is missing; "" for nothing."""
        line = self.line()
        return line and f", but {line}"
