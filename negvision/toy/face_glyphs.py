"""The generated verification dataset: characters in place of faces.

An identity is a character; its images show it in several fonts, from several sides, on pieces of
photographs. Test identities are not in training, so the task is open-set verification: do these two
images show the same identity, never seen before? Nothing is downloaded: the fonts and photographs
come from the wheels of matplotlib, scikit-learn and scikit-image. With the same versions of these
packages, of Pillow and of OpenCV, the same parameters give the same bytes. Training, validation
and test share neither a character nor a piece of a photograph.

Layout below the root::

    train/ val/ test/               JPEG images, named by code point and number
    train.txt val.txt test.txt      lines "path label"
    val_pairs.txt test_pairs.txt    lines "path path same", same and different alternate
    dataset.json                    parameters, versions and hashes

Generate it with ``python -m negvision.toy.face_glyphs ROOT``.
"""

import hashlib
import itertools
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from negvision.toy import generated
from negvision.toy.characters import characters, compose_character
from negvision.toy.photos import SPLITS

VERSION = 1
KIND = "face_glyphs"
JPEG_QUALITY = 92


@dataclass(frozen=True)
class FaceGlyphsParameters:
    """What decides the bytes of the dataset.

    Attributes:
        image_size: Side of the images in pixels.
        train_identities, val_identities, test_identities: How many characters to use, at most
            280, 31 and 75.
        train_images, val_images, test_images: Images per identity.
        val_pairs, test_pairs: Number of matching pairs; there are as many others.
        seed: Of all random numbers.
    """

    image_size: int = 32
    train_identities: int = 280
    val_identities: int = 31
    test_identities: int = 75
    train_images: int = 40
    val_images: int = 12
    test_images: int = 14
    val_pairs: int = 1000
    test_pairs: int = 3000
    seed: int = 0

    def __post_init__(self) -> None:
        if self.image_size < 16:
            raise ValueError(f"image_size is {self.image_size}; it must be at least 16 pixels")
        for split in SPLITS:
            identities, images = self.identities(split), self.images(split)
            most = len(characters(split))
            if not 2 <= identities <= most:
                raise ValueError(f"{split}_identities is {identities}; it must be 2 to {most}")
            if images < 2:
                raise ValueError(f"{split}_images is {images}; it must be at least 2")
            most = identities * images * (images - 1) // 2
            if split != "train" and not 1 <= self.pairs(split) <= most:
                raise ValueError(
                    f"{split}_pairs is {self.pairs(split)}; with {identities} identities of "
                    f"{images} images it must be 1 to {most}"
                )

    def identities(self, split: str) -> int:
        """The number of identities of ``split``."""
        return getattr(self, f"{split}_identities")

    def images(self, split: str) -> int:
        """The number of images per identity of ``split``."""
        return getattr(self, f"{split}_images")

    def pairs(self, split: str) -> int:
        """The number of matching pairs of ``split``; there are as many others."""
        return getattr(self, f"{split}_pairs")

    def stamp(self) -> dict:
        """The parameters as written to ``dataset.json``."""
        return dict(asdict(self), version=VERSION)


def default_root() -> Path:
    """``face_glyphs`` in the folder that NEGVISION_DATA names, else in ``data``."""
    return generated.default_root("face_glyphs")


def ensure_face_glyphs(root: str | Path | None = None, **parameters) -> Path:
    """Generate the dataset at ``root`` unless it exists.

    A dataset with other parameters is replaced; see :func:`negvision.toy.generated.ensure_set`.

    Args:
        root: Folder of the dataset; :func:`default_root` by default.
        **parameters: Fields of :class:`FaceGlyphsParameters`.

    Returns:
        ``root`` as a path.

    Raises:
        FileExistsError: ``root`` holds something that is not such a dataset.
        FileNotFoundError: A font or photograph is missing from the installed packages.
        ValueError: A parameter is out of range.

    Example:
        >>> import tempfile
        >>> root = ensure_face_glyphs(tempfile.mkdtemp(), train_identities=4, val_identities=2,
        ...                           test_identities=2, val_pairs=10, test_pairs=10)
        >>> (root / "train.txt").read_text().splitlines()[0]
        'train/0042_00.jpg 0'
    """
    wanted = FaceGlyphsParameters(**parameters)
    root = Path(root) if root is not None else default_root()
    return generated.ensure_set(root, KIND, wanted.stamp(), lambda new: _write(new, wanted))


def _write(root: Path, wanted: FaceGlyphsParameters) -> None:
    root.mkdir()
    counts = {split: wanted.identities(split) * wanted.images(split) for split in SPLITS}
    texts, hashes = [], {}
    # disable=None: show the bar only on a terminal.
    with tqdm(
        total=sum(counts.values()), desc="Generating glyphs", unit="image", disable=None
    ) as bar:
        for split in SPLITS:
            images, hashes[split] = _write_images(root, wanted, split, bar)
            lines = [f"{name} {label}" for label, names in enumerate(images) for name in names]
            texts.append(_write_lines(root, f"{split}.txt", lines))
            if split != "train":
                lines = _draw_pairs(images, wanted.pairs(split), [wanted.seed, len(texts)])
                texts.append(_write_lines(root, f"{split}_pairs.txt", lines))
    generated.write_stamp(root, KIND, wanted.stamp(), texts, counts, hashes)


def _write_images(
    root: Path, wanted: FaceGlyphsParameters, split: str, bar: tqdm
) -> tuple[list[list[str]], str]:
    """Write one split; returns image names by identity, and the SHA-256 of the images."""
    (root / split).mkdir()
    sha, written = hashlib.sha256(), []
    for character in _spread(characters(split), wanted.identities(split)):
        names = []
        for number in range(wanted.images(split)):
            # A random stream per image, so that it does not depend on the number of images.
            rng = np.random.default_rng([wanted.seed, ord(character), number])
            image = compose_character(rng, split, character, wanted.image_size)
            _, encoded = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
            name = f"{split}/{ord(character):04x}_{number:02d}.jpg"
            (root / name).write_bytes(encoded.tobytes())
            sha.update(encoded.tobytes())
            names.append(name)
            bar.update()
        written.append(names)
    return written, sha.hexdigest()


def _spread(items: str, count: int) -> str:
    """Pick ``count`` items evenly, so that even a few cover many scripts."""
    return "".join(items[i * len(items) // count] for i in range(count))


def _draw_pairs(images: list[list[str]], count: int, seed: list[int]) -> list[str]:
    """Alternate ``count`` matching pairs with as many others; no pair occurs twice."""
    rng = np.random.default_rng(seed)
    same = [pair for names in images for pair in itertools.combinations(names, 2)]
    same = [same[i] for i in rng.permutation(len(same))[:count]]
    different: dict[tuple[str, str], None] = {}
    while len(different) < count:
        first, second = sorted(rng.choice(len(images), size=2, replace=False))
        pair = (str(rng.choice(images[first])), str(rng.choice(images[second])))
        different[pair] = None
    in_turn = zip(same, different, strict=True)
    return [
        line for one, two in in_turn for line in (f"{one[0]} {one[1]} 1", f"{two[0]} {two[1]} 0")
    ]


def _write_lines(root: Path, name: str, lines: list[str]) -> str:
    (root / name).write_text("".join(line + "\n" for line in lines))
    return name


if __name__ == "__main__":
    sys.exit(generated.main(ensure_face_glyphs, default_root(), __doc__))
