"""Check all datasets of a config, one after another, then against each other."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from negvision.data.check.cues import WRITTEN, telling_cues
from negvision.data.check.sample import remark_of
from negvision.data.check.scan import DatasetScan
from negvision.errors import Problems

# One image of each of this many sizes goes through the full pipeline.
_MOST_SIZES = 64
# Long side over short side. Panoramas reach ten.
_THIN = 20


class DataCheck:
    """The check of a config's datasets.

    Args:
        configs: (split, config) of the datasets that read files; wrappers are taken apart by the
            caller. A dataset that several splits share is read once.

    Attributes:
        scans: One per dataset.
        problems: Those across datasets: leaks, contradictions, missing classes.
        notes: Likewise, but harmless to a run.
        interrupted: Whether Ctrl-C ended the check.
    """

    def __init__(self, configs: Iterable[tuple[str, Mapping]]) -> None:
        distinct: list[tuple[Mapping, list[str]]] = []
        for split, config in configs:
            splits = next((splits for other, splits in distinct if other == config), None)
            if splits is None:
                distinct.append((config, [split]))
            elif split not in splits:
                splits.append(split)
        self.scans = [DatasetScan(config, tuple(splits)) for config, splits in distinct]
        self.problems, self.notes = Problems(), Problems()
        self.interrupted = False

    def run(
        self,
        workers: int,
        progress: Callable[[Iterable, DatasetScan], Iterable] = lambda steps, scan: steps,
    ) -> None:
        """Read everything. Ctrl-C ends it early and keeps what was found.

        Args:
            workers: Processes that load samples; 0 loads them in this one.
            progress: Wraps the samples of a scan, to show a progress bar.
        """
        try:
            for scan in self.scans:
                if scan.load():
                    with contextlib.closing(scan.samples(workers)) as samples:
                        for _ in progress(samples, scan):
                            pass
                    _count_odd_sizes(scan)
                    _count_thin_shapes(scan)
        except KeyboardInterrupt:
            self.interrupted = True
        self.problems, self.notes = _find_repeats(self.scans)
        for found, more in zip((self.problems, self.notes), _find_cues(self.scans), strict=True):
            found.merge(more)
        for split in dict.fromkeys(split for scan in self.scans for split in scan.splits):
            scans = [scan for scan in self.scans if split in scan.splits and not scan.is_ood]
            if all(scan.complete for scan in scans):
                self._count_missing_classes(split, scans)

    @property
    def images(self) -> int:
        """The number of samples that were read."""
        return sum(scan.read for scan in self.scans)

    @property
    def number_of_problems(self) -> int:
        """The number of problems of all kinds in all datasets."""
        found = [self.problems, *(scan.problems for scan in self.scans)]
        return sum(problems.counts.total() for problems in found)

    def _count_missing_classes(self, split: str, scans: Sequence[DatasetScan]) -> None:
        amounts: Counter[str] = Counter()
        expected: dict[str, None] = {}
        for scan in scans:
            amounts.update({scan.class_name(k): n for k, n in scan.amounts.items()})
            classes = range(scan.number_of_classes())
            expected.update(dict.fromkeys(scan.class_name(label) for label in classes))
        # An evaluation set need not have labels: face pairs, unknown objects.
        if split != "train" and not amounts:
            return
        # A class that is never trained is a problem; one that is never evaluated lacks a metric.
        found = self.problems if split == "train" else self.notes
        for name in expected:
            if not amounts[name]:
                found.add(f"class without a sample in {split}", name)


class _Copy(NamedTuple):
    """One of several samples with the same image."""

    scan: DatasetScan
    index: int
    annotation: int


def _find_repeats(scans: Sequence[DatasetScan]) -> tuple[Problems, Problems]:
    """Find images that occur more than once, byte by byte, within datasets and across splits.

    Returns:
        Problems: training images that are in another split too, and images with different
        annotations in one split. Notes: other repeats. An image counts once per kind.
    """
    problems, notes = Problems(), Problems()
    for copies in _copies(scans):
        splits = {split for copy in copies for split in copy.scan.splits}
        others = sorted(splits - {"train"})
        if "train" in splits and others:
            problems.add(f"image of train that is in {' and '.join(others)} too", _names(copies))
        elif len(others) > 1 and len({id(copy.scan) for copy in copies}) > 1:
            notes.add(f"image that is in {' and '.join(others)}", _names(copies))
        for split in sorted(splits):
            within = [copy for copy in copies if split in copy.scan.splits]
            kind = f"image that {split} has more than once, with"
            if len({copy.annotation for copy in within}) > 1:
                problems.add(f"{kind} different annotations", _names(within))
            elif len(within) > 1:
                notes.add(f"{kind} the same annotations", _names(within))
    return problems, notes


def _copies(scans: Sequence[DatasetScan]) -> Iterator[list[_Copy]]:
    """The samples of each image that belongs to more than one sample or split."""
    tables = [scan.fingerprints() for scan in scans]
    if not tables:
        return
    index, digest, annotation = (np.concatenate(column) for column in zip(*tables, strict=True))
    owner = np.repeat(np.arange(len(scans)), [len(table[0]) for table in tables])
    # Stable: copies keep the order of the datasets.
    order = np.lexsort((digest[:, 1], digest[:, 0]))
    ranked = digest[order]
    starts = np.flatnonzero(np.r_[True, (ranked[1:] != ranked[:-1]).any(axis=1)][: len(order)])
    ends = np.r_[starts[1:], len(order)]
    in_several = np.array([len(scan.splits) > 1 for scan in scans])
    wanted = (ends - starts > 1) | in_several[owner[order[starts]]]
    # In the order of the datasets rather than of the digests.
    for group in sorted(np.flatnonzero(wanted), key=lambda group: order[starts[group]]):
        rows = order[starts[group] : ends[group]]
        yield [_Copy(scans[owner[row]], int(index[row]), int(annotation[row])) for row in rows]


def _names(copies: Sequence[_Copy]) -> str:
    names = list(dict.fromkeys(copy.scan.sample_name(copy.index) for copy in copies))
    if len(names) == 1 and len(copies) > 1:
        return f"{names[0]} ({len(copies)} times)"
    shown = " = ".join(names[:3])
    return shown if len(names) <= 3 else f"{shown} = ... ({len(names)} files)"


def _find_cues(scans: Sequence[DatasetScan]) -> tuple[Problems, Problems]:
    """Compare the OOD sets with the ID sets of the same split.

    A score can learn such a cue instead of what is unknown; then the figures measure the cue.

    Returns:
        Problems: how the files were written tells the sets apart. Notes: what they show does.
    """
    problems, notes = Problems(), Problems()
    for split in dict.fromkeys(split for scan in scans for split in scan.splits):
        inside = [scan for scan in scans if split in scan.splits]
        known = [scan.cues() for scan in inside if not scan.is_ood]
        for unknown in (scan for scan in inside if scan.is_ood and known):
            for name, auroc in telling_cues(np.concatenate(known), unknown.cues()):
                written = name in WRITTEN
                kind = "how files are written" if written else "a trivial statistic"
                (problems if written else notes).add(
                    f"OOD set of {split} that {kind} tells from the ID sets",
                    f"{unknown.name}: {name}, AUROC {auroc:.2f}",
                )
    return problems, notes


def _count_odd_sizes(scan: DatasetScan) -> None:
    """Count images with one class that the pipeline gives another size than most.

    Recognition and classification models take one size and fail late on others. One image of each
    size goes through the full pipeline.
    """
    if (scan.counted != "images" and not scan.compares_images()) or len(scan.sizes) < 2:
        return
    common = sorted(scan.sizes.items(), key=lambda item: -item[1][0])[:_MOST_SIZES]
    shapes = {size: _shape_of(scan, first) for size, (_, first) in common}
    counts: Counter[tuple] = Counter()
    for size, (count, _) in common:
        if (shape := shapes[size]) is not None:
            counts[shape] += count
    if len(counts) < 2:
        return
    usual = counts.most_common(1)[0][0]
    for size, (count, first) in common:
        if (shape := shapes[size]) not in (None, usual):
            scan.problems.add(
                "image that the pipeline gives another size than most",
                f"{scan.sample_name(first)}: {_text(size)} becomes {_text(shape)}, most become "
                f"{_text(usual)}",
                count=count,
            )


def _count_thin_shapes(scan: DatasetScan) -> None:
    """Count images of extreme shapes, whose short side hardly anything is left of.

    One image of each size goes through the full pipeline.
    """
    thin = [size for size in scan.sizes if max(size) > _THIN * min(size)]
    for size in thin[:_MOST_SIZES]:
        count, first = scan.sizes[size]
        name = f"{scan.sample_name(first)}: {_text(size)}"
        try:
            scan.dataset[first]
        except Exception as error:  # a pipeline of any origin may raise anything
            kind = "image of a shape that the pipeline cannot take"
            scan.problems.add(kind, remark_of(error, name, "pipeline").where, count=count)
            continue
        shape = _shape_of(scan, first)
        becomes = f" becomes {_text(shape)}" if shape else ""
        kind = f"image more than {_THIN} times as long as wide"
        scan.notes.add(kind, name + becomes, count=count)


def _shape_of(scan: DatasetScan, index: int) -> tuple[int, int] | None:
    """(H, W) of a sample after the pipeline; None if the pipeline fails."""
    try:
        height, width = scan.dataset[index]["inputs"].shape[-2:]
        return height, width
    except Exception:  # loading was checked, the rest of a pipeline is not
        return None


def _text(size: tuple[int, int]) -> str:
    return f"{size[1]} x {size[0]}"
