"""Segmentation data sets of two folders: images, and label images with the same names."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence

from mmengine import fileio
from mmseg.datasets import BaseSegDataset

from negvision.data.formats.label_files import VOID, read_classes_file, read_text, resolve_classes
from negvision.data.formats.paths import LEAVES_ROOT, leaves_root
from negvision.data.images.bad_samples import BadSampleMixin
from negvision.data.images.files import FileListing
from negvision.data.images.listing import PassedOver, is_stray
from negvision.errors import ConfigError, DatasetError, Problems, did_you_mean
from negvision.registry import DATASETS
from negvision.toy.digits import DigitsParameters, GeneratesDigits
from negvision.toy.scene import CLASS_NAMES


@DATASETS.register_module()
class SegDataset(BadSampleMixin, BaseSegDataset):
    """mmseg's ``BaseSegDataset`` with classes from a file and checked input.

    Takes mmseg's arguments. Differences:

    - The ids of the label images have names: from ``classes_file``, or in a subclass from
      ``METAINFO["classes"]`` in the order of the ids, or else from ``metainfo["classes"]``.
    - ``metainfo["classes"]`` selects the classes to train and predict and their order; pixels of
      other classes become void (255). This is how classes are held out.
    - Missing folders and files are found at the start. Unreadable images and label images are
      found when they are loaded, with :class:`negvision.LoadImageFromFile` and
      :class:`negvision.LoadSegAnnotations` in the pipeline.

    Args:
        classes_file: A list with one ``id name`` per line, such as ``classes.txt``; relative to
            ``data_root``.
        on_bad_sample: See :class:`negvision.data.images.bad_samples.BadSampleMixin`.

    Raises:
        DatasetError: See above; also if ``metainfo["classes"]`` names an unknown class.

    Example:
        >>> dataset = dict(
        ...     type="negvision.SegDataset", data_root="data/camvid/", classes_file="classes.txt",
        ...     data_prefix=dict(img_path="img/train", seg_map_path="ann/train"),
        ...     metainfo=dict(classes=("sky", "road", "car")))
    """

    def __init__(
        self,
        *args,
        classes_file: str | None = None,
        metainfo: dict | None = None,
        data_root: str | None = None,
        **kwargs,
    ) -> None:
        if kwargs.get("reduce_zero_label"):
            raise DatasetError(
                "reduce_zero_label shifts the ids of the label images, which SegDataset needs: "
                "remove the class of id 0 from metainfo['classes'] instead"
            )
        metainfo = dict(metainfo or {})
        names = self.METAINFO.get("classes") or metainfo.get("classes") or ()
        self.class_ids = {name: number for number, name in enumerate(names)}
        if classes_file is not None:
            path = os.path.join(data_root or "", classes_file)
            try:
                self.class_ids = read_classes_file(path, kwargs.get("backend_args"))
            except FileNotFoundError:
                raise DatasetError(
                    f"classes_file {os.path.abspath(path)} does not exist. It names the ids of the "
                    "label images, one 'id name' per line"
                ) from None
        elif not names:
            raise DatasetError(
                "the ids of the label images have no names: set classes_file='classes.txt' (one "
                "'id name' per line) or metainfo=dict(classes=[...]) in the order of the ids"
            )
        metainfo.setdefault("classes", tuple(self.class_ids))
        super().__init__(*args, metainfo=metainfo, data_root=data_root, **kwargs)

    def get_label_map(self, new_classes: Sequence[str] | None = None) -> dict[int, int]:
        """Label of each id of the label images; 255 for ids not in ``new_classes``."""
        chosen = resolve_classes(
            new_classes or tuple(self.class_ids), self.class_ids, "metainfo['classes']"
        )
        label_map = dict.fromkeys(self.class_ids.values(), VOID)
        return label_map | {class_id: label for label, class_id in enumerate(chosen)}

    def get_data_info(self, idx: int) -> dict:
        """One record, with its own copies of ``label_map`` and ``class_ids``."""
        return super().get_data_info(idx) | {
            "label_map": dict(self.label_map),
            "class_ids": dict(self.class_ids),
        }

    def load_data_list(self) -> list[dict]:
        """One record per image: ``img_path``, ``seg_map_path`` and ``seg_fields``."""
        if self._is_local():
            folders = {key: path for key, path in self.data_prefix.items() if path}
            self._require_paths(self.ann_file, **folders)
        problems = Problems()
        data_list = []
        images = FileListing()
        names = list(self._image_names())
        kinds = [("missing image", "img_path", self.img_suffix)]
        if self.data_prefix.get("seg_map_path"):
            kinds.append(("missing label", "seg_map_path", self.seg_map_suffix))
        for name in names:
            folders = filter(None, map(self.data_prefix.get, ("img_path", "seg_map_path")))
            if any(leaves_root(name, folder, self.data_root) for folder in folders):
                problems.add(LEAVES_ROOT, self.ann_file, name)
                continue
            info: dict = {"reduce_zero_label": False, "seg_fields": []}
            for kind, key, suffix in kinds:
                folder, own = self.data_prefix[key], name + suffix
                found = images.find(folder, own, self.data_root) if self._is_local() else own
                if found is None:
                    problems.add(kind, os.path.join(folder, own))
                else:
                    info[key] = os.path.join(folder, found)
            if all(key in info for _, key, _ in kinds):
                data_list.append(info)
        source = self.ann_file or self.data_prefix["img_path"]
        if not names:
            raise DatasetError(f"{source}: no image {'*' + self.img_suffix} found.")
        nothing_left = (
            f"No image is left. Label images must be in {self.data_prefix['seg_map_path']!r} "
            f"under the image's name, with {self.seg_map_suffix!r} for {self.img_suffix!r} "
            "(seg_map_suffix, img_suffix)."
        )
        self._settle(source, problems, f"{len(names):,} images", len(data_list), nothing_left)
        return data_list

    def _image_names(self) -> Iterator[str]:
        """Names relative to the image folder, without suffix."""
        if self.ann_file:
            lines = read_text(self.ann_file, self.backend_args).splitlines()
            names = [line.strip() for line in lines if line.strip()]
        else:
            folder = self.data_prefix["img_path"]
            found = fileio.list_dir_or_file(
                folder,
                list_dir=False,
                recursive=True,
                backend_args=self.backend_args,
            )
            kept = [name for name in found if not is_stray(name)]
            names = sorted(name for name in kept if name.endswith(self.img_suffix))
            # Labels may lie beside their images.
            ends = (self.img_suffix, self.seg_map_suffix)
            passed_over = PassedOver()
            passed_over.named((name for name in kept if not name.endswith(ends)), ())
            self._mention(folder, passed_over.notes())
        for name in names:
            yield name.removesuffix(self.img_suffix)

    def _is_local(self) -> bool:
        return (self.backend_args or {}).get("backend", "local") in ("local", "LocalBackend")


@DATASETS.register_module()
class DigitsSegDataset(GeneratesDigits, SegDataset):
    """:class:`SegDataset` on the embedded digits, which are generated at first use.

    Ids of the label images are 0 for the background and 1 ... 10 for the digits 0 ... 9. Held-out
    digits (7 and 9) are not among the classes unless ``metainfo`` names them: their pixels are
    void in training, and out of distribution for
    ``dict(type="negvision.LoadOODMap", ood_classes=["seven", "nine"])``.

    Args:
        split: "train", "val", "test" (images of all digits), or "test_ood" (held-out digits only).
        data_root, digits: As in :class:`negvision.toy.digits.GeneratesDigits`.

    Raises:
        ConfigError: No such split.

    Example:
        >>> dataset = DigitsSegDataset(
        ...     split="val", data_root="digits", digits=dict(train=2, val=4, test=2, test_ood=2))
        >>> len(dataset), dataset.metainfo["classes"][:3]
        (4, ('background', 'zero', 'one'))
    """

    METAINFO = {"classes": ("background", *CLASS_NAMES)}

    def __init__(
        self,
        *args,
        split: str,
        digits: dict | None = None,
        metainfo: dict | None = None,
        **kwargs,
    ) -> None:
        splits = ("train", "val", "test", "test_ood")
        if split not in splits:
            raise ConfigError(
                f"split must be one of {', '.join(splits)}, got {split!r}"
                f"{did_you_mean(str(split), splits)}"
            )
        held_out = {CLASS_NAMES[digit] for digit in DigitsParameters(**(digits or {})).held_out}
        known = tuple(name for name in self.METAINFO["classes"] if name not in held_out)
        super().__init__(
            *args,
            digits=digits,
            data_prefix={"img_path": split, "seg_map_path": f"masks/{split}"},
            metainfo={"classes": known, **(metainfo or {})},
            **kwargs,
        )
