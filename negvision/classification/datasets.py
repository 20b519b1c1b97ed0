"""Data sets of images with one class each: lists, folders, packs, and the embedded digits.

A pipeline starts with ``negvision.LoadImageFromFile`` and ends with ``negvision.PackImageInputs``.
An evaluation joins sets with MMEngine's ``ConcatDataset`` and ``ignore_keys=["classes"]``, the
in-distribution set first.
"""

from __future__ import annotations

import os
import random
from collections.abc import Mapping

from mmengine.dataset import BaseDataset, force_full_init

from negvision.data.doubted import DoubtedMixin, probability_of
from negvision.data.formats.paths import LEAVES_ROOT, leaves_root
from negvision.data.formats.text_files import composed, numbered_lines, parse_labeled
from negvision.data.images.bad_samples import BadSampleMixin
from negvision.data.images.files import FileListing
from negvision.data.images.listing import PassedOver, is_stray
from negvision.data.images.packs import read_pack
from negvision.errors import ConfigError, DatasetError, Problems
from negvision.registry import DATASETS
from negvision.toy.digits import GeneratesDigits


class ImageDataset(BadSampleMixin, BaseDataset):
    """Images of one class each, or out-of-distribution images.

    A sample has ``img_path``, ``label``, ``is_ood``, ``source`` and ``sample_idx``. Files are
    local. Subclasses implement ``load_data_list``, which ends with :meth:`_finish`.

    Args:
        ann_file: The file that describes the images, relative to ``data_root``.
        data_root: Folder that all other paths are relative to.
        data_prefix: ``img`` is the folder of the images.
        metainfo: ``dict(classes=...)``, names of the classes in the order of the labels.
        is_ood: Whether all images are out-of-distribution. Their labels become -1; such a set is
            for evaluation, with ``test_mode=True``.
        source: Name of the set in tables; by default that of its file or folder.
        on_bad_sample: See :class:`negvision.data.images.bad_samples.BadSampleMixin`.
        **kwargs: ``indices`` (a number n keeps the first n), ``pipeline``, ``test_mode``,
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
                "which are for evaluation only: set test_mode=True as well, or remove it from "
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

    def _label_problem(self, label: int) -> str | None:
        """The problem with a label, or None; labels of OOD images are not checked."""
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
        if not total and not problems:
            raise DatasetError(f"{source}: no image is in it; it is empty.")
        self._settle(
            source,
            problems,
            f"{total:,} images",
            len(samples),
            nothing_left="No image is left. Do data_root and data_prefix['img'] point to the "
            f"images? They are expected in {self.data_prefix.get('img', '')!r}.",
        )
        return samples

    def _require_file(self) -> None:
        if not self.ann_file:
            raise DatasetError(
                f"ann_file is empty; set it to the file that {type(self).__name__} reads."
            )
        self._require_paths(self.ann_file)


@DATASETS.register_module()
class ImageListDataset(DoubtedMixin, ImageDataset):
    """Images listed in a text file with their labels, one ``path label`` per line.

    Args:
        ann_file: The list. Paths are relative to ``data_prefix["img"]`` and may contain spaces.
        suspects: File of ``negvision audit`` about ``ann_file``, to train without believing what it
            suspects: an image gives its place to a random other one with the probability that its
            label is wrong (a half where the file has none).
        **kwargs: Of :class:`ImageDataset`.

    Raises:
        ConfigError: ``suspects`` with ``test_mode``.
        DatasetError: A line, label or image is bad and ``on_bad_sample`` is "error", or nothing
            is left. The suspects are of other images or classes, or all images are certain ones.

    Example:
        >>> import pathlib, tempfile
        >>> root = pathlib.Path(tempfile.mkdtemp())
        >>> _ = (root / "a.jpg").write_bytes(b"")
        >>> _ = (root / "train.txt").write_text("a.jpg 1\\n")
        >>> dataset = ImageListDataset(data_root=str(root), ann_file="train.txt")
        >>> dataset.get_data_info(0)["label"]
        1
    """

    @staticmethod
    def _doubt(results: dict) -> dict | None:
        return None if random.random() < results.get("suspect", 0.0) else results

    def load_data_list(self) -> list[dict]:
        """Read and check the list; see the base class."""
        self._require_file()
        wrong = {one.image: probability_of(one) for one in self._audit(("image",))}
        # Each image folder is listed once to find missing files.
        problems, files, samples, total = Problems(), FileListing(), [], 0
        folder = self.data_prefix.get("img", "")
        for place, line in numbered_lines(self.ann_file):
            total += 1
            parsed = parse_labeled(place, line, problems)
            if parsed is None:
                continue
            name, label = parsed
            path = os.path.join(folder, name)
            problem = self._label_problem(label)
            if problem:
                problems.add(problem, place, line)
            elif leaves_root(name, folder, self.data_root):
                problems.add(LEAVES_ROOT, place, name)
            elif (found := files.find(folder, name, self.data_root)) is None:
                problems.add("missing image file", place, path)
            else:
                sample = self._sample(os.path.join(folder, found), label)
                samples.append({**sample, "suspect": wrong[name]} if name in wrong else sample)
        if samples and all(sample.get("suspect", 0.0) >= 1 for sample in samples):
            raise DatasetError(
                f"{self.suspects}: all {len(samples):,} images of {self.ann_file} are certainly "
                "wrong, so that none is left to train"
            )
        return self._finish(samples, problems, self.ann_file, total)


@DATASETS.register_module()
class ImageFolderDataset(ImageDataset):
    """Images in one folder per class: ``data_prefix["img"]/class/*.jpg``.

    Labels follow ``metainfo["classes"]``, by default the sorted names of the folders. Files other
    than JPEG, PNG, BMP or WebP (by name), hidden ones and nested folders are ignored.

    Args:
        **kwargs: Of :class:`ImageDataset`; ``ann_file`` has no effect.

    Raises:
        DatasetError: A class of ``metainfo`` has no folder, or a folder has no image or no class,
            and ``on_bad_sample`` is "error"; or no image is left.

    Example:
        >>> import pathlib, tempfile
        >>> root = pathlib.Path(tempfile.mkdtemp())
        >>> for name in ("cat", "dog"):
        ...     (root / name).mkdir()
        ...     _ = (root / name / "1.jpg").write_bytes(b"")
        >>> dataset = ImageFolderDataset(data_root=str(root))
        >>> dataset.metainfo["classes"], [dataset.get_data_info(i)["label"] for i in range(2)]
        (('cat', 'dog'), [0, 1])
    """

    def load_data_list(self) -> list[dict]:
        """List the folders; see the base class."""
        root = self.data_prefix.get("img", "") or "."
        self._require_paths(img=root)
        with os.scandir(root) as entries:
            names = [e.name for e in entries if e.is_dir() and not is_stray(e.name)]
        folders = {composed(name): name for name in sorted(names)}
        known = map(composed, self._metainfo.get("classes") or folders)
        classes = self._metainfo["classes"] = tuple(known)
        problems, samples, passed_over = Problems(), [], PassedOver()
        for name in [] if self.is_ood else sorted(set(classes) - set(folders)):
            problems.add("class without a folder", root, name)
        for name, folder in folders.items():
            place = os.path.join(root, folder)
            names = passed_over.named(os.listdir(place))
            if not names:
                problems.add("class folder without an image", place)
            elif name not in classes and not self.is_ood:
                problems.add("folder of no class", place, folder)
            else:
                label = -1 if self.is_ood else classes.index(name)
                samples += [
                    self._sample(os.path.join(place, name), label) for name in sorted(names)
                ]
        self._mention(root, passed_over.notes())
        return self._finish(samples, problems, root, len(samples))


@DATASETS.register_module()
class PackedImageDataset(ImageDataset):
    """Images of a pack: ``data``, ``offsets``, ``labels`` and ``classes`` in one ``.npz`` file.

    See :class:`negvision.data.images.packs.ImagePack` for the format. The encoded images stay in
    memory, shared by all workers, and ``negvision.LoadImageFromFile`` decodes each when needed.
    ``img_path`` is ``file:index``, which :func:`negvision.data.images.packs.read_image` reads.

    Args:
        ann_file: The ``.npz`` file.
        metainfo: By default the pack's own classes.
        **kwargs: Of :class:`ImageDataset`.

    Raises:
        DatasetError: The pack is damaged, its classes differ from those of ``metainfo``, or a
            label is out of range and ``on_bad_sample`` is "error".

    Example::

        dataset=dict(type="negvision.PackedImageDataset", data_root="data/cifar/",
                     ann_file="cifar100_test.npz", is_ood=True, source="cifar100",
                     test_mode=True, pipeline=[...])
    """

    def load_data_list(self) -> list[dict]:
        """Read and check the pack; see the base class."""
        self._require_file()
        self._pack = read_pack(self.ann_file)
        classes = self._metainfo.setdefault("classes", self._pack.classes)
        if not self.is_ood and tuple(classes) != self._pack.classes:
            raise DatasetError(
                f"{self.ann_file}: its classes are {self._pack.classes}, but metainfo has "
                f"{tuple(classes)}: labels would name other classes. Remove metainfo."
            )
        problems, samples = Problems(), []
        for index, label in enumerate(self._pack.labels.tolist()):
            path = f"{self.ann_file}:{index}"
            problem = self._label_problem(label)
            if problem:
                problems.add(problem, path, label)
            else:
                samples.append({**self._sample(path, label), "pack_index": index})
        return self._finish(samples, problems, self.ann_file, len(self._pack))

    @force_full_init
    def get_data_info(self, idx: int) -> dict:
        """One image with its bytes, ``img_bytes``."""
        info = super().get_data_info(idx)
        return {**info, "img_bytes": self._pack.encoded(info.pop("pack_index"))}


@DATASETS.register_module()
class DigitsCropDataset(GeneratesDigits, PackedImageDataset):
    """:class:`PackedImageDataset` on single digits of the embedded set, 32 x 32 pixels.

    Args:
        ann_file: "crops/train_id.npz", "crops/val_id.npz" or "crops/test_id.npz" with the eight
            known classes, or "crops/test_ood.npz" with the held-out ones.
        data_root, digits: As in :class:`negvision.toy.digits.GeneratesDigits`.
        **kwargs: Of :class:`PackedImageDataset`.

    Example:
        >>> dataset = DigitsCropDataset(
        ...     ann_file="crops/test_id.npz", data_root="digits",
        ...     digits=dict(train=2, val=2, test=4, test_ood=2))
        >>> len(dataset.metainfo["classes"])
        8
    """
