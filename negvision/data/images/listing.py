"""The images among the entries of a folder, and a line about the others."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Sequence

from negvision.data.images import IMAGE_SUFFIXES

_MOST_KINDS = 8


class PassedOver:
    """Counts entries of folders that are not read.

    Example:
        >>> passed = PassedOver()
        >>> passed.chosen(["a.jpg", "._a.jpg", "b.HEIC", "c.heic", "notes"])
        ['a.jpg']
        >>> passed.line()
        '2 .heic, 1 hidden, 1 without a suffix'
    """

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()

    def chosen(self, paths: Iterable[str], suffixes: Sequence[str] = IMAGE_SUFFIXES) -> list[str]:
        """Those of ``paths`` that are read: visible files with one of ``suffixes``.

        A name that begins with a dot is hidden: macOS puts a file ``._a.jpg`` that is no image
        beside ``a.jpg`` on foreign disks.
        """
        chosen = []
        for path in paths:
            name = os.path.basename(path)
            suffix = os.path.splitext(name)[1].lower()
            if name.startswith("."):
                self.counts["hidden"] += 1
            # A link to nothing is kept, and named as unreadable.
            elif suffix in suffixes and (os.path.isfile(path) or not os.path.exists(path)):
                chosen.append(path)
            elif os.path.isdir(path):
                self.counts["folders"] += 1
            else:
                self.counts[suffix or "without a suffix"] += 1
        return chosen

    def line(self) -> str:
        """What was passed over, most frequent first; "" for nothing."""
        kinds = self.counts.most_common()
        rest = sum(count for _, count in kinds[_MOST_KINDS:])
        parts = [f"{count:,} {kind}" for kind, count in kinds[:_MOST_KINDS]]
        return ", ".join([*parts, *[f"{rest:,} others"] * bool(rest)])
