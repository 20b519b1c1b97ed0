"""What a dataset does about samples that cannot be used: one error, or a counted, logged skip."""

import logging
from collections import Counter

from mmengine.logging import print_log

from negvision.errors import DatasetError, Problems


class BadSampleMixin:
    """Adds ``on_bad_sample`` to a dataset derived from MMEngine's ``BaseDataset``.

    Stands before the dataset class among the bases.

    Args:
        on_bad_sample: "error" raises one ``DatasetError`` that counts all faults by kind with
            examples. "skip" leaves out what is at fault and logs the counts; a training image
            that turns out unreadable is replaced by a random other one, counted in
            ``skipped_images`` and named in the log once per worker. In ``test_mode`` an
            unreadable image is an error all the same: metrics over fewer images would mislead.
    """

    def __init__(self, *args, on_bad_sample: str = "error", **kwargs) -> None:
        if on_bad_sample not in ("error", "skip"):
            raise ValueError(f'on_bad_sample is {on_bad_sample!r}; it must be "error" or "skip"')
        self.on_bad_sample = on_bad_sample
        self.skipped_images: Counter[str] = Counter()
        super().__init__(*args, **kwargs)

    def prepare_data(self, idx: int) -> dict | None:
        """Run the pipeline; None for an unreadable training image that is to be skipped."""
        try:
            return super().prepare_data(idx)
        except DatasetError as error:
            if self.test_mode or self.on_bad_sample == "error":
                raise
            name = self._sample_name(idx)
            self.skipped_images[name] += 1
            if self.skipped_images[name] == 1:
                count = len(self.skipped_images)
                self._log(
                    f"image left out ({count} in this process so far): {error}", logging.WARNING
                )
            return None

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
        """Raise or log ``problems``, as the user chose.

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

    @staticmethod
    def _log(message: str, level: int = logging.INFO) -> None:
        print_log(message, logger="current", level=level)
