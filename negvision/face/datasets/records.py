"""InsightFace's training sets, ``train.rec`` with ``train.idx``."""

import os
from collections.abc import Sequence

import numpy as np
from mmengine.dataset import force_full_init

from negvision.errors import DatasetError, Problems
from negvision.face.datasets.identities import FaceIdentityDataset
from negvision.face.datasets.record_io import RecordFile, read_index
from negvision.face.datasets.record_labels import find_images, label_of
from negvision.registry import DATASETS


@DATASETS.register_module()
class FaceRecordDataset(FaceIdentityDataset):
    """Images in an MXNet record file; MXNet is not needed.

    At the start the index is read, and of the records only those that say which images are of
    which identity. An image's own record is read, and its label compared, when it is asked for.
    ``img_path`` is ``file[key]``.

    Args:
        ann_file: The ``.rec`` file.
        idx_file: Its index; by default the file beside it with the suffix ``.idx``.
        on_bad_sample: "error" raises for records that are missing or cannot be read. "skip" leaves
            them out at the start, counted and logged, and replaces damaged images by random
            others, counted in ``skipped_images``.
        **kwargs: Of :class:`negvision.face.datasets.identities.FaceIdentityDataset`.

    Raises:
        DatasetError: see above; also where record 0 is damaged or no image is left.

    Example::

        dataset=dict(type="negvision.FaceRecordDataset", data_root="data/faces_emore/",
                     ann_file="train.rec", pipeline=[...])
    """

    _file_arguments = ("idx_file",)

    def __init__(self, ann_file: str, *args, idx_file: str = "", **kwargs) -> None:
        self.idx_file = idx_file or os.path.splitext(ann_file)[0] + ".idx"
        super().__init__(ann_file, *args, **kwargs)

    def load_columns(self) -> dict[str, Sequence]:
        """Read the index and the labels; see the base class."""
        self._require_files()
        self._records = RecordFile(self.ann_file)
        problems = Problems()
        keys, offsets = read_index(self.idx_file, problems)
        keys, offsets, labels = find_images(self._records, keys, offsets, problems)
        usable = labels >= 0
        for row in np.flatnonzero(usable & (offsets + 8 > self._records.size)):
            problems.add("record beyond the end of the file", f"record {keys[row]}")
            usable[row] = False
        faults = {int(label): self._label_fault(int(label)) for label in np.unique(labels)}
        wrong = usable & np.isin(labels, [label for label, fault in faults.items() if fault])
        for row in np.flatnonzero(wrong):
            problems.add(faults[int(labels[row])], f"record {keys[row]}", int(labels[row]))
        total, usable = len(keys), usable & ~wrong
        keys, offsets, labels = keys[usable], offsets[usable], labels[usable]
        self._settle_samples(self.ann_file, problems, total, len(keys))
        kept, numbers = self._number_identities(labels, self.ann_file)
        return {
            "label": numbers,
            "record_key": keys[kept],
            "record_offset": offsets[kept],
            "record_label": labels[kept],
        }

    @force_full_init
    def get_data_info(self, idx: int) -> dict:
        """One image with its bytes, ``img_bytes``; raises ``DatasetError`` if damaged."""
        info = super().get_data_info(idx)
        record = self._records.read_image(int(info.pop("record_offset")))
        expected, found = int(info.pop("record_label")), label_of(record)
        del info["record_key"]
        if found != expected:
            raise DatasetError(
                f"{info['img_path']}: has the label {record.labels[0]}, though its neighbours say "
                f"{expected}; the record or the index is damaged.",
                kind="record with another label than its neighbours",
            )
        return {**info, "img_bytes": record.image}

    def _describe(self, row: int) -> str:
        return f"{self.ann_file}[{self._columns['record_key'][row]}]"
