"""Collect pictures and masks into the dictionaries of COCO annotation files."""

from collections.abc import Container, Sequence

import numpy as np
from pycocotools import mask as mask_api

from negvision.toy.scene import SceneObject


class CocoWriter:
    """Annotations of one split.

    Category ids are digit + 1, since 0 is the background's id in many tools. Masks are compressed
    RLE, boxes are tight round the visible pixels, and ``area`` is their number.

    A digit of which too little is visible carries ``ignore: 1`` and also ``iscrowd: 1``: the COCO
    evaluation code knows no other way to leave an object out of account.
    """

    def __init__(self, class_names: Sequence[str]) -> None:
        self.class_names = class_names
        self.images: list[dict] = []
        self.annotations: list[dict] = []

    def add(self, file_name: str, height: int, width: int, objects: Sequence[SceneObject]) -> None:
        """Append one picture; ids count from 1 in the order of the calls."""
        image_id = len(self.images) + 1
        self.images.append(
            {"id": image_id, "file_name": file_name, "height": height, "width": width}
        )
        for item in objects:
            rle = mask_api.encode(np.asfortranarray(item.mask, dtype=np.uint8))
            annotation = {
                "id": len(self.annotations) + 1,
                "image_id": image_id,
                "category_id": item.digit + 1,
                "bbox": [float(v) for v in mask_api.toBbox(rle)],
                "area": int(mask_api.area(rle)),
                "segmentation": {
                    "size": [int(v) for v in rle["size"]],
                    "counts": rle["counts"].decode("ascii"),
                },
                "iscrowd": int(item.crowd or item.ignore),
                "visible": round(item.visible, 3),
            }
            if item.ignore:
                annotation["ignore"] = 1
            self.annotations.append(annotation)

    def as_dict(self, digits: Container[int], description: str) -> dict:
        """The COCO dictionary with the categories of ``digits`` alone.

        Pictures that show any other digit are left out with all their annotations; pictures with
        no object stay.
        """
        others = {a["image_id"] for a in self.annotations if a["category_id"] - 1 not in digits}
        return {
            "info": {"description": description},
            "images": [image for image in self.images if image["id"] not in others],
            "annotations": [a for a in self.annotations if a["image_id"] not in others],
            "categories": [
                {"id": digit + 1, "name": name, "supercategory": "digit"}
                for digit, name in enumerate(self.class_names)
                if digit in digits
            ],
        }
