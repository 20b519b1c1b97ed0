"""What a dataset does with unusable samples: raise one error, or skip, count and log them."""

import contextlib
import logging
import os
from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch
from mmengine.logging import print_log
from torch.utils.data import get_worker_info

from negvision.errors import DatasetError, Problems

if TYPE_CHECKING:
    from mmengine.dataset import BaseDataset
else:
    BaseDataset = object

_WORKERS = 1024
_SAMPLES = 2**20


class Findings:
    """What datasets found while loading: problems, and notes on what they corrected."""

    def __init__(self) -> None:
        self.problems = Problems()
        self.notes = Problems()


_collectors: list[Findings] = []


@contextlib.contextmanager
def collected_findings() -> Iterator[Findings]:
    """Collect the problems of datasets that load inside the block, instead of raising them.

    For commands that report problems. Nothing is logged, whatever ``on_bad_sample`` is.
    """
    _collectors.append(Findings())
    try:
        yield _collectors[-1]
    finally:
        _collectors.pop()


class SkipCounts:
    """How often which samples were skipped, counted over all workers of a data loader.

    The counts lie in shared memory; create them before the workers start. Each worker writes to a
    place of its own, so no lock is needed. A deep copy starts from zero.

    Example:
        >>> counts = SkipCounts()
        >>> for index in (7, 3, 7):
        ...     counts.add(index)
        >>> counts.times, counts.samples()
        (3, [3, 7])
    """

    def __init__(self) -> None:
        self._times = torch.zeros(_WORKERS, dtype=torch.int64).share_memory_()
        self._seen = torch.zeros(_SAMPLES, dtype=torch.uint8).share_memory_()

    def add(self, index: int) -> None:
        """Count sample ``index`` (from 0) once more."""
        worker = get_worker_info()
        self._times[0 if worker is None else 1 + worker.id % (_WORKERS - 1)] += 1
        self._seen[index % _SAMPLES] = 1

    @property
    def times(self) -> int:
        """How often a sample was skipped, in all processes so far."""
        return int(self._times.sum())

    def samples(self) -> list[int]:
        """The skipped indices in rising order; modulo 1,048,576 in larger datasets."""
        return self._seen.nonzero().flatten().tolist()

    def __deepcopy__(self, memo: dict) -> "SkipCounts":
        return SkipCounts()


class BadSampleMixin(BaseDataset):
    """Adds ``on_bad_sample`` to a dataset derived from MMEngine's ``BaseDataset``.

    Put it before the dataset class in the list of bases.

    Args:
        on_bad_sample: "error" raises one ``DatasetError`` that counts all problems by kind, with
            examples. "skip" leaves out bad samples and logs the counts; a training image that
            cannot be read is replaced by a random other one, counted in ``skipped_images`` and
            logged once per worker. In ``test_mode`` an unreadable image is always an error:
            metrics over fewer images would mislead.

    Attributes:
        skipped_images: How often each image was skipped in this process.
        skip_counts: The same over all workers, by sample; None unless samples are skipped.
            :class:`negvision.BadSampleHook` logs it.
    """

    def __init__(self, *args, on_bad_sample: str = "error", **kwargs) -> None:
        if on_bad_sample not in ("error", "skip"):
            raise ValueError(f'on_bad_sample is {on_bad_sample!r}; it must be "error" or "skip"')
        self.on_bad_sample = on_bad_sample
        self.skipped_images: Counter[str] = Counter()
        self.skip_counts: SkipCounts | None = None
        self._skipped_in_a_row = 0
        super().__init__(*args, **kwargs)
        if on_bad_sample == "skip" and not self.test_mode:
            self.skip_counts = SkipCounts()

    def prepare_data(self, idx: int) -> dict | None:
        """Run the pipeline; None for an unreadable training image that is skipped.

        Raises:
            DatasetError: An image is unreadable and may not be skipped, or too many are in a row.
        """
        try:
            prepared = super().prepare_data(idx)
        except DatasetError as error:
            if self.skip_counts is None:
                raise
            self._skip(self.skip_counts, idx, error)
            return None
        self._skipped_in_a_row = 0
        return prepared

    def _skip(self, counts: SkipCounts, idx: int, error: DatasetError) -> None:
        counts.add(idx % len(self))
        name = self._sample_name(idx)
        self.skipped_images[name] += 1
        if self.skipped_images[name] == 1:
            count = len(self.skipped_images)
            self._log(f"image skipped ({count} in this process so far): {error}", logging.WARNING)
        self._skipped_in_a_row += 1
        # MMEngine would give up after as many, without naming an image.
        if self._skipped_in_a_row > self.max_refetch:
            raise DatasetError(
                f"{self._skipped_in_a_row:,} images in a row cannot be used, although "
                'on_bad_sample="skip" skips single ones. Is the disk that holds them still '
                f"mounted? The last error: {error}"
            ) from None

    def _require_paths(self, ann_file: str = "", **folders: str) -> None:
        """Raise ``DatasetError`` with the expected layout if a local file or folder is missing.

        Args:
            ann_file: A file; "" if the dataset has none.
            **folders: Key of ``data_prefix`` to a folder; "" is the current folder.
        """
        rows = [("data_root", self.data_root or ".", os.path.isdir)]
        if ann_file:
            rows.append(("ann_file", ann_file, os.path.isfile))
        rows += [
            (f"data_prefix[{key!r}]", path or ".", os.path.isdir) for key, path in folders.items()
        ]
        missing = [
            f"{name} {os.path.abspath(path)}" for name, path, exists in rows[1:] if not exists(path)
        ]
        if not missing:
            return
        width = max(len(path) for _, path, _ in rows)
        layout = "\n".join(
            f"  {path:<{width}}  {name}: {'found' if exists(path) else 'MISSING'}"
            for name, path, exists in rows
        )
        raise DatasetError(
            f"Missing: {' and '.join(missing)}.\nThe config expects this layout:\n{layout}\n"
            "Put the data there, or name the folder that holds it with --data-root DIR "
            "(data_root in the config). To see a training run without any download: "
            "make quickstart."
        )

    def _sample_name(self, idx: int) -> str:
        """The name under which an image is counted."""
        return self.get_data_info(idx)["img_path"]

    def _settle(
        self,
        source: str,
        problems: Problems,
        counted: str,
        left: int,
        nothing_left: str,
        hint: str = "",
    ) -> None:
        """Raise, log or collect ``problems``.

        Args:
            source: The file or folder that was checked.
            problems: What was found there.
            counted: What was checked, such as "12 images".
            left: How many samples are usable. None left is always an error.
            nothing_left: The remedy shown in that case.
            hint: Appended to the logged line.
        """
        if not problems:
            return
        if _collectors:
            _collectors[-1].problems.merge(problems, source)
            if left:
                return
            raise DatasetError(f"{source}: {nothing_left}", kind="dataset without a usable sample")
        if self.on_bad_sample == "error" or not left:
            count = problems.counts.total()
            remedy = (
                'Correct the data, or leave out the bad samples with on_bad_sample="skip".'
                if left
                else nothing_left
            )
            raise DatasetError(
                f"{source}: {count:,} problem{'s' * (count != 1)} in {counted}:\n"
                f"{problems.report()}\n{remedy}"
            )
        self._log(f"{source}: left out of {counted}: {problems.summary()}.{hint}", logging.WARNING)

    def _mention(self, source: str, notes: Problems, level: int = logging.INFO) -> None:
        """Log or collect what was corrected."""
        if not notes:
            return
        if _collectors:
            _collectors[-1].notes.merge(notes, source)
        else:
            self._log(f"{source}: {notes.summary()}.", level)

    @staticmethod
    def _log(message: str, level: int = logging.INFO) -> None:
        print_log(message, logger="current", level=level)
