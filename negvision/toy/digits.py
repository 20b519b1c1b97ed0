"""The generated dataset for boxes, pixels and images: handwritten digits on photographs.

Nothing is downloaded: the handwriting comes from scikit-learn, the photographs from the wheels of
scikit-learn, matplotlib and scikit-image. With the same versions of these packages and of OpenCV,
the same parameters give the same bytes. Training, validation and test share neither a handwriting
sample nor a piece of a photograph.

Layout below the root::

    train/ val/ test/ test_ood/          JPEG images
    annotations/instances_SPLIT.json     all ten classes
    annotations/instances_SPLIT_id.json  without held-out classes and images that show them
    annotations/instances_test_ood.json  images (test_ood/) that show only held-out classes
    masks/train/ val/ test/ test_ood/    a PNG per image: 0 background, d + 1 for digit d,
                                         255 crowds and digits that are mostly hidden
    crops/SPLIT_id.npz                   32 x 32 images of single digits that are not held out,
                                         cut from the images of train (at most 8,000), val or
                                         test; labels number the remaining classes
    crops/test_ood.npz                   held-out digits, from test/ and test_ood/; label -1
    dataset.json                         parameters, versions and hashes

The npz files are packs, see :class:`negvision.data.images.packs.ImagePack`.

Generate it with ``python -m negvision.toy.digits ROOT``.
"""

import hashlib
import json
import sys
from collections.abc import Container, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
import numpy as np
from pycocotools import mask as mask_api
from tqdm import tqdm

from negvision.toy import generated
from negvision.toy.scene import CLASS_NAMES, SceneObject, compose_scene

VERSION = 2
JPEG_QUALITY = 92
MAX_TRAIN_CROPS = 8000
SPLITS = ("train", "val", "test", "test_ood")
# Each looks like a class that stays (7 like 1, 9 like 4), so a detector that has never seen them
# tends to a confident wrong answer: the hard kind of out-of-distribution input.
HELD_OUT = (7, 9)

_VOID = 255
_CROP_SIDE = 32
# Side of a crop over the longer side of the digit's box, so a little of the surroundings is seen.
_CONTEXT = 1.25
_EMPTY_SHARE = 0.06
_CROWD_SHARE = 0.05
# Held-out digits are gathered in this share of the images, so that more images have none.
_MIXED_SHARE = 0.4
_COUNTS = np.array([1, 2, 3, 4, 5, 6, 7, 8])
_COUNT_WEIGHTS = np.array([14, 18, 20, 17, 13, 9, 6, 3]) / 100


@dataclass(frozen=True)
class DigitsParameters:
    """What decides the bytes of the dataset: sizes in pixels, numbers of images."""

    image_size: int = 192
    train: int = 3200
    val: int = 200
    test: int = 200
    test_ood: int = 100
    held_out: tuple[int, ...] = HELD_OUT
    seed: int = 0

    def __post_init__(self) -> None:
        if self.image_size < 96:
            raise ValueError(f"image_size is {self.image_size}; it must be at least 96 pixels")
        for name in SPLITS:
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 1 image")
        chosen = set(self.held_out)
        if not chosen or len(chosen) != len(self.held_out) or not chosen < set(range(10)):
            raise ValueError(
                f"held_out is {self.held_out}; it must name 1 to 9 different digits 0..9"
            )

    def stamp(self) -> dict:
        """The parameters as written to ``dataset.json``."""
        return dict(asdict(self), held_out=list(self.held_out), version=VERSION)


def default_root() -> Path:
    """``digits`` in the folder that NEGVISION_DATA names, else in ``data``."""
    return generated.default_root("digits")


def ensure_digits(root: str | Path | None = None, **parameters) -> Path:
    """Generate the digits dataset at ``root`` unless it exists.

    A dataset with other parameters is replaced; see :func:`negvision.toy.generated.ensure_set`.

    Args:
        root: Folder of the dataset; :func:`default_root` by default.
        **parameters: Fields of :class:`DigitsParameters`.

    Returns:
        ``root`` as a path.

    Raises:
        FileExistsError: ``root`` holds something that is not a digits dataset.
        FileNotFoundError: A photograph is missing from the installed packages.
        ValueError: A parameter is out of range.

    Example:
        >>> import tempfile
        >>> root = ensure_digits(tempfile.mkdtemp(), train=2, val=1, test=1, test_ood=1)
        >>> sorted(path.name for path in root.iterdir())
        ['annotations', 'crops', 'dataset.json', 'masks', 'test', 'test_ood', 'train', 'val']
    """
    wanted = DigitsParameters(**parameters)
    root = Path(root) if root is not None else default_root()
    return generated.ensure_set(root, "digits", wanted.stamp(), lambda new: _write(new, wanted))


class GeneratesDigits:
    """Base class that makes a dataset class one of the generated digits; put it first.

    Args:
        data_root: Folder of the dataset, generated at first use; :func:`default_root` by default.
        digits: Parameters of :func:`ensure_digits`. Use the same in all datasets on one root:
            another choice generates the dataset again.
    """

    generates_data = True

    def __init__(
        self, *args, data_root: str | None = None, digits: dict | None = None, **kwargs
    ) -> None:
        root = ensure_digits(data_root, **(digits or {}))
        super().__init__(*args, data_root=str(root), **kwargs)  # ty: ignore[unknown-argument]


# A PNG and its label.
_Crop = tuple[bytes, int]


def _write(root: Path, wanted: DigitsParameters) -> None:
    from negvision.data.images.packs import write_pack  # loads mmcv, which takes seconds

    for folder in ("annotations", "masks", "crops"):
        (root / folder).mkdir(parents=True)
    everything = set(range(10))
    known = everything - set(wanted.held_out)
    packs: dict[str, list[_Crop]] = {
        name: [] for name in ("train_id", "val_id", "test_id", "test_ood")
    }
    files, images = [], {}
    total = sum(getattr(wanted, split) for split in SPLITS)
    # disable=None: show the bar only on a terminal.
    with tqdm(total=total, desc="Generating digits", unit="image", disable=None) as bar:
        for split in SPLITS:
            coco = _Coco()
            images |= _write_images(root, wanted, split, coco, packs, bar)
            if split == "test_ood":
                kinds = {"": set(wanted.held_out)}
            else:
                kinds = {"": everything, "_id": known}
            for suffix, digits in kinds.items():
                name = f"annotations/instances_{split}{suffix}.json"
                content = coco.as_dict(digits, f"negvision digits {VERSION}, {split}{suffix}")
                (root / name).write_text(json.dumps(content))
                files.append(name)
    for name, crops in packs.items():
        encoded, labels = [data for data, _ in crops], [label for _, label in crops]
        names = [CLASS_NAMES[digit] for digit in sorted(known)]
        write_pack(root / f"crops/{name}.npz", encoded, labels, names)
        files.append(f"crops/{name}.npz")
    counts = {folder: getattr(wanted, folder.removeprefix("masks/")) for folder in images}
    generated.write_stamp(root, "digits", wanted.stamp(), files, counts, images)


def _write_images(
    root: Path,
    wanted: DigitsParameters,
    split: str,
    coco: "_Coco",
    packs: dict[str, list[_Crop]],
    bar: tqdm,
) -> dict[str, str]:
    """Write images and masks of one split; returns the SHA-256 of each folder's bytes in order."""
    hashes = {split: hashlib.sha256(), f"masks/{split}": hashlib.sha256()}
    for folder in hashes:
        (root / folder).mkdir()
    stream = SPLITS.index(split)
    material = "test" if split == "test_ood" else split
    side = wanted.image_size
    for index in range(getattr(wanted, split)):
        # A random stream per image, so that it does not depend on the number of images.
        rng = np.random.default_rng([wanted.seed, stream, index])
        while True:
            digits, crowd = _draw_content(rng, wanted.held_out, only_held_out=split == "test_ood")
            image, objects = compose_scene(rng, material, side, digits, crowd)
            if split != "test_ood" or any(not item.ignore for item in objects):
                break
        name = f"{index:06d}"
        _, jpeg = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
        _, mask = cv2.imencode(".png", class_mask(objects, side, side))
        for folder, suffix, encoded in ((split, ".jpg", jpeg), (f"masks/{split}", ".png", mask)):
            (root / folder / f"{name}{suffix}").write_bytes(encoded.tobytes())
            hashes[folder].update(encoded.tobytes())
        coco.add(f"{name}.jpg", side, side, objects)
        read_back = np.asarray(cv2.imdecode(jpeg, cv2.IMREAD_COLOR))
        _add_crops(read_back, objects, wanted, split, packs)
        bar.update()
    return {folder: sha.hexdigest() for folder, sha in hashes.items()}


def _add_crops(
    image: np.ndarray,
    objects: list[SceneObject],
    wanted: DigitsParameters,
    split: str,
    packs: dict[str, list[_Crop]],
) -> None:
    """Sort the digits of one image into the packs; held-out ones of train and val are dropped."""
    known = [digit for digit in range(10) if digit not in wanted.held_out]
    for digit, crop in cut_digits(image, objects, wanted.held_out):
        encoded = cv2.imencode(".png", crop)[1].tobytes()
        if digit not in known:
            if split.startswith("test"):
                packs["test_ood"].append((encoded, -1))
        elif split != "train" or len(packs["train_id"]) < MAX_TRAIN_CROPS:
            packs[f"{split}_id"].append((encoded, known.index(digit)))


def _draw_content(
    rng: np.random.Generator, held_out: tuple[int, ...], only_held_out: bool
) -> tuple[list[int], int | None]:
    """Draw the digits of an image and the class of its crowd, if any; classes are balanced."""
    known = [digit for digit in range(10) if digit not in held_out]
    if only_held_out:
        return [int(d) for d in rng.choice(held_out, size=rng.choice(_COUNTS[:5]))], None
    if rng.random() < _EMPTY_SHARE:
        return [], None
    share = min(1.0, len(held_out) / 10 / _MIXED_SHARE) if rng.random() < _MIXED_SHARE else 0.0
    weights = [
        share / len(held_out) if d in held_out else (1 - share) / len(known) for d in range(10)
    ]
    count = rng.choice(_COUNTS, p=_COUNT_WEIGHTS)
    digits = [int(d) for d in rng.choice(10, size=count, p=weights)]
    crowd = int(rng.choice(10, p=weights)) if rng.random() < _CROWD_SHARE else None
    return digits, crowd


def class_mask(objects: Sequence[SceneObject], height: int, width: int) -> np.ndarray:
    """The class of each pixel.

    Args:
        objects: Visible objects of one image, whose masks are disjoint.
        height, width: Of the image, in pixels.

    Returns:
        height x width uint8: 0 background, d + 1 for digit d, 255 for crowds and for digits that
        are mostly hidden.
    """
    mask = np.zeros((height, width), dtype=np.uint8)
    for item in objects:
        mask[item.mask] = _VOID if item.crowd or item.ignore else item.digit + 1
    return mask


def cut_digits(
    image: np.ndarray, objects: Sequence[SceneObject], held_out: Container[int]
) -> Iterator[tuple[int, np.ndarray]]:
    """Cut a square around each digit that is well visible, in the order of ``objects``.

    Squares are moved inside the image. They may show other digits, as real crops do; but a known
    digit is left out if its square shows a pixel of a held-out one, so that neither training nor
    the known part of a test shows what is held out.

    Args:
        image: H x W x 3 uint8.
        objects: Visible objects of the image.
        held_out: Digits that training must not see.

    Yields:
        The digit and its crop, 32 x 32 x 3 uint8.
    """
    height, width = image.shape[:2]
    foreign = np.zeros((height, width), dtype=bool)
    for item in objects:
        if item.digit in held_out:
            foreign |= item.mask
    for item in objects:
        if item.crowd or item.ignore:
            continue
        left, top, w, h = cv2.boundingRect(item.mask.astype(np.uint8))
        side = min(round(_CONTEXT * max(w, h)), height, width)
        x = min(max(round(left + (w - side) / 2), 0), width - side)
        y = min(max(round(top + (h - side) / 2), 0), height - side)
        window = slice(y, y + side), slice(x, x + side)
        if item.digit not in held_out and foreign[window].any():
            continue
        how = cv2.INTER_AREA if side > _CROP_SIDE else cv2.INTER_LINEAR
        yield item.digit, cv2.resize(image[window], (_CROP_SIDE, _CROP_SIDE), None, 0, 0, how)


class _Coco:
    """Images and annotations of one split.

    Category ids are digit + 1, since many tools use 0 for the background. Masks are compressed
    RLE, boxes are tight around the visible pixels, and ``area`` is their number. A digit that is
    mostly hidden has ``ignore: 1`` and also ``iscrowd: 1``, COCO's only way to ignore an object.
    """

    def __init__(self) -> None:
        self.images: list[dict] = []
        self.annotations: list[dict] = []

    def add(self, file_name: str, height: int, width: int, objects: Sequence[SceneObject]) -> None:
        """Append one image; ids count from 1."""
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
        """The COCO content with the categories ``digits``, without images that show others."""
        others = {a["image_id"] for a in self.annotations if a["category_id"] - 1 not in digits}
        return {
            "info": {"description": description},
            "images": [image for image in self.images if image["id"] not in others],
            "annotations": [a for a in self.annotations if a["image_id"] not in others],
            "categories": [
                {"id": digit + 1, "name": name, "supercategory": "digit"}
                for digit, name in enumerate(CLASS_NAMES)
                if digit in digits
            ],
        }


if __name__ == "__main__":
    sys.exit(generated.main(ensure_digits, default_root(), __doc__))
