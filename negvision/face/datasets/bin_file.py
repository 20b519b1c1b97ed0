"""InsightFace's verification files: ``lfw.bin``, ``cfp_fp.bin``, ``agedb_30.bin``."""

from collections.abc import Sequence

import numpy as np

from negvision.data.images.loading import decode_image
from negvision.errors import DatasetError, Problems
from negvision.face.datasets.base import FaceProtocolDataset
from negvision.face.datasets.bin_pickle import read_bin
from negvision.face.datasets.packed import PackedBytes
from negvision.registry import DATASETS


@DATASETS.register_module()
class FaceBinDataset(FaceProtocolDataset):
    """Every distinct image of a ``.bin`` file, once; no code in the file is run.

    The file is a pickle of encoded images, two for each pair, and of flags whether the two show
    one person. Images that are equal byte by byte become one sample. ``metainfo`` has ``pairs``
    and ``same`` as of :class:`negvision.face.datasets.pairs.FacePairDataset`; labels are -1, and
    ``img_path`` is ``file[i]`` for image i of the file.

    Args:
        ann_file: The ``.bin`` file.
        on_bad_sample: "error" raises where the numbers of images and flags do not fit; damaged
            images are met when they are loaded. "skip" decodes every image once at the start and
            leaves out pairs that cannot be compared, counted and logged.
        **kwargs: Of :class:`negvision.face.datasets.base.FaceProtocolDataset`.

    Raises:
        DatasetError: see above; also where the file is truncated or asks for anything but plain
            data, and where no pair is left.

    Example:
        >>> import pathlib, pickle, tempfile
        >>> root = pathlib.Path(tempfile.mkdtemp())
        >>> content = ([b"image 0", b"image 1", b"image 0", b"image 2"], [True, False])
        >>> _ = (root / "lfw.bin").write_bytes(pickle.dumps(content))
        >>> dataset = FaceBinDataset(data_root=str(root), ann_file="lfw.bin")
        >>> len(dataset), dataset.metainfo["pairs"].tolist()
        (3, [[0, 1], [0, 2]])
    """

    def load_columns(self) -> dict[str, Sequence]:
        """Read and check the file; see the base class."""
        self._require_files()
        images, same = read_bin(self.ann_file)
        problems = Problems()
        if len(images) != 2 * len(same):
            problems.add(
                f"file with {len(images):,} images and {len(same):,} flags, which needs two "
                "images a flag",
                self.ann_file,
            )
        elif not len(same):
            raise DatasetError(f"{self.ann_file}: holds no pair.")
        faults: dict[bytes, str | None] = {}
        usable = [
            pair
            for pair in range(min(len(same), len(images) // 2))
            if self._can_be_compared(pair, images, faults, problems)
        ]
        self._settle(
            self.ann_file,
            problems,
            f"{len(same):,} pairs",
            len(usable),
            nothing_left="No pair is left; fetch the file anew.",
        )
        index: dict[bytes, int] = {}
        places: list[int] = []
        for i in (2 * pair + side for pair in usable for side in (0, 1)):
            if index.setdefault(images[i], len(index)) == len(places):
                places.append(i)
        self._set_protocol(
            pairs=np.array(
                [(index[images[2 * pair]], index[images[2 * pair + 1]]) for pair in usable],
                dtype=np.int64,
            ),
            same=same[usable],
        )
        return {
            "bin_index": np.array(places, dtype=np.int64),
            "img_bytes": PackedBytes(index),
            "label": np.full(len(index), -1, dtype=np.int64),
        }

    def _can_be_compared(
        self, pair: int, images: list[bytes], faults: dict, problems: Problems
    ) -> bool:
        if self.on_bad_sample == "error":
            return True
        for i in (2 * pair, 2 * pair + 1):
            if images[i] not in faults:
                try:
                    decode_image(images[i], f"{self.ann_file}[{i}]")
                    faults[images[i]] = None
                except DatasetError as error:
                    faults[images[i]] = str(error)
            if faults[images[i]]:
                problems.add("pair with an unreadable image", f"pair {pair}", faults[images[i]])
                return False
        return True

    def _describe(self, row: int) -> str:
        return f"{self.ann_file}[{self._columns['bin_index'][row]}]"
