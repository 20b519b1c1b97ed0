"""The embedded set for boxes, pixels and images: handwritten digits on photographs.

Nothing is downloaded: the handwriting is scikit-learn's, the photographs lie in the wheels of
scikit-learn, matplotlib and scikit-image. The same parameters give the same bytes under the same
versions of these packages and of OpenCV. Training, validation and test share neither a
handwriting sample nor a piece of a photograph.

Layout below the root::

    train/ val/ test/ test_ood/          JPEG pictures
    annotations/instances_SPLIT.json     all ten classes
    annotations/instances_SPLIT_id.json  without the held-out classes and the pictures with them
    annotations/instances_test_ood.json  pictures (test_ood/) that show held-out classes alone
    masks/train/ val/ test/ test_ood/    PNG of each picture: 0 background, d + 1 for digit d,
                                         255 crowds and digits of which too little is seen
    crops/SPLIT_id.npz                   32 x 32 images of single digits that are not held out,
                                         cut from the pictures of train (at most 8,000), val or
                                         test; labels number the classes that stay
    crops/test_ood.npz                   those that are, from test/ and test_ood/; labels are -1
    dataset.json                         parameters, versions and hashes

An npz file holds ``data`` (the PNG files one after the other), ``offsets``, ``labels`` and
``classes``, see :class:`negvision.toy.digit_views.ImagePack`.

Write it with ``python -m negvision.toy.digits ROOT``.
"""

import argparse
import hashlib
import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from negvision.toy import generated
from negvision.toy.coco_writer import CocoWriter
from negvision.toy.digit_views import ImagePack, class_mask, cut_digits
from negvision.toy.glyphs import CLASS_NAMES
from negvision.toy.scene import SceneObject, compose_scene

VERSION = 2
JPEG_QUALITY = 92
MAX_TRAIN_CROPS = 8000
SPLITS = ("train", "val", "test", "test_ood")
# Each has a look-alike among the classes that stay (7: 1, 9: 4), so a detector that has never
# seen them is drawn to a confident wrong answer: the hard kind of out-of-distribution input.
HELD_OUT = (7, 9)

_EMPTY_SHARE = 0.06
_CROWD_SHARE = 0.05
# Held-out digits are gathered in this share of the pictures, so that more remain without any.
_MIXED_SHARE = 0.4
_COUNTS = np.array([1, 2, 3, 4, 5, 6, 7, 8])
_COUNT_WEIGHTS = np.array([14, 18, 20, 17, 13, 9, 6, 3]) / 100


@dataclass(frozen=True)
class DigitsParameters:
    """What decides the bytes of the set. Sizes in pixels, the others in pictures."""

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
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 1 picture")
        held_out = self.held_out
        if (
            len(set(held_out)) != len(held_out)
            or not set(held_out) < set(range(10))
            or not held_out
        ):
            raise ValueError(f"held_out is {held_out}; it must name 1 to 9 different digits 0..9")

    def stamp(self) -> dict:
        """The parameters as they stand in ``dataset.json``."""
        return dict(asdict(self), held_out=list(self.held_out), version=VERSION)


def default_root() -> Path:
    """``digits`` in the folder that NEGVISION_DATA names, else in ``data``."""
    return generated.default_root("digits")


def ensure_digits(root: str | Path | None = None, **parameters) -> Path:
    """Generate the digits set at ``root`` unless it stands there already.

    A set with other parameters is replaced; see :func:`negvision.toy.generated.ensure_set`.

    Args:
        root: folder of the set; :func:`default_root` by default.
        **parameters: fields of :class:`DigitsParameters`.

    Returns:
        ``root`` as a path.

    Raises:
        FileExistsError: ``root`` holds something that is not a digits set.
        FileNotFoundError: a photograph is missing from the installed packages.
        ValueError: a parameter is out of its range.

    Example:
        >>> root = ensure_digits("data/digits", train=16, val=8, test=8, test_ood=4)
        >>> sorted(path.name for path in root.iterdir())
        ['annotations', 'crops', 'dataset.json', 'masks', 'test', 'test_ood', 'train', 'val']
    """
    wanted = DigitsParameters(**parameters)
    root = Path(root) if root is not None else default_root()
    return generated.ensure_set(root, "digits", wanted.stamp(), lambda new: _write(new, wanted))


class GeneratesDigits:
    """Makes a dataset class one of the embedded digits; stands before it among the bases.

    Args:
        data_root: Folder of the set, generated at first use; :func:`default_root` by default.
        digits: Parameters of :func:`ensure_digits`; the same in all datasets on one root, since
            another choice generates the set anew.
    """

    generates_data = True

    def __init__(
        self, *args, data_root: str | None = None, digits: dict | None = None, **kwargs
    ) -> None:
        root = ensure_digits(data_root, **(digits or {}))
        super().__init__(*args, data_root=str(root), **kwargs)


def _write(root: Path, wanted: DigitsParameters) -> None:
    for folder in ("annotations", "masks", "crops"):
        (root / folder).mkdir(parents=True)
    everything = set(range(10))
    known = everything - set(wanted.held_out)
    names = [CLASS_NAMES[digit] for digit in sorted(known)]
    packs = {name: ImagePack(names) for name in ("train_id", "val_id", "test_id", "test_ood")}
    files, pictures = [], {}
    total = sum(getattr(wanted, split) for split in SPLITS)
    # disable=None: the line shows on a terminal only.
    with tqdm(total=total, desc="Generating digits", unit="picture", disable=None) as bar:
        for split in SPLITS:
            writer = CocoWriter(CLASS_NAMES)
            pictures |= _write_pictures(root, wanted, split, writer, packs, bar)
            if split == "test_ood":
                kinds = {"": set(wanted.held_out)}
            else:
                kinds = {"": everything, "_id": known}
            for suffix, digits in kinds.items():
                name = f"annotations/instances_{split}{suffix}.json"
                content = writer.as_dict(digits, f"negvision digits {VERSION}, {split}{suffix}")
                (root / name).write_text(json.dumps(content))
                files.append(name)
    for name, pack in packs.items():
        pack.write(root / f"crops/{name}.npz")
        files.append(f"crops/{name}.npz")
    counts = {folder: getattr(wanted, folder.removeprefix("masks/")) for folder in pictures}
    generated.write_stamp(root, "digits", wanted.stamp(), files, counts, pictures)


def _write_pictures(
    root: Path,
    wanted: DigitsParameters,
    split: str,
    writer: CocoWriter,
    packs: dict[str, ImagePack],
    bar: tqdm,
) -> dict[str, str]:
    """Write pictures and masks of one split; the SHA-256 of each folder's bytes in order."""
    hashes = {split: hashlib.sha256(), f"masks/{split}": hashlib.sha256()}
    for folder in hashes:
        (root / folder).mkdir()
    stream = SPLITS.index(split)
    material = "test" if split == "test_ood" else split
    side = wanted.image_size
    for index in range(getattr(wanted, split)):
        # A stream of its own for each picture: it does not change with the number of pictures.
        rng = np.random.default_rng([wanted.seed, stream, index])
        while True:
            digits, crowd = _draw_content(rng, wanted.held_out, only_held_out=split == "test_ood")
            image, objects = compose_scene(rng, material, side, digits, crowd)
            if split != "test_ood" or any(not item.ignore for item in objects):
                break
        name = f"{index:06d}"
        _, picture = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
        _, mask = cv2.imencode(".png", class_mask(objects, side, side))
        for folder, suffix, encoded in ((split, ".jpg", picture), (f"masks/{split}", ".png", mask)):
            (root / folder / f"{name}{suffix}").write_bytes(encoded.tobytes())
            hashes[folder].update(encoded.tobytes())
        writer.add(f"{name}.jpg", side, side, objects)
        # Crops are cut from the picture as it is read again.
        _pack_crops(cv2.imdecode(picture, cv2.IMREAD_COLOR), objects, wanted, split, packs)
        bar.update()
    return {folder: sha.hexdigest() for folder, sha in hashes.items()}


def _pack_crops(
    image: np.ndarray,
    objects: list[SceneObject],
    wanted: DigitsParameters,
    split: str,
    packs: dict[str, ImagePack],
) -> None:
    """Sort the digits of one picture into the packs; the held-out ones of train and val go."""
    known = [digit for digit in range(10) if digit not in wanted.held_out]
    for digit, crop in cut_digits(image, objects, wanted.held_out):
        if digit not in known:
            if split.startswith("test"):
                packs["test_ood"].add(crop, -1)
        elif split != "train" or len(packs["train_id"]) < MAX_TRAIN_CROPS:
            packs[f"{split}_id"].add(crop, known.index(digit))


def _draw_content(
    rng: np.random.Generator, held_out: tuple[int, ...], only_held_out: bool
) -> tuple[list[int], int | None]:
    """The digits of a picture and the class of its crowd, if any; all ten are equally frequent."""
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


def main(argv: list[str] | None = None) -> int:
    """Command line: write the default set at ROOT and say where it is."""
    parser = argparse.ArgumentParser(prog="python -m negvision.toy.digits", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument(
        "root", nargs="?", type=Path, default=default_root(), help="default: %(default)s"
    )
    root = ensure_digits(parser.parse_args(argv).root)
    pictures = generated.read_stamp(root)["pictures"]
    print(f"{root}: " + ", ".join(f"{pictures[split]} {split}" for split in SPLITS))
    return 0


if __name__ == "__main__":
    sys.exit(main())
