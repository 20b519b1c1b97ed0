"""Read images from files, and say clearly when one cannot be used."""

import mmcv
import numpy as np
from mmcv.transforms import LoadImageFromFile as MMCVLoadImageFromFile
from mmengine import fileio

from negvision.detection.datasets.errors import DatasetError
from negvision.detection.datasets.image_integrity import find_damage
from negvision.registry import TRANSFORMS


@TRANSFORMS.register_module()
class LoadImageFromFile(MMCVLoadImageFromFile):
    """Load an image and make sure that it is the one that the annotations describe.

    Takes the place of mmcv's transform of the same name. A missing, empty, truncated or
    undecodable file, and one whose size is not the annotated size, raise :class:`DatasetError`.
    Whether that ends the run or leaves the sample out is for the dataset to decide
    (:class:`CocoDataset`, ``on_bad_sample``).

    A wrong size is an error, since every box of the image would lie in the wrong place.

    Required keys: ``img_path``; ``height`` and ``width`` are compared where present.
    Added keys: ``img`` (H x W x C, BGR, uint8), ``img_shape``, ``ori_shape`` (both (H, W)).

    Args:
        to_float32: convert the image to float32.
        color_type: flag of :func:`mmcv.imfrombytes`.
        imdecode_backend: decoder of :func:`mmcv.imfrombytes`.
        backend_args: file backend of MMEngine; a local file by default.
    """

    def __init__(
        self,
        to_float32: bool = False,
        color_type: str = "color",
        imdecode_backend: str = "cv2",
        backend_args: dict | None = None,
    ) -> None:
        super().__init__(
            to_float32=to_float32,
            color_type=color_type,
            imdecode_backend=imdecode_backend,
            backend_args=backend_args,
        )

    def transform(self, results: dict) -> dict:
        """Add the image to ``results``; raises :class:`DatasetError` where it is unusable."""
        path = results["img_path"]
        data = self._read(path)
        damage = find_damage(data)
        if damage:
            raise DatasetError(
                f"{path}: {damage}, {len(data):,} bytes. Fetch the file anew, or leave such files "
                'out of training with on_bad_sample="skip" of the dataset.'
            )
        image = self._decode(path, data)
        shape = image.shape[:2]
        annotated = (results.get("height"), results.get("width"))
        if None not in annotated and tuple(annotated) != shape:
            raise DatasetError(_size_message(path, shape, annotated))
        results["img"] = image.astype(np.float32) if self.to_float32 else image
        results["img_shape"] = results["ori_shape"] = shape
        return results

    def _read(self, path: str) -> bytes:
        try:
            return fileio.get(path, backend_args=self.backend_args)
        except FileNotFoundError:
            raise DatasetError(
                f"{path}: no such file, though it stood there or was not looked for when the "
                "annotations were loaded."
            ) from None
        except OSError as error:
            raise DatasetError(f"{path}: cannot be read: {error.strerror or error}.") from None

    def _decode(self, path: str, data: bytes) -> np.ndarray:
        reason = "no decoder knows the format"
        try:
            image = mmcv.imfrombytes(data, flag=self.color_type, backend=self.imdecode_backend)
        except Exception as error:  # each decoding backend raises its own kinds
            image, reason = None, str(error) or type(error).__name__
        if image is None:
            raise DatasetError(
                f"{path}: not an image that {self.imdecode_backend!r} can decode ({reason}); the "
                f"file begins with {data[:16]!r}."
            )
        return image


def _size_message(path: str, found: tuple[int, int], annotated: tuple[int, int]) -> str:
    message = (
        f"{path}: the image is {found[1]} x {found[0]} pixels (width x height), the annotations "
        f"say {annotated[1]} x {annotated[0]}: its boxes would lie in the wrong place. "
    )
    if found == annotated[::-1]:
        return message + (
            "The sides are swapped, so the file is probably turned by its EXIF orientation; "
            'color_type="color_ignore_orientation" reads it as stored.'
        )
    return message + "Use the images that the annotations were made on, or correct the file."
