"""Images named by a text file, or sorted into one folder a class."""

import os

from negvision.classification.datasets.base import ImageDataset
from negvision.data.formats.paths import LEAVES_ROOT, leaves_root
from negvision.data.formats.text_files import numbered_lines, parse_labeled
from negvision.data.images import IMAGE_SUFFIXES
from negvision.data.images.files import FileListing
from negvision.errors import DatasetError, Problems
from negvision.registry import DATASETS


@DATASETS.register_module()
class ImageListDataset(ImageDataset):
    """Images that a text file lists with their labels, one ``path label`` a line.

    All lines are checked when the file is loaded, and image folders are listed once for missing
    files.

    Args:
        ann_file: The list. Paths are relative to ``data_prefix["img"]`` and may hold blanks.
        **kwargs: Of :class:`negvision.classification.datasets.base.ImageDataset`.

    Raises:
        DatasetError: A line, label or image is at fault and ``on_bad_sample`` is "error", or
            nothing is left.

    Example:
        >>> import pathlib, tempfile
        >>> root = pathlib.Path(tempfile.mkdtemp())
        >>> _ = (root / "a.jpg").write_bytes(b"")
        >>> _ = (root / "train.txt").write_text("a.jpg 1\\n")
        >>> dataset = ImageListDataset(data_root=str(root), ann_file="train.txt")
        >>> dataset.get_data_info(0)["label"]
        1
    """

    def load_data_list(self) -> list[dict]:
        """Read and check the list; see the base class."""
        self._require_file()
        problems, files, samples, total = Problems(), FileListing(), [], 0
        for place, line in numbered_lines(self.ann_file):
            total += 1
            parsed = parse_labeled(place, line, problems)
            if parsed is None:
                continue
            name, label = parsed
            folder = self.data_prefix.get("img", "")
            path = os.path.join(folder, name)
            fault = self._label_fault(label)
            if fault:
                problems.add(fault, place, line)
            elif leaves_root(name, folder, self.data_root):
                problems.add(LEAVES_ROOT, place, name)
            elif path not in files:
                problems.add("missing image file", place, path)
            else:
                samples.append(self._sample(path, label))
        return self._finish(samples, problems, self.ann_file, total)


@DATASETS.register_module()
class ImageFolderDataset(ImageDataset):
    """Images in one folder a class: ``data_prefix["img"]/class/*.jpg``.

    Labels follow ``metainfo["classes"]``; without it, the sorted names of the folders, which then
    become the classes. Files that are no JPEG, PNG, BMP or WebP by their names are left alone;
    folders inside are not looked into.

    Args:
        **kwargs: Of :class:`negvision.classification.datasets.base.ImageDataset`; ``ann_file`` has
            no use here.

    Raises:
        DatasetError: A class of ``metainfo`` has no folder, or a folder holds no image or is of
            no class, and ``on_bad_sample`` is "error"; or no image is left.

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
        if not os.path.isdir(root):
            raise DatasetError(
                f"Missing: image folder {os.path.abspath(root)}.\nName the folder that holds the "
                "data with --data-root DIR (data_root in the config)."
            )
        with os.scandir(root) as entries:
            folders = sorted(entry.name for entry in entries if entry.is_dir())
        classes = list(self._metainfo.setdefault("classes", tuple(folders)))
        problems, samples = Problems(), []
        for name in [] if self.is_ood else sorted(set(classes) - set(folders)):
            problems.add("class without a folder", root, name)
        for folder in folders:
            place = os.path.join(root, folder)
            names = [n for n in os.listdir(place) if n.lower().endswith(IMAGE_SUFFIXES)]
            if not names:
                problems.add("class folder without an image", place)
            elif folder not in classes and not self.is_ood:
                problems.add("folder of no class", place, folder)
            else:
                label = -1 if self.is_ood else classes.index(folder)
                samples += [
                    self._sample(os.path.join(place, name), label) for name in sorted(names)
                ]
        return self._finish(samples, problems, root, len(samples))
