"""Load images, and raise a clear error if one is unusable."""

import functools
from collections.abc import Callable

import mmcv
import numpy as np
from mmcv.transforms import LoadImageFromFile as MMCVLoadImageFromFile

from negvision.compat.patches import keep_a_pixel
from negvision.data.images.decoding import AS_STORED, DEEP, by_opencv, decode_image
from negvision.data.images.files import read_bytes
from negvision.data.images.header import MAX_PIXELS, Header
from negvision.errors import DatasetError, WarnOnce
from negvision.registry import TRANSFORMS
from negvision.visualization.looking import parts_of

# Here, since every process that loads images imports this module.
keep_a_pixel(WarnOnce())


@TRANSFORMS.register_module()
class LoadImageFromFile(MMCVLoadImageFromFile):
    """Load an image and check that it is the one the annotations describe.

    Replaces mmcv's transform of the same name. A missing, empty, truncated, undecodable or
    enormous file, and one whose size differs from the annotated size, raise
    :class:`negvision.errors.DatasetError`: with a wrong size every box would be misplaced. The
    dataset's ``on_bad_sample`` decides whether that ends the run or skips the sample.

    Required keys: ``img_path``; ``height`` and ``width`` are compared if present. A dataset that
    keeps many images in one file gives their encoded bytes as ``img_bytes``; nothing is then read,
    and ``img_path`` is the name in errors. Of an image with a ``tile``, (x1, y1, x2, y2) in pixels,
    only that part is kept.
    Added keys: ``img`` (H x W x C, BGR, uint8), ``img_shape``, ``ori_shape`` (both (H, W)).
    Removed keys: ``img_bytes``.

    Args:
        to_float32: Convert the image to float32.
        color_type: See :func:`negvision.data.images.decoding.decode_image`.
        imdecode_backend: "cv2", or another decoder of :func:`mmcv.imfrombytes`.
        backend_args: File backend of MMEngine; a local file by default.
        max_pixels: Height x width above which an image is refused before it is decoded; a small
            file can announce one that fills the memory.
    """

    def __init__(
        self,
        to_float32: bool = False,
        color_type: str = "color",
        imdecode_backend: str = "cv2",
        backend_args: dict | None = None,
        max_pixels: int = MAX_PIXELS,
    ) -> None:
        if max_pixels < 1:
            raise ValueError(f"max_pixels is {max_pixels}; it must be 1 or more")
        super().__init__(
            to_float32=to_float32,
            color_type=color_type,
            imdecode_backend=imdecode_backend,
            backend_args=backend_args,
        )
        self.max_pixels = max_pixels

    def decode(self, data: bytes, name: str) -> np.ndarray:
        """Decode an image as in :meth:`transform`; ``name`` is named in errors."""
        own = self.imdecode_backend
        decoder = None if own == "cv2" else functools.partial(_by_mmcv, backend=own)
        return decode_image(data, name, self.color_type, self.max_pixels, decoder)

    def transform(self, results: dict) -> dict:
        """Add the image to ``results``; raises ``DatasetError`` if it is unusable."""
        path = results["img_path"]
        data = results.pop("img_bytes", None)
        if data is None:
            data = self._read(path)
        image = self.decode(data, path)
        shape = image.shape[:2]
        annotated = (results.get("height", shape[0]), results.get("width", shape[1]))
        if annotated != shape and None not in annotated:
            raise DatasetError(
                _size_message(path, shape, annotated), kind="image of another size than annotated"
            )
        if "tile" in results:
            x1, y1, x2, y2 = results["tile"]
            image = np.ascontiguousarray(image[y1:y2, x1:x2])
        results["img"] = image.astype(np.float32) if self.to_float32 else image
        results["img_shape"] = results["ori_shape"] = image.shape[:2]
        return results

    def _read(self, path: str) -> bytes:
        try:
            return read_bytes(path, self.backend_args)
        except FileNotFoundError:
            raise DatasetError(
                f"{path}: no such file, although it was there, or was not looked for, when the "
                "annotations were loaded.",
                kind="missing image",
            ) from None
        except OSError as error:
            raise DatasetError(
                f"{path}: cannot be read: {error.strerror or error}.", kind="unreadable file"
            ) from None


def _by_mmcv(data: bytes, channels: str, header: Header, backend: str) -> np.ndarray | None:
    # Pillow clips 16 bits. These formats are lossless: decoders agree.
    if backend == "pillow" and header.kind in DEEP:
        return by_opencv(data, channels, header)
    # The other decoders ignore orientations in any case, and do not know the ending.
    ending = AS_STORED if backend == "pillow" and channels != "unchanged" else ""
    return mmcv.imfrombytes(data, flag=channels + ending, backend=backend)


def _size_message(path: str, found: tuple[int, int], annotated: tuple[int, int]) -> str:
    message = (
        f"{path}: the image is {found[1]} x {found[0]} pixels (width x height), the annotations "
        f"say {annotated[1]} x {annotated[0]}: its boxes would be misplaced. "
    )
    if found == annotated[::-1]:
        return message + (
            "The sides are swapped, so EXIF orientation probably rotates the file; "
            'color_type="color_ignore_orientation" reads it as stored.'
        )
    return message + "Use the images that were annotated, or correct the file."


def reader_of(dataset) -> Callable[[str], np.ndarray]:
    """A function that reads images of ``dataset`` by ``img_path``, for drawing on them.

    They have the orientation and size in which the pipeline loads them, to which boxes and label
    maps refer. It returns (H, W, 3) uint8 RGB.

    Args:
        dataset: Of MMEngine, or a wrapper. Without a transform that loads,
            :class:`LoadImageFromFile` reads.
    """
    loaders: dict[int, Callable] = {}
    leaves = [part for part in parts_of(dataset) if hasattr(part, "pipeline")]
    for leaf in leaves:
        steps = getattr(leaf.pipeline, "transforms", ())
        found = (step for step in steps if isinstance(step, MMCVLoadImageFromFile))
        loaders[id(leaf)] = next(found, LoadImageFromFile())
    first = next(iter(loaders.values()), LoadImageFromFile())
    by_path: dict[str, Callable] = {}
    # Concatenated sets may be read differently.
    if any(vars(loader) != vars(first) for loader in loaders.values()):
        for leaf in leaves:
            for index in range(len(leaf)):
                by_path[leaf.get_data_info(index)["img_path"]] = loaders[id(leaf)]

    def read(path: str) -> np.ndarray:
        image = by_path.get(path, first)({"img_path": path})["img"]
        if image.dtype == np.uint16:
            image = image >> 8
        image = np.clip(image, 0, 255).astype(np.uint8)
        if image.ndim == 2 or image.shape[2] < 3:
            image = np.repeat(image.reshape(*image.shape[:2], -1)[..., :1], 3, axis=2)
        return np.ascontiguousarray(image[..., 2::-1])

    return read
