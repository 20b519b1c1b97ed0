"""COCO data sets whose faults are found at the start and said clearly."""

import logging
import os

from mmdet.datasets import CocoDataset as MMDetCocoDataset
from mmengine.fileio import LocalBackend, get_file_backend

from negvision.data.formats.coco_file import find_classes, read_coco_file
from negvision.data.images.bad_samples import BadSampleMixin
from negvision.detection.datasets.coco_check import (
    check_annotations,
    check_images,
    drop_missing_files,
    drop_outside_paths,
)
from negvision.errors import DatasetError, Problems
from negvision.registry import DATASETS


@DATASETS.register_module()
class CocoDataset(BadSampleMixin, MMDetCocoDataset):
    """mmdet's ``CocoDataset`` with checked input.

    Takes the arguments of mmdet's. What differs:

    - All image records and annotations are checked when the file is loaded, and the image folder
      is listed once for missing files. Faults are a NaN or infinite coordinate, a box of zero or
      negative size or wholly outside its image, an unknown category or image id, an id used
      twice, a path that leaves the data root, a missing image file. Unreadable and truncated
      images are met when they are loaded, given :class:`negvision.LoadImageFromFile
      <LoadImageFromFile>` in the pipeline.
    - Labels follow ``metainfo["classes"]`` by name; without it they are the file's categories in
      the order of their ids. A class that the file does not have is an error (mmdet leaves it
      without objects in silence).
    - Annotations with ``ignore: 1`` become ignore boxes like crowds; mmdet drops them, and
      detections of them are then trained as background.
    - Boxes are clipped to their image.

    Args:
        on_bad_sample: "error" raises one :class:`DatasetError` that counts all faults by kind with
            examples. "skip" leaves out the annotations and images at fault and logs the counts;
            a training image that turns out unreadable is replaced by a random other one, counted
            in ``skipped_images`` and named in the log once per worker. In ``test_mode`` an
            unreadable image is an error all the same: metrics over fewer images would mislead.

    Raises:
        DatasetError: see above; also where the annotation file or image folder is missing, the
            file is not COCO JSON, or no image is left.

    Example:
        >>> from negvision.toy.digits import ensure_digits
        >>> root = ensure_digits("data/digits")
        >>> dataset = CocoDataset(
        ...     data_root=str(root), ann_file="annotations/instances_val.json",
        ...     data_prefix=dict(img="val/"), on_bad_sample="skip")
        >>> len(dataset), dataset.metainfo["classes"][:3]
        (200, ('zero', 'one', 'two'))
    """

    METAINFO: dict = {}

    def load_data_list(self) -> list[dict]:
        """Read, check and parse the annotation file; see mmdet for the format of the result."""
        self._require_files()
        content = read_coco_file(self.ann_file, self.backend_args)
        self._set_classes(content["categories"])

        problems, notes = Problems(), Problems()
        images = check_images(content["images"], problems)
        folder = self.data_prefix.get("img", "")
        drop_outside_paths(images, folder, self.data_root, problems)
        if self._is_local():
            drop_missing_files(images, folder, problems)
        category_ids = {category["id"] for category in content["categories"]}
        by_image = check_annotations(content["annotations"], images, category_ids, problems, notes)
        self._report(content, images, problems, notes)

        self.cat_img_map = {category_id: [] for category_id in category_ids}
        data_list = []
        for image_id, image in images.items():
            if image is None:
                continue
            annotations = by_image.get(image_id, [])
            for category_id in {annotation["category_id"] for annotation in annotations}:
                self.cat_img_map[category_id].append(image_id)
            record = {**image, "img_id": image_id}
            data_list.append(
                self.parse_data_info({"raw_img_info": record, "raw_ann_info": annotations})
            )
        return data_list

    def _set_classes(self, categories: list[dict]) -> None:
        classes, self.cat_ids = find_classes(
            self.ann_file, categories, self._metainfo.get("classes")
        )
        self._metainfo["classes"] = classes
        self.cat2label = {category_id: label for label, category_id in enumerate(self.cat_ids)}
        chosen = set(self.cat_ids)
        if [c["id"] for c in categories if c["id"] in chosen] != self.cat_ids:
            self._log(
                f"{self.ann_file} lists its categories in another order than the classes. Labels "
                "follow the classes; evaluate with negvision.CocoMetric, since mmdet's CocoMetric "
                "goes by the order in the file and would mix the classes up.",
                logging.WARNING,
            )

    def _report(self, content: dict, images: dict, problems: Problems, notes: Problems) -> None:
        """Raise or log what the checks found."""
        counted = (
            f"{len(content['images']):,} images and {len(content['annotations']):,} annotations"
        )
        left = sum(image is not None for image in images.values())
        if not content["images"] and not problems:
            raise DatasetError(f"{self.ann_file}: the list 'images' is empty.")
        hint = (
            " Evaluation reads the file itself and still counts what it can use of these."
            if self.test_mode
            else ""
        )
        self._settle(
            self.ann_file,
            problems,
            counted,
            left,
            nothing_left="No image is left. Does data_prefix['img'] point to the images? It is "
            f"{self.data_prefix.get('img', '')!r}.",
            hint=hint,
        )
        self._mention(self.ann_file, notes)

    def _require_files(self) -> None:
        if not self.ann_file:
            raise DatasetError("ann_file is empty; name the COCO annotation file of this data set.")
        if not self._is_local():
            return
        folder = self.data_prefix.get("img", "")
        has_file, has_folder = os.path.isfile(self.ann_file), os.path.isdir(folder or ".")
        if has_file and has_folder:
            return
        missing = [
            *([f"annotation file {os.path.abspath(self.ann_file)}"] if not has_file else []),
            *([f"image folder {os.path.abspath(folder)}"] if not has_folder else []),
        ]
        rows = [
            (self.data_root or ".", "data_root", os.path.isdir(self.data_root or ".")),
            (self.ann_file, "ann_file", has_file),
            (folder or ".", "data_prefix['img']", has_folder),
        ]
        width = max(len(path) for path, _, _ in rows)
        layout = "\n".join(
            f"  {path:<{width}}  {name}: {'found' if there else 'MISSING'}"
            for path, name, there in rows
        )
        raise DatasetError(
            f"Missing: {' and '.join(missing)}.\nThe config expects this layout:\n{layout}\n"
            "Put the data there, or name the folder that holds it with --data-root DIR "
            "(data_root in the config). To see a training run without any download: "
            "make quickstart."
        )

    def _is_local(self) -> bool:
        backend = get_file_backend(self.ann_file, backend_args=self.backend_args)
        return isinstance(backend, LocalBackend)
