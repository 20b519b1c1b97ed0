"""The pictures of the digits set as pixel classes, and cut into one small image a digit."""

from collections.abc import Container, Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np

from negvision.toy.scene import SceneObject

VOID = 255
CROP_SIDE = 32

# Side of a crop over the longer side of the digit's box: a little of what surrounds it is seen.
_CONTEXT = 1.25


def class_mask(objects: Sequence[SceneObject], height: int, width: int) -> np.ndarray:
    """The class of each pixel.

    Args:
        objects: visible objects of one picture, whose masks share no pixel.
        height, width: size of the picture in pixels.

    Returns:
        height x width uint8: 0 background, d + 1 for digit d, 255 for crowds and for digits of
        which too little is seen.
    """
    mask = np.zeros((height, width), dtype=np.uint8)
    for item in objects:
        mask[item.mask] = VOID if item.crowd or item.ignore else item.digit + 1
    return mask


def cut_digits(
    image: np.ndarray, objects: Sequence[SceneObject], held_out: Container[int]
) -> Iterator[tuple[int, np.ndarray]]:
    """Cut a square round each digit that is well seen, in the order of ``objects``.

    A square that would reach beyond the picture is moved inside. Other digits may show in it, as
    they do in real crops; but a known digit beside which any pixel of a held-out one is seen is
    left out, so that neither training nor the known part of a test shows what is held out.

    Args:
        image: H x W x 3 uint8.
        objects: visible objects of the picture.
        held_out: digits that training must not see.

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
        interpolation = cv2.INTER_AREA if side > CROP_SIDE else cv2.INTER_LINEAR
        yield (
            item.digit,
            cv2.resize(image[window], (CROP_SIDE, CROP_SIDE), None, 0, 0, interpolation),
        )


class ImagePack:
    """Encoded images of a classification set in one npz file.

    The file holds ``data`` (uint8, the PNG files one after the other), ``offsets`` (int64, one
    more than images), ``labels`` (int64) and ``classes`` (the name of each label).
    """

    def __init__(self, class_names: Sequence[str]) -> None:
        self.class_names = class_names
        self.labels: list[int] = []
        self._files: list[np.ndarray] = []

    def __len__(self) -> int:
        return len(self.labels)

    def add(self, image: np.ndarray, label: int) -> None:
        """Append an H x W x 3 uint8 BGR image; label -1 is a class beyond ``class_names``."""
        self._files.append(cv2.imencode(".png", image)[1])
        self.labels.append(label)

    def write(self, path: Path) -> None:
        """Write all images; the same images give the same bytes."""
        sizes = [file.size for file in self._files]
        np.savez(
            path,
            data=np.concatenate([np.empty(0, np.uint8), *self._files]),
            offsets=np.cumsum([0, *sizes], dtype=np.int64),
            labels=np.array(self.labels, dtype=np.int64),
            classes=np.array(self.class_names),
        )
