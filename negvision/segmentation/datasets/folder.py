"""Segmentation sets of two folders: images, and label images of the same names."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence

from mmengine import fileio
from mmseg.datasets import BaseSegDataset

from negvision.data.formats.label_files import VOID, read_classes_file, read_text, resolve_classes
from negvision.data.formats.paths import LEAVES_ROOT, leaves_root
from negvision.data.images.bad_samples import BadSampleMixin
from negvision.data.images.files import FileListing
from negvision.errors import DatasetError, Problems
from negvision.registry import DATASETS


@DATASETS.register_module()
class SegDataset(BadSampleMixin, BaseSegDataset):
    """mmseg's ``BaseSegDataset`` with classes from a file and checked input.

    Takes the arguments of mmseg's. What differs:

    - The ids of the label images have names: those of ``classes_file``, or, for a subclass, those
      of ``METAINFO["classes"]`` in the order of the ids, or else those of ``metainfo["classes"]``.
    - ``metainfo["classes"]`` chooses which of them are trained and predicted, and in which order;
      pixels of the others become void (255). That is how classes are held out.
    - Missing folders and files are found at the start, unreadable images and label images when
      they are loaded, given :class:`negvision.LoadImageFromFile` and
      :class:`negvision.LoadSegAnnotations` in the pipeline.

    Args:
        classes_file: A list with one ``id name`` a line, such as ``classes.txt``; relative to
            ``data_root``.
        on_bad_sample: "error" raises one :class:`DatasetError` that counts all faults by kind with
            examples. "skip" leaves images without a label image out and logs the counts; a
            training image that turns out unreadable is replaced by a random other one, counted
            in ``skipped_images`` and named in the log once per worker. In ``test_mode`` an
            unreadable image is an error all the same.

    Raises:
        DatasetError: See above; also where ``metainfo["classes"]`` names an unknown class.

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
                "reduce_zero_label shifts the ids of the label images, which SegDataset goes by: "
                "leave the class of id 0 out of metainfo['classes'] instead"
            )
        metainfo = dict(metainfo or {})
        self.class_ids = self._find_class_ids(
            classes_file, data_root, metainfo.get("classes"), kwargs.get("backend_args")
        )
        metainfo.setdefault("classes", tuple(self.class_ids))
        super().__init__(*args, metainfo=metainfo, data_root=data_root, **kwargs)

    def get_label_map(self, new_classes: Sequence[str] | None = None) -> dict[int, int]:
        """Label of each id of the label images; 255 for what is not among ``new_classes``."""
        chosen = resolve_classes(new_classes, self.class_ids, "metainfo['classes']")
        label_map = dict.fromkeys(self.class_ids.values(), VOID)
        return label_map | {class_id: label for label, class_id in enumerate(chosen)}

    def get_data_info(self, idx: int) -> dict:
        """One record, with its own copies of ``label_map`` and ``class_ids``."""
        return super().get_data_info(idx) | {
            "label_map": dict(self.label_map),
            "class_ids": dict(self.class_ids),
        }

    def load_data_list(self) -> list[dict]:
        """One record an image: ``img_path``, ``seg_map_path`` and ``seg_fields``."""
        self._require_folders()
        problems = Problems()
        data_list = []
        images = FileListing()
        names = list(self._image_names())
        for name in names:
            if self._leaves_root(name):
                problems.add(LEAVES_ROOT, self.ann_file, name)
                continue
            info = self._data_info(name)
            missing = [
                (kind, info[key])
                for kind, key in (("missing image", "img_path"), ("missing label", "seg_map_path"))
                if key in info and self._is_local() and info[key] not in images
            ]
            for kind, path in missing:
                problems.add(kind, path)
            if not missing:
                data_list.append(info)
        source = self.ann_file or self.data_prefix["img_path"]
        if not names:
            raise DatasetError(f"{source}: there is no image {'*' + self.img_suffix} in it.")
        nothing_left = (
            f"No image is left. Label images are looked for in {self.data_prefix['seg_map_path']!r}"
            f" under the image's name, with {self.seg_map_suffix!r} for {self.img_suffix!r} "
            "(seg_map_suffix, img_suffix)."
        )
        self._settle(source, problems, f"{len(names):,} images", len(data_list), nothing_left)
        return data_list

    def _find_class_ids(
        self,
        classes_file: str | None,
        data_root: str | None,
        chosen: Sequence[str] | None,
        backend_args: dict | None,
    ) -> dict[str, int]:
        if classes_file is not None:
            path = os.path.join(data_root or "", classes_file)
            try:
                return read_classes_file(path, backend_args)
            except FileNotFoundError:
                raise DatasetError(
                    f"classes_file {os.path.abspath(path)} does not exist. It names the ids of the "
                    "label images, one 'id name' a line"
                ) from None
        names = self.METAINFO.get("classes") or chosen
        if not names:
            raise DatasetError(
                "the ids of the label images have no names: give classes_file='classes.txt' (one "
                "'id name' a line) or metainfo=dict(classes=[...]) in the order of the ids"
            )
        return {name: number for number, name in enumerate(names)}

    def _image_names(self) -> Iterator[str]:
        """Names relative to the image folder, without the suffix."""
        if self.ann_file:
            lines = read_text(self.ann_file, self.backend_args).splitlines()
            names = [line.strip() for line in lines if line.strip()]
        else:
            names = sorted(
                fileio.list_dir_or_file(
                    self.data_prefix["img_path"],
                    list_dir=False,
                    suffix=self.img_suffix,
                    recursive=True,
                    backend_args=self.backend_args,
                )
            )
        for name in names:
            yield name.removesuffix(self.img_suffix)

    def _leaves_root(self, name: str) -> bool:
        """Whether the list names an image, or its label, outside of the data."""
        folders = [self.data_prefix.get(key) for key in ("img_path", "seg_map_path")]
        return any(leaves_root(name, folder, self.data_root) for folder in folders if folder)

    def _data_info(self, name: str) -> dict:
        info = {
            "img_path": os.path.join(self.data_prefix["img_path"], name + self.img_suffix),
            "reduce_zero_label": False,
            "seg_fields": [],
        }
        if self.data_prefix.get("seg_map_path"):
            label = name + self.seg_map_suffix
            info["seg_map_path"] = os.path.join(self.data_prefix["seg_map_path"], label)
        return info

    def _require_folders(self) -> None:
        if not self._is_local():
            return
        places = {
            f"data_prefix[{key!r}]": self.data_prefix.get(key)
            for key in ("img_path", "seg_map_path")
        }
        missing = [
            f"{name}: {os.path.abspath(path)}"
            for name, path in places.items()
            if path and not os.path.isdir(path)
        ]
        if self.ann_file and not os.path.isfile(self.ann_file):
            missing.append(f"ann_file: {os.path.abspath(self.ann_file)}")
        if missing:
            raise DatasetError(
                "Missing:\n  "
                + "\n  ".join(missing)
                + "\nPut the data there, or name the folder that holds it with --data-root DIR "
                "(data_root in the config)."
            )

    def _is_local(self) -> bool:
        return (self.backend_args or {}).get("backend", "local") in ("local", "LocalBackend")
