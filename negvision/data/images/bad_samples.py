"""What a dataset does about samples that cannot be used: one error, or a counted, logged skip."""

import contextlib
import logging
from collections import Counter
from collections.abc import Iterator

from mmengine.logging import print_log

from negvision.data.images.skip_counts import SkipCounts
from negvision.errors import DatasetError, Problems


class Findings:
    """What datasets found at fault when they were loaded, and what they put right themselves."""

    def __init__(self) -> None:
        self.faults = Problems()
        self.notes = Problems()


_collectors: list[Findings] = []


@contextlib.contextmanager
def collected_findings() -> Iterator[Findings]:
    """Datasets that are loaded inside of the block hand their faults over and go on without.

    For commands that are after the faults; whatever ``on_bad_sample`` says, nothing is logged.
    """
    _collectors.append(Findings())
    try:
        yield _collectors[-1]
    finally:
        _collectors.pop()


class BadSampleMixin:
    """Adds ``on_bad_sample`` to a dataset derived from MMEngine's ``BaseDataset``.

    Stands before the dataset class among the bases.

    Args:
        on_bad_sample: "error" raises one ``DatasetError`` that counts all faults by kind with
            examples. "skip" leaves out what is at fault and logs the counts; a training image
            that turns out unreadable is replaced by a random other one, counted in
            ``skipped_images`` and named in the log once per worker. In ``test_mode`` an
            unreadable image is an error all the same: metrics over fewer images would mislead.

    Attributes:
        skipped_images: How often each image was left out in this process.
        skip_counts: The same over all workers, by sample; None where none is left out.
            :class:`negvision.BadSampleHook` brings it to the log.
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
        """Run the pipeline; None for an unreadable training image that is to be skipped.

        Raises:
            DatasetError: An image is unreadable and not to be skipped, or so many are one after
                the other that nothing can be expected of more.
        """
        try:
            prepared = super().prepare_data(idx)
        except DatasetError as error:
            if self.skip_counts is None:
                raise
            self._skip(idx, error)
            return None
        self._skipped_in_a_row = 0
        return prepared

    def _skip(self, idx: int, error: DatasetError) -> None:
        self.skip_counts.add(idx % len(self))
        name = self._sample_name(idx)
        self.skipped_images[name] += 1
        if self.skipped_images[name] == 1:
            count = len(self.skipped_images)
            self._log(f"image left out ({count} in this process so far): {error}", logging.WARNING)
        self._skipped_in_a_row += 1
        # After as many MMEngine would give up, without naming an image.
        if self._skipped_in_a_row > self.max_refetch:
            raise DatasetError(
                f"{self._skipped_in_a_row:,} images one after the other cannot be used, though "
                'on_bad_sample="skip" leaves single ones out. Is the disk that holds them still '
                f"there? The last: {error}"
            ) from None

    def _sample_name(self, idx: int) -> str:
        """What an image is counted under."""
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
        """Raise or log ``problems``, as the user chose, or hand them to who collects them.

        Args:
            source: the file or folder that was checked.
            problems: what was found there.
            counted: of what the faults are, such as "12 images".
            left: how many samples can be used.
            nothing_left: the remedy shown where that is none, which is always an error.
            hint: is added to the logged line.
        """
        if not problems:
            return
        if _collectors:
            _collectors[-1].faults.merge(problems, source)
            if left:
                return
            raise DatasetError(f"{source}: {nothing_left}", kind="data set without a usable sample")
        if self.on_bad_sample == "error" or not left:
            remedy = (
                'Correct the data, or leave out what is at fault with on_bad_sample="skip".'
                if left
                else nothing_left
            )
            raise DatasetError(
                f"{source}: {sum(problems.counts.values()):,} faults in {counted}:\n"
                f"{problems.report()}\n{remedy}"
            )
        self._log(f"{source}: left out of {counted}: {problems.summary()}.{hint}", logging.WARNING)

    def _mention(self, source: str, notes: Problems) -> None:
        """Log in one line what was put right, or hand it to who collects it."""
        if not notes:
            return
        if _collectors:
            _collectors[-1].notes.merge(notes, source)
        else:
            self._log(f"{source}: {notes.summary()}.")

    @staticmethod
    def _log(message: str, level: int = logging.INFO) -> None:
        print_log(message, logger="current", level=level)
