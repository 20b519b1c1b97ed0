"""Find images that are there more than once, byte by byte, within a data set and across splits."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from negvision.data.check.scan import DatasetScan
from negvision.errors import Problems


class _Copy(NamedTuple):
    """One of the samples that share an image."""

    scan: DatasetScan
    index: int
    annotation: int

    @property
    def name(self) -> str:
        return self.scan.sample_name(self.index)


def find_repeats(scans: Sequence[DatasetScan]) -> tuple[Problems, Problems]:
    """Look for equal images in all data sets at once.

    Returns:
        Faults: images of train that stand in another split as well, and images that a split has
        more than once with different annotations. Notes: other repetitions.

    Each image counts once in a kind, however often it is there.
    """
    faults, notes = Problems(), Problems()
    for copies in _groups(scans):
        splits = {split for copy in copies for split in copy.scan.splits}
        others = sorted(splits - {"train"})
        if "train" in splits and others:
            faults.add(f"image of train that is in {' and '.join(others)} too", _names(copies))
        elif len(others) > 1 and len({id(copy.scan) for copy in copies}) > 1:
            notes.add(f"image that is in {' and '.join(others)}", _names(copies))
        for split in sorted(splits):
            within = [copy for copy in copies if split in copy.scan.splits]
            if len({copy.annotation for copy in within}) > 1:
                kind = f"image that {split} has more than once, with different annotations"
                faults.add(kind, _names(within))
            elif len(within) > 1:
                kind = f"image that {split} has more than once, with the same annotations"
                notes.add(kind, _names(within))
    return faults, notes


def _groups(scans: Sequence[DatasetScan]) -> Iterator[list[_Copy]]:
    """Samples with the same image, those images that concern more than one sample or split."""
    tables = [scan.fingerprints() for scan in scans]
    if not tables:
        return
    index, digest, annotation = (np.concatenate(column) for column in zip(*tables, strict=True))
    owner = np.repeat(np.arange(len(scans)), [len(table[0]) for table in tables])
    # Stable, so that copies stand in the order of the data sets.
    order = np.lexsort((digest[:, 1], digest[:, 0]))
    ranked = digest[order]
    starts = np.flatnonzero(np.r_[True, (ranked[1:] != ranked[:-1]).any(axis=1)][: len(order)])
    ends = np.r_[starts[1:], len(order)]
    in_several = np.array([len(scan.splits) > 1 for scan in scans])
    wanted = (ends - starts > 1) | in_several[owner[order[starts]]]
    # In the order of the data sets rather than of digests.
    for group in sorted(np.flatnonzero(wanted), key=lambda group: order[starts[group]]):
        rows = order[starts[group] : ends[group]]
        yield [_Copy(scans[owner[row]], int(index[row]), int(annotation[row])) for row in rows]


def _names(copies: Sequence[_Copy]) -> str:
    names = list(dict.fromkeys(copy.name for copy in copies))
    if len(names) == 1 and len(copies) > 1:
        return f"{names[0]} ({len(copies)} times)"
    shown = " = ".join(names[:3])
    return shown if len(names) <= 3 else f"{shown} = ... ({len(names)} files)"
