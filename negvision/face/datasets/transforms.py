"""Transforms of face images: alignment by landmarks, and the end of every pipeline."""

import numpy as np
import torch
from mmcv.transforms import BaseTransform

from negvision.data.images.face_alignment import align_face
from negvision.data.images.planes import to_planes
from negvision.errors import DatasetError
from negvision.face.structures import FaceDataSample
from negvision.registry import TRANSFORMS


@TRANSFORMS.register_module()
class AlignFace(BaseTransform):
    """Turn, scale and shift an image so that its landmarks lie where ArcFace has them.

    Put it before any other transform that moves pixels: only this one also moves ``landmarks``.

    Required keys: ``img``; ``landmarks`` (5, 2) in pixels: left eye, right eye, tip of the nose,
    left and right corner of the mouth, as seen in the image.
    Changed keys: ``img``, ``img_shape``, ``landmarks``.

    Args:
        size: Side of the result, pixels; the reference points scale with it.
        border: Value of pixels beyond the image.

    Example:
        >>> from negvision.data.images.face_alignment import REFERENCE_POINTS
        >>> results = {"img": np.zeros((250, 250, 3), np.uint8), "landmarks": 2 * REFERENCE_POINTS}
        >>> AlignFace()(results)["img"].shape
        (112, 112, 3)
    """

    def __init__(self, size: int = 112, border: int = 0) -> None:
        if size < 1:
            raise ValueError(f"size is {size}; it must be 1 or more")
        self.size = size
        self.border = border

    def transform(self, results: dict) -> dict:
        """Align one image; raises ``DatasetError`` if its landmarks cannot be used."""
        name = results.get("img_path", "image")
        if "landmarks" not in results:
            raise DatasetError(
                f"{name}: has no landmarks to align it by. Give the dataset a landmarks_file, or "
                "remove negvision.AlignFace if the images are already aligned.",
                kind="image without landmarks",
            )
        landmarks = np.asarray(results["landmarks"], dtype=np.float64)
        try:
            results["img"], matrix = align_face(results["img"], landmarks, self.size, self.border)
        except DatasetError as error:
            raise DatasetError(f"{name}: {error}", kind="landmarks that cannot be used") from None
        results["img_shape"] = (self.size, self.size)
        moved = landmarks @ matrix[:, :2].T + matrix[:, 2]
        results["landmarks"] = moved.astype(np.float32)
        return results


@TRANSFORMS.register_module()
class PackFaceInputs(BaseTransform):
    """Turn ``results`` into what a model takes; the last transform of a pipeline.

    Required keys: ``img`` (H, W, 3), uint8, BGR. ``label`` is -1 if missing.

    Args:
        meta_keys: Keys of ``results`` that become metainfo of the data sample, if present.

    Example:
        >>> packed = PackFaceInputs()(
        ...     {"img": np.zeros((112, 112, 3), np.uint8), "label": 3, "sample_idx": 0})
        >>> packed["inputs"].shape, packed["data_samples"].label
        (torch.Size([3, 112, 112]), tensor(3))
    """

    def __init__(self, meta_keys: tuple[str, ...] = ("sample_idx", "img_path", "img_shape")):
        self.meta_keys = meta_keys

    def transform(self, results: dict) -> dict:
        """``inputs``, a uint8 tensor (3, H, W), and ``data_samples``, a ``FaceDataSample``."""
        image = results["img"]
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
            raise ValueError(
                f"the image has shape {image.shape} and type {image.dtype}; face pipelines keep "
                "(H, W, 3) and uint8, and the model's data_preprocessor normalizes"
            )
        label = torch.scalar_tensor(int(results.get("label", -1)), dtype=torch.int64)
        metainfo = {key: results[key] for key in self.meta_keys if key in results}
        return {"inputs": to_planes(image), "data_samples": FaceDataSample.of(label, metainfo)}
