"""Load images, and raise a clear error if one is unusable."""

import mmcv
import numpy as np
from mmcv.transforms import LoadImageFromFile as MMCVLoadImageFromFile

from negvision.data.images.files import read_bytes
from negvision.data.images.header import MAX_PIXELS
from negvision.data.images.integrity import require_complete
from negvision.errors import DatasetError
from negvision.registry import TRANSFORMS


def decode_image(
    data: bytes,
    name: str,
    color_type: str = "color",
    backend: str = "cv2",
    max_pixels: int = MAX_PIXELS,
) -> np.ndarray:
    """Decode a complete image of at most ``max_pixels``, which its header is checked for first.

    Args:
        data: The encoded image.
        name: Named in errors.
        color_type: ``flag`` of :func:`mmcv.imfrombytes`.
        backend: Decoder of :func:`mmcv.imfrombytes`.
        max_pixels: The largest allowed height x width.

    Returns:
        H x W x C, BGR, uint8.

    Raises:
        DatasetError: ``data`` is empty, truncated, too large or no image.
    """
    require_complete(data, name, max_pixels)
    reason = "no decoder knows the format"
    try:
        image = mmcv.imfrombytes(data, flag=color_type, backend=backend)
    except Exception as error:  # each decoder raises its own kinds
        image, reason = None, str(error) or type(error).__name__
    if image is None:
        raise DatasetError(
            f"{name}: not an image that {backend!r} can decode ({reason}); the file begins with "
            f"{data[:16]!r}.",
            kind="undecodable image",
        )
    return image


@TRANSFORMS.register_module()
class LoadImageFromFile(MMCVLoadImageFromFile):
    """Load an image and check that it is the one the annotations describe.

    Replaces mmcv's transform of the same name. A missing, empty, truncated, undecodable or
    enormous file, and one whose size differs from the annotated size, raise
    :class:`negvision.errors.DatasetError`: with a wrong size every box would be misplaced. The
    dataset's ``on_bad_sample`` decides whether that ends the run or skips the sample.

    Required keys: ``img_path``; ``height`` and ``width`` are compared if present. A dataset that
    keeps many images in one file gives their encoded bytes as ``img_bytes``; nothing is then read,
    and ``img_path`` is the name in errors.
    Added keys: ``img`` (H x W x C, BGR, uint8), ``img_shape``, ``ori_shape`` (both (H, W)).
    Removed keys: ``img_bytes``.

    Args:
        to_float32: Convert the image to float32.
        color_type: ``flag`` of :func:`mmcv.imfrombytes`.
        imdecode_backend: Decoder of :func:`mmcv.imfrombytes`.
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

    def transform(self, results: dict) -> dict:
        """Add the image to ``results``; raises ``DatasetError`` if it is unusable."""
        path = results["img_path"]
        data = results.pop("img_bytes", None)
        if data is None:
            data = self._read(path)
        image = decode_image(data, path, self.color_type, self.imdecode_backend, self.max_pixels)
        shape = image.shape[:2]
        annotated = (results.get("height", shape[0]), results.get("width", shape[1]))
        if annotated != shape and None not in annotated:
            raise DatasetError(
                _size_message(path, shape, annotated), kind="image of another size than annotated"
            )
        results["img"] = image.astype(np.float32) if self.to_float32 else image
        results["img_shape"] = results["ori_shape"] = shape
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
