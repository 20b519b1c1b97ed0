"""Images whose objects are of no class that a detector was trained on."""

from negvision.data.formats.coco_file import find_classes
from negvision.detection.datasets.coco import CocoDataset
from negvision.errors import ConfigError, DatasetError
from negvision.registry import DATASETS


@DATASETS.register_module()
class OODCocoDataset(CocoDataset):
    """:class:`CocoDataset` of images that count as out-of-distribution, for evaluation.

    The categories of the file may be any; its objects become ignore boxes with the label -1, which
    pictures show and no loss or metric takes for an object of a class. Each image has ``is_ood``
    (true) among its data, which ``PackDetInputs`` hands on where its ``meta_keys`` name it.
    Concatenated with the in-distribution set by mmdet's ``ConcatDataset`` it makes the test set of
    :class:`negvision.OODBoxMetric <OODBoxMetric>`. An image of which some boxes are of an ID class
    has no place here: all its detections would count as OOD.

    Args:
        metainfo: ``dict(classes=...)``, the in-distribution classes, in the order of the labels.
        **kwargs: As of :class:`CocoDataset`.

    Raises:
        ConfigError: ``metainfo`` does not name the classes.
        DatasetError: An object is of one of the classes, or what :class:`CocoDataset` raises.

    Example:
        >>> from negvision.toy.digits import ensure_digits
        >>> root = ensure_digits("data/digits")
        >>> classes = ("zero", "one", "two", "three", "four", "five", "six", "eight")
        >>> dataset = OODCocoDataset(
        ...     metainfo=dict(classes=classes),
        ...     data_root=str(root), ann_file="annotations/instances_test_ood.json",
        ...     data_prefix=dict(img="test_ood/"))
        >>> info = dataset.get_data_info(0)
        >>> info["is_ood"], {instance["ignore_flag"] for instance in info["instances"]}
        (True, {1})
    """

    def parse_data_info(self, raw_data_info: dict) -> dict:
        """See mmdet for the format; with ``is_ood``."""
        info = super().parse_data_info(raw_data_info)
        for instance in info["instances"]:
            instance.update(ignore_flag=1, bbox_label=-1)
        return {**info, "is_ood": True}

    def _set_classes(self, categories: list[dict]) -> None:
        classes = self._metainfo.get("classes")
        if classes is None:
            raise ConfigError(
                f"negvision.OODCocoDataset of {self.ann_file} needs metainfo=dict(classes=(...)): "
                "the classes that the detector was trained on, as in its in-distribution data set"
            )
        self._metainfo["classes"] = tuple(classes)
        names, self.cat_ids = find_classes(self.ann_file, categories, None)
        self.cat2label = dict.fromkeys(self.cat_ids, -1)
        self._known = {
            category_id: name
            for name, category_id in zip(names, self.cat_ids, strict=True)
            if name in classes
        }

    def load_data_list(self) -> list[dict]:
        """See :class:`CocoDataset`."""
        data_list = super().load_data_list()
        known = {
            name: len(self.cat_img_map[category_id]) for category_id, name in self._known.items()
        }
        shown = {name: count for name, count in known.items() if count}
        if shown:
            counts = ", ".join(f"{name!r} on {count:,}" for name, count in shown.items())
            raise DatasetError(
                f"{self.ann_file} is to hold out-of-distribution images, and some show objects of "
                f"in-distribution classes: {counts} of its {len(data_list):,} images. Leave such "
                "images out (negvision make-ood-split does), or take the classes out of metainfo"
            )
        return data_list
