"""Check all data sets of a config, one after the other, and then against one another."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence

from negvision.data.check.repeats import find_repeats
from negvision.data.check.scan import DatasetScan
from negvision.data.check.sizes import count_odd_sizes
from negvision.errors import Problems


class DataCheck:
    """The check of a config's data sets.

    Args:
        configs: (split, config) of the datasets that read files, those that wrap others taken
            apart. One that several splits share is read once.

    Attributes:
        scans: One for each dataset.
        faults: Those that no dataset has by itself: leaks, contradictions, missing classes.
        notes: Likewise.
        interrupted: Whether Ctrl-C ended it.

    Example::

        check = DataCheck([("val", cfg.val_dataloader.dataset)])
        check.run(workers=2)
        print(as_text(check))
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
        self.faults, self.notes = Problems(), Problems()
        self.interrupted = False

    def run(
        self,
        workers: int,
        progress: Callable[[Iterable, DatasetScan], Iterable] = lambda steps, scan: steps,
    ) -> None:
        """Read everything; Ctrl-C ends it early, with what was found until then.

        Args:
            workers: Processes that load samples; 0 to do so in this one.
            progress: Given the samples of a scan as they are read, and the scan; iterates over
                them and shows how far it is.
        """
        try:
            for scan in self.scans:
                if scan.load():
                    with contextlib.closing(scan.samples(workers)) as samples:
                        for _ in progress(samples, scan):
                            pass
                    count_odd_sizes(scan)
        except KeyboardInterrupt:
            self.interrupted = True
        self.faults, self.notes = find_repeats(self.scans)
        for split in dict.fromkeys(split for scan in self.scans for split in scan.splits):
            scans = [scan for scan in self.scans if split in scan.splits]
            if all(scan.complete for scan in scans):
                self._count_missing_classes(split, scans)

    @property
    def images(self) -> int:
        """How many samples were read."""
        return sum(scan.read for scan in self.scans)

    @property
    def number_of_faults(self) -> int:
        """Of all kinds in all data sets."""
        found = [self.faults, *(scan.faults for scan in self.scans)]
        return sum(problems.counts.total() for problems in found)

    def _count_missing_classes(self, split: str, scans: Sequence[DatasetScan]) -> None:
        amounts: Counter[str] = Counter()
        expected: dict[str, None] = {}
        for scan in scans:
            amounts.update({scan.class_name(k): n for k, n in scan.amounts.items()})
            classes = range(scan.number_of_classes())
            expected.update(dict.fromkeys(scan.class_name(label) for label in classes))
        missing = [name for name in expected if not amounts[name]]
        # A set to evaluate on need not have labels at all: pairs of faces, unknown objects.
        if split != "train" and not amounts:
            return
        # What is never trained is a fault; what is never evaluated has no figure.
        problems = self.faults if split == "train" else self.notes
        for name in missing:
            problems.add(f"class without a sample in {split}", name)
