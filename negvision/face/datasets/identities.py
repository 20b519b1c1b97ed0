"""Training sets: which identities take part, and under which labels."""

from collections.abc import Sequence

import numpy as np

from negvision.errors import DatasetError, Problems
from negvision.face.datasets.base import FaceDataset


class FaceIdentityDataset(FaceDataset):
    """A set in which every image has an identity; ``metainfo["num_classes"]`` counts them.

    Args:
        num_classes: Without it, labels become 0 ... C - 1 in the order of the labels found, with
            a log line where that changes them. With it, labels stay as they are, so that several
            sets can share class centres, and each has to be below ``num_classes``.
        min_images: Identities with fewer images are left out, counted and logged. One image is
            enough for the classification pairs, yet gives no positive metric pair.
        *args: Of :class:`FaceDataset`, as are all further keywords.
    """

    def __init__(
        self, *args, num_classes: int | None = None, min_images: int = 1, **kwargs
    ) -> None:
        if min_images < 1:
            raise ValueError(f"min_images is {min_images}; it must be 1 or more")
        if num_classes is not None and num_classes < 1:
            raise ValueError(f"num_classes is {num_classes}; it must be 1 or more")
        self.num_classes = num_classes
        self.min_images = min_images
        super().__init__(*args, **kwargs)

    def _label_fault(self, label: int) -> str | None:
        """The kind of problem that a label is, or None."""
        if label < 0:
            return "negative label"
        if self.num_classes is not None and label >= self.num_classes:
            return f"label out of range: num_classes is {self.num_classes}"
        return None

    def _number_identities(
        self, labels: Sequence[int], source: str
    ) -> tuple[np.ndarray, np.ndarray]:
        """Choose the samples that stay, and their labels.

        Args:
            labels: Of all usable samples, not negative.
            source: Named in messages.

        Returns:
            The indices of the samples that stay and their labels, both int64 of shape (N,).
        """
        found, identity, counts = np.unique(
            np.asarray(labels, dtype=np.int64), return_inverse=True, return_counts=True
        )
        few = counts < self.min_images
        if few.all():
            raise DatasetError(
                f"{source}: no identity has min_images = {self.min_images} or more images; the "
                f"largest has {counts.max(initial=0)}."
            )
        if few.any():
            self._log(
                f"{source}: {few.sum():,} of {len(found):,} identities left out, which have fewer "
                f"than {self.min_images} images ({counts[few].sum():,} of {len(labels):,} images)."
            )
        single = int(((counts == 1) & ~few).sum())
        if single:
            self._log(f"{source}: {single:,} of {(~few).sum():,} identities have one image.")
        kept = np.flatnonzero(~few[identity])
        if self.num_classes is not None:
            self._metainfo["num_classes"] = self.num_classes
            return kept, found[identity[kept]]
        self._metainfo["num_classes"] = int((~few).sum())
        left = found[~few]
        if left[-1] != len(left) - 1:
            self._log(
                f"{source}: labels {left[0]} ... {left[-1]} of {len(left):,} identities become "
                f"0 ... {len(left) - 1}. Give num_classes to keep labels as they are."
            )
        return kept, (np.cumsum(~few) - 1)[identity[kept]]

    def _settle_samples(self, source: str, problems: Problems, total: int, left: int) -> None:
        """Raise or log what was found in ``total`` samples, of which ``left`` can be used."""
        if not total and not problems:
            raise DatasetError(f"{source}: no image is listed; it is empty.")
        self._settle(
            source,
            problems,
            f"{total:,} images",
            left,
            nothing_left="No image is left. Do data_root and data_prefix['img'] point to the "
            f"images? They are looked for in {self.data_prefix.get('img', '')!r}.",
        )
