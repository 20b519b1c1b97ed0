"""COCO data sets that check their input, OOD sets, embedded digits, and the last transform."""

from __future__ import annotations

import logging
import random
import re
from collections.abc import Mapping, Sequence

import numpy as np
from mmdet.datasets import CocoDataset as MMDetCocoDataset
from mmdet.datasets.transforms import PackDetInputs as MMDetPackDetInputs
from mmengine.fileio import LocalBackend, get_file_backend

from negvision.data.doubted import DoubtedMixin, probability_of
from negvision.data.formats.coco_file import find_classes, read_coco_file, without_parents
from negvision.data.formats.text_files import composed
from negvision.data.images.bad_samples import BadSampleMixin
from negvision.data.images.loading import LoadImageFromFile
from negvision.data.images.planes import to_planes
from negvision.data.images.tiles import MIN_VISIBLE, Tiles, cut
from negvision.data.suspects import Suspect
from negvision.detection.coco_check import (
    NARROW,
    TEXT_FLAG,
    check_annotations,
    check_images,
    settle_paths,
)
from negvision.errors import ConfigError, DatasetError, Problems
from negvision.registry import DATASETS, TRANSFORMS
from negvision.toy.digits import GeneratesDigits

_OTHER_CLASS = "annotation of no class in metainfo"
# Kinds of suspects whose boxes can be wrong.
_OF_BOXES = ("missing", "class", "location", "duplicate")


@DATASETS.register_module()
class CocoDataset(DoubtedMixin, BadSampleMixin, MMDetCocoDataset):
    """mmdet's ``CocoDataset`` with checked input.

    Takes mmdet's arguments. Differences:

    - All image records and annotations are checked when the file is loaded, and the image folder
      is listed once to find missing files. Problems are NaN or infinite coordinates, boxes of
      zero or negative size or entirely outside their image, unknown category or image ids,
      repeated image ids, ``iscrowd`` that is not 0 or 1, paths that leave the data root, and
      missing image files; where the pipeline loads masks, missing and unusable ones. Unreadable
      and truncated images are found when they are loaded, with
      :class:`negvision.LoadImageFromFile` in the pipeline.
    - With ``test_mode`` the file need not have ``annotations``.
    - Labels follow ``metainfo["classes"]`` by name; without it, the file's categories in the
      order of their ids. A class that the file does not have is an error (mmdet silently leaves
      it without objects).
    - Annotations with ``ignore: 1`` become ignore boxes like crowds; mmdet drops them and trains
      detections of them as background.
    - Boxes are clipped to their image. Repeated ids and wrong areas of annotations cost no box.

    Args:
        on_bad_sample: See :class:`negvision.data.images.bad_samples.BadSampleMixin`.
        suspects: File of ``negvision audit`` about ``ann_file``, to train without believing what it
            suspects. Each time an image is drawn, each suspected box becomes an ignore box, a
            duplicate is taken away, and each missing object is one more ignore box, with its
            probability of being wrong (a half where the file has none). The mean over the draws is
            a loss that trusts a label as far as it is likely to be right. Ignore boxes need
            :class:`negvision.IgnoringAssigner`, which ``negvision train --suspects`` sets.
        tiles: "SIZE[:OVERLAP]" in pixels, to train on overlapping tiles of large images, each of
            them a sample; OVERLAP below 1 is a share of SIZE. Boxes are clipped to their tile. One
            of which it shows less than a quarter is ignored there: no object, and no background
            either. ``filter_empty_gt`` leaves out tiles without boxes. ``negvision train --tiles``
            evaluates in tiles, too.

    Attributes:
        annotated: The number of annotations of the classes.
        objects: Those that are left to train, after ``filter_cfg``.
        backgrounds: The number of images without one of them.
        left_out: Why the others are not trained, counted.

    Raises:
        ConfigError: ``suspects`` or ``tiles`` with ``test_mode``, or ``tiles`` with masks, or
            without :class:`negvision.LoadImageFromFile`, which cuts them.
        DatasetError: See above; also if the annotation file or image folder is missing, the file
            is not COCO JSON, or no image is left, also by ``filter_cfg``. The suspects are of other
            annotations or classes.

    Example:
        >>> from negvision.toy.digits import ensure_digits
        >>> root = ensure_digits("digits", train=2, val=4, test=2, test_ood=2)
        >>> dataset = CocoDataset(
        ...     data_root=str(root), ann_file="annotations/instances_val.json",
        ...     data_prefix=dict(img="val/"), on_bad_sample="skip")
        >>> len(dataset), dataset.metainfo["classes"][:3]
        (4, ('zero', 'one', 'two'))
    """

    METAINFO: dict = {}

    def __init__(self, *args, tiles: str | int | None = None, **kwargs) -> None:
        self.tiles = Tiles.of(tiles)
        super().__init__(*args, **kwargs)

    @staticmethod
    def _doubt(results: dict) -> dict:
        kept = []
        for item in results["instances"]:
            wrong = "suspect" in item and random.random() < item["suspect"]
            if wrong and item.get("duplicate"):
                continue
            if wrong:
                item["ignore_flag"] = 1
            # An object without a box is there only as an ignore box.
            if wrong or "suspect" not in item or not item["ignore_flag"]:
                kept.append(item)
        return {**results, "instances": kept}

    def load_data_list(self) -> list[dict]:
        """Read, check and parse the annotation file; see mmdet for the format of the result."""
        if not self.ann_file:
            raise DatasetError("ann_file is empty; set it to a COCO annotation file.")
        folder = self.data_prefix.get("img", "")
        if self._is_local():
            self._require_paths(self.ann_file, img=folder)
        content = read_coco_file(
            self.ann_file, self.backend_args, need_annotations=not self.test_mode
        )
        self._set_classes(content)
        # A class of train may lack objects in val, and does in a file without annotations.
        categories = content["categories"]
        kept = categories
        if not self.test_mode:
            kept = without_parents(categories, content["annotations"])
        self.parents = [
            composed(c["name"]) for c in categories if c not in kept and c["id"] in self.cat_ids
        ]

        problems, notes = Problems(), Problems()
        if self.parents:
            notes.add(
                "class that is only the parent of others", self.ann_file, self.parents_left_out()
            )
        images = check_images(content["images"], problems)
        settle_paths(images, folder, self.data_root, self._is_local(), problems, notes)
        category_ids = {category["id"] for category in content["categories"]}
        masks = any(getattr(step, "with_mask", False) for step in self.pipeline.transforms)
        by_image = check_annotations(
            content["annotations"], images, category_ids, problems, notes, masks
        )
        self._report(content, images, problems, notes)
        self.left_out, self._unusable = Problems(), problems
        self._unusable.merge(notes.only(NARROW))

        doubts = _Doubts(self._audit(_OF_BOXES))
        self.cat_img_map = {category_id: [] for category_id in category_ids}
        data_list = []
        for image_id, image in images.items():
            if image is None:
                continue
            annotations = by_image.get(image_id, [])
            for category_id in {annotation["category_id"] for annotation in annotations}:
                self.cat_img_map[category_id].append(image_id)
            record = {**image, "img_id": image_id}
            info = self.parse_data_info({"raw_img_info": record, "raw_ann_info": annotations})
            if self.suspects is not None:
                own = [one for one in annotations if one["category_id"] in self.cat2label]
                doubts.mark(info, own, self._metainfo["classes"])
            data_list.append(info)
            for annotation in annotations:
                if annotation["category_id"] not in self.cat2label:
                    self.left_out.add(_OTHER_CLASS, image["file_name"])
                elif annotation.get("iscrowd"):
                    self.left_out.add("crowd, or marked ignore", image["file_name"])
        self.annotated = len(content["annotations"]) - self.left_out.counts[_OTHER_CLASS]
        return data_list

    def parse_data_info(self, raw_data_info: dict) -> dict:
        """See mmdet for the format; each instance has its ``annotation_id`` too."""
        info = super().parse_data_info(raw_data_info)
        # What mmdet drops otherwise, the check has dropped before.
        used = [a for a in raw_data_info["raw_ann_info"] if a["category_id"] in self.cat2label]
        for instance, annotation in zip(info["instances"], used, strict=True):
            instance["annotation_id"] = annotation.get("id")
        return info

    def filter_data(self) -> list[dict]:
        """Apply ``filter_cfg`` as mmdet does; an error if it leaves no image."""
        kept = super().filter_data()
        if len(kept) < len(self.data_list):
            least, left = self.filter_cfg.get("min_size", 0), {id(info) for info in kept}
            for info in self.data_list:
                if id(info) not in left:
                    small = min(info["width"], info["height"]) < least
                    kind = (
                        f"image smaller than min_size={least}" if small else "image without boxes"
                    )
                    self.left_out.add(kind, info["img_path"])
        self._mention(self.ann_file, self.left_out)
        self.left_out.merge(self._unusable)
        if not kept:
            raise DatasetError(
                f"{self.ann_file}: filter_cfg leaves 0 of {len(self.data_list):,} images:\n"
                f"{self.left_out.report()}\nChange filter_cfg, or correct the data.",
                kind="dataset without a usable sample",
            )
        if self.tiles is not None:
            kept = self._cut(kept, self.tiles)
        counts = [sum(not item["ignore_flag"] for item in info["instances"]) for info in kept]
        self.objects, self.backgrounds = sum(counts), counts.count(0)
        return kept

    def _cut(self, images: list[dict], tiles: Tiles) -> list[dict]:
        """The tiles of images as records; boxes are relative to the tile."""
        steps = self.pipeline.transforms
        masks = any(getattr(step, "with_mask", False) for step in steps)
        if self.test_mode or masks or not any(isinstance(s, LoadImageFromFile) for s in steps):
            raise ConfigError(
                f"{self.ann_file}: tiles={str(tiles)!r} needs a training set with boxes alone, and "
                "negvision.LoadImageFromFile in its pipeline. In an evaluation the model predicts "
                "in tiles: negvision.TiledEvaluationHook, or --tiles of negvision test"
            )
        kept = []
        for info in images:
            boxes = np.array([item["bbox"] for item in info["instances"]], float).reshape(-1, 4)
            for window in tiles.windows(info["height"], info["width"]):
                inside, visible = cut(boxes, window)
                instances = [
                    {
                        **item,
                        "bbox": box.tolist(),
                        "ignore_flag": int(item["ignore_flag"] or share < MIN_VISIBLE),
                    }
                    for item, box, share in zip(info["instances"], inside, visible, strict=True)
                    if share > 0
                ]
                if instances or not (self.filter_cfg or {}).get("filter_empty_gt"):
                    kept.append({**info, "instances": instances, "tile": window})
        self._log(f"{self.ann_file}: {len(images):,} images are {len(kept):,} tiles of {tiles}")
        return kept

    def parents_left_out(self) -> str:
        """How to leave out classes that only head others in a file; "" if there are none."""
        if not self.parents:
            return ""
        rest = tuple(name for name in self._metainfo["classes"] if name not in self.parents)
        return (
            f"{', '.join(map(repr, self.parents))} has no object and is the supercategory of "
            f"others, as in exports of Roboflow: leave it out with metainfo=dict(classes={rest}) "
            "in all data sets"
        )

    def _set_classes(self, content: dict) -> None:
        classes, self.cat_ids = find_classes(self.ann_file, content, self._metainfo.get("classes"))
        self._metainfo["classes"] = classes
        self.cat2label = {category_id: label for label, category_id in enumerate(self.cat_ids)}
        chosen = set(self.cat_ids)
        if [c["id"] for c in content["categories"] if c["id"] in chosen] != self.cat_ids:
            self._log(
                f"{self.ann_file} lists its categories in another order than the classes. Labels "
                "follow the classes; evaluate with negvision.CocoMetric, since mmdet's CocoMetric "
                "uses the order in the file and would mix up the classes.",
                logging.WARNING,
            )

    def _report(self, content: dict, images: dict, problems: Problems, notes: Problems) -> None:
        counted = (
            f"{len(content['images']):,} images and {len(content['annotations']):,} annotations"
        )
        left = sum(image is not None for image in images.values())
        if not content["images"] and not problems:
            raise DatasetError(f"{self.ann_file}: the list 'images' is empty.")
        hint = " Objects of images left out count as missed in the evaluation."
        self._settle(
            self.ann_file,
            problems,
            counted,
            left,
            nothing_left="No image is left. Does data_prefix['img'] point to the images? It is "
            f"{self.data_prefix.get('img', '')!r}.",
            hint=hint if self.test_mode else "",
        )
        level = logging.WARNING if TEXT_FLAG in notes.counts else logging.INFO
        self._mention(self.ann_file, notes, level)

    def _is_local(self) -> bool:
        backend = get_file_backend(self.ann_file, backend_args=self.backend_args)
        return isinstance(backend, LocalBackend)


class _Doubts:
    """How probably each box is wrong, and what may be missing."""

    def __init__(self, found: Sequence[Suspect]) -> None:
        self.wrong: dict = {}  # annotation id -> probability, whether it is a duplicate
        self.missing: dict[object, list[Suspect]] = {}  # image id -> objects without a box
        for one in found:
            if one.kind == "missing":
                self.missing.setdefault(one.image_id, []).append(one)
            else:
                chance = probability_of(one), one.kind == "duplicate"
                self.wrong[one.annotation] = max(self.wrong.get(one.annotation, chance), chance)

    def mark(self, info: dict, annotations: Sequence[Mapping], classes: Sequence[str]) -> None:
        """Add ``suspect``, a probability, to instances of a record, and missing ones."""
        for item, annotation in zip(info["instances"], annotations, strict=True):
            if annotation.get("id") in self.wrong and not item["ignore_flag"]:
                item["suspect"], item["duplicate"] = self.wrong[annotation["id"]]
        for one in self.missing.get(info["img_id"], ()):
            x, y, width, height = one.bbox or (0, 0, 0, 0)
            corners = [max(x, 0), max(y, 0), min(x + width, info["width"])]
            corners.append(min(y + height, info["height"]))
            left, top, right, bottom = corners
            if right - left < 1 or bottom - top < 1:
                continue
            label = classes.index(one.proposed) if one.proposed in classes else 0
            outline = [[left, top, right, top, right, bottom, left, bottom]]
            item = {"bbox": corners, "bbox_label": label, "mask": outline}
            info["instances"].append({**item, "ignore_flag": 1, "suspect": probability_of(one)})


# Names of VOC that mean a class of COCO, without spaces.
_VOC_NAMES = {
    "aeroplane": "airplane",
    "motorbike": "motorcycle",
    "sofa": "couch",
    "tvmonitor": "tv",
}


def _plain(name: str) -> str:
    return re.sub(r"[\s_-]+", "", name).casefold()


@DATASETS.register_module()
class OODCocoDataset(CocoDataset):
    """:class:`CocoDataset` of out-of-distribution images, for evaluation.

    The file may have any categories. Its objects become ignore boxes with label -1: they are drawn,
    but no loss or metric counts them as objects. Each image has ``is_ood=True``, which
    ``PackDetInputs`` keeps if its ``meta_keys`` name it. Concatenated with the in-distribution set
    by mmdet's ``ConcatDataset``, it is the test set of :class:`negvision.OODBoxMetric`. Images with
    objects of ID classes do not belong here, since all their detections would count as OOD. Names
    are compared without case, spaces, "-" and "_", and VOC's are known to mean COCO's.

    Args:
        metainfo: ``dict(classes=...)``, the in-distribution classes, in the order of the labels.
        synonyms: More names that mean one class, such as ``dict(erythrocyte="RBC")``.
        **kwargs: As in :class:`CocoDataset`.

    Raises:
        ConfigError: ``metainfo`` does not name the classes.
        DatasetError: An object has one of these classes, or see :class:`CocoDataset`.

    Example:
        >>> from negvision.toy.digits import ensure_digits
        >>> root = ensure_digits("digits", train=2, val=4, test=2, test_ood=2)
        >>> classes = ("zero", "one", "two", "three", "four", "five", "six", "eight")
        >>> dataset = OODCocoDataset(
        ...     metainfo=dict(classes=classes),
        ...     data_root=str(root), ann_file="annotations/instances_test_ood.json",
        ...     data_prefix=dict(img="test_ood/"))
        >>> info = dataset.get_data_info(0)
        >>> info["is_ood"], {instance["ignore_flag"] for instance in info["instances"]}
        (True, {1})
    """

    def __init__(self, *args, synonyms: Mapping[str, str] | None = None, **kwargs) -> None:
        self._synonyms = {_plain(k): _plain(v) for k, v in (synonyms or {}).items()}
        super().__init__(*args, **kwargs)

    def parse_data_info(self, raw_data_info: dict) -> dict:
        """See mmdet for the format; adds ``is_ood``."""
        info = super().parse_data_info(raw_data_info)
        for instance in info["instances"]:
            instance.update(ignore_flag=1, bbox_label=-1)
        return {**info, "is_ood": True}

    def _set_classes(self, content: dict) -> None:
        classes = self._metainfo.get("classes")
        if classes is None:
            raise ConfigError(
                f"negvision.OODCocoDataset of {self.ann_file} needs metainfo=dict(classes=(...)): "
                "the classes that the detector was trained on, as in its in-distribution data set"
            )
        self._metainfo["classes"] = tuple(classes)
        names, self.cat_ids = find_classes(self.ann_file, content, None)
        self.cat2label = dict.fromkeys(self.cat_ids, -1)
        known = {self._meaning(name) for name in classes}
        self._known = {
            category_id: name
            for name, category_id in zip(names, self.cat_ids, strict=True)
            if self._meaning(name) in known
        }

    def _meaning(self, name: str) -> str:
        plain = _plain(name)
        return self._synonyms.get(plain, _VOC_NAMES.get(plain, plain))

    def load_data_list(self) -> list[dict]:
        """See :class:`CocoDataset`."""
        data_list = super().load_data_list()
        shown = [
            f"{name!r} on {len(self.cat_img_map[category_id]):,}"
            for category_id, name in self._known.items()
            if self.cat_img_map[category_id]
        ]
        if shown:
            raise DatasetError(
                f"{self.ann_file} must hold out-of-distribution images, but some show objects of "
                f"in-distribution classes: {', '.join(shown)} of its {len(data_list):,} images. "
                "Leave such "
                "images out (negvision make-ood-split does), or take the classes out of metainfo"
            )
        return data_list


@DATASETS.register_module()
class DigitsDataset(GeneratesDigits, CocoDataset):
    """:class:`CocoDataset` on the embedded digits, which are generated at first use.

    Args:
        data_root, digits: As in :class:`negvision.toy.digits.GeneratesDigits`.

    Example:
        >>> dataset = DigitsDataset(
        ...     data_root="digits", digits=dict(train=4, val=2, test=2, test_ood=2),
        ...     ann_file="annotations/instances_train.json", data_prefix=dict(img="train/"))
        >>> len(dataset)
        4
    """


@DATASETS.register_module()
class OODDigitsDataset(GeneratesDigits, OODCocoDataset):
    """:class:`OODCocoDataset` on images of the embedded digits that show only held-out digits.

    Args:
        data_root, digits: As in :class:`negvision.toy.digits.GeneratesDigits`.

    Example:
        >>> dataset = OODDigitsDataset(
        ...     data_root="digits", digits=dict(train=2, val=2, test=2, test_ood=4),
        ...     ann_file="annotations/instances_test_ood.json", data_prefix=dict(img="test_ood/"),
        ...     metainfo=dict(classes=("zero", "one")))
        >>> len(dataset)
        4
    """


@TRANSFORMS.register_module()
class PackDetInputs(MMDetPackDetInputs):
    """mmdet's ``PackDetInputs`` with the faster :func:`negvision.data.images.planes.to_planes`.

    Arguments and output are the same, bit for bit.

    Example:
        >>> import numpy as np
        >>> PackDetInputs()({"img": np.zeros((4, 6, 3), np.uint8)})["inputs"].shape
        torch.Size([3, 4, 6])
    """

    def transform(self, results: dict) -> dict:
        """Pack ``results``, which keeps its image; see mmdet."""
        others = {key: value for key, value in results.items() if key != "img"}
        packed = super().transform(others)
        if "img" not in results:
            return packed
        return {"inputs": to_planes(results["img"]), **packed}
