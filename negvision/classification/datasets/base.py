"""What the datasets of images with one class each have in common."""

from __future__ import annotations

import os
from collections.abc import Mapping

from mmengine.dataset import BaseDataset

from negvision.data.images.bad_samples import BadSampleMixin
from negvision.errors import ConfigError, DatasetError, Problems


class ImageDataset(BadSampleMixin, BaseDataset):
    """Images of one class each, or images that count as out-of-distribution.

    A sample has ``img_path``, ``label``, ``is_ood``, ``source`` and ``sample_idx``. Files are
    local. Subclasses implement ``load_data_list`` and there call :meth:`_finish`.

    Args:
        ann_file: The file that describes the images, relative to ``data_root``.
        data_root: Folder that all other paths are relative to.
        data_prefix: ``img`` is the folder of the images.
        metainfo: ``dict(classes=...)``, names of the classes in the order of the labels.
        is_ood: Whether all images are out-of-distribution. Their labels become -1, whatever they
            are; such a set is for evaluation, with ``test_mode=True``.
        source: Name of the set in figures; by default that of its file or folder.
        on_bad_sample: See :class:`negvision.data.images.bad_samples.BadSampleMixin`.
        **kwargs: ``indices`` (a number keeps the first so many), ``pipeline``, ``test_mode``,
            ``lazy_init`` and ``max_refetch`` of ``mmengine.dataset.BaseDataset``.

    Raises:
        ConfigError: ``is_ood`` without ``test_mode``.
        DatasetError: See the subclass.
    """

    def __init__(
        self,
        ann_file: str = "",
        data_root: str = "",
        data_prefix: Mapping | None = None,
        metainfo: Mapping | None = None,
        is_ood: bool = False,
        source: str = "",
        test_mode: bool = False,
        **kwargs,
    ) -> None:
        if is_ood and not test_mode:
            raise ConfigError(
                f"{type(self).__name__} with is_ood=True is a set of out-of-distribution images, "
                "which are for evaluation only: give test_mode=True as well, or take it out of "
                "train_dataloader"
            )
        self.is_ood = is_ood
        named = ann_file or os.path.join(data_root, (data_prefix or {}).get("img", ""))
        self.source = source or os.path.splitext(os.path.basename(named.rstrip("/")))[0]
        super().__init__(
            ann_file=ann_file,
            data_root=data_root,
            data_prefix=dict(data_prefix or {"img": ""}),
            metainfo=metainfo,
            test_mode=test_mode,
            **kwargs,
        )

    def _sample(self, path: str, label: int) -> dict:
        return {
            "img_path": path,
            "label": -1 if self.is_ood else label,
            "is_ood": self.is_ood,
            "source": self.source,
        }

    def _label_fault(self, label: int) -> str | None:
        """The kind of problem that a label is, or None; labels of OOD images do not count."""
        if self.is_ood:
            return None
        if label < 0:
            return "negative label"
        classes = self._metainfo.get("classes")
        if classes is not None and label >= len(classes):
            return f"label out of range: there are {len(classes)} classes"
        return None

    def _finish(
        self, samples: list[dict], problems: Problems, source: str, total: int
    ) -> list[dict]:
        """``samples``, where what was found in ``total`` images allows it."""
        if not total and not problems:
            raise DatasetError(f"{source}: no image is in it; it is empty.")
        self._settle(
            source,
            problems,
            f"{total:,} images",
            len(samples),
            nothing_left="No image is left. Do data_root and data_prefix['img'] point to the "
            f"images? They are looked for in {self.data_prefix.get('img', '')!r}.",
        )
        return samples

    def _require_file(self) -> None:
        if not self.ann_file:
            raise DatasetError(
                f"ann_file is empty; name the file that {type(self).__name__} reads."
            )
        if not os.path.isfile(self.ann_file):
            raise DatasetError(
                f"Missing: ann_file {os.path.abspath(self.ann_file)}.\nPut the data there, or "
                "name the folder that holds it with --data-root DIR (data_root in the config)."
            )
