"""Align a face by five points, as face recognisers are trained."""

import cv2
import numpy as np
from mmcv.transforms import BaseTransform

from negvision.errors import DatasetError
from negvision.registry import TRANSFORMS

# Where ArcFace's 112 x 112 crops have the left eye, the right eye, the tip of the nose and the
# corners of the mouth (left and right as seen in the image).
REFERENCE_POINTS = np.array(
    [
        [38.2946, 51.6963],
        [73.5318, 51.5014],
        [56.0252, 71.7366],
        [41.5493, 92.3655],
        [70.7299, 92.2041],
    ]
)


def similarity_transform(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """The rotation, uniform scale and shift that bring ``source`` closest to ``target``.

    The sum of squared distances is least among all similarities that do not mirror. With points
    as complex numbers such a similarity is z -> a z + b, so this is a linear regression; its
    solution is Umeyama's with the determinant kept positive.

    Args:
        source: Shape (N, 2), pixels.
        target: Shape (N, 2), pixels.

    Returns:
        Shape (2, 3), float64: the matrix that maps (x, y, 1) of the source to the target.

    Raises:
        DatasetError: a point of the source is not finite, or they lie in one place.

    Source: Umeyama, Least-squares estimation of transformation parameters between two point
    patterns, TPAMI 13 (1991).

    Example:
        >>> similarity_transform(2 * REFERENCE_POINTS, REFERENCE_POINTS).round(6).tolist()
        [[0.5, -0.0, 0.0], [0.0, 0.5, 0.0]]
    """
    source = np.asarray(source, dtype=np.float64)
    target = np.asarray(target, dtype=np.float64)
    if source.shape != target.shape or source.ndim != 2 or source.shape[1] != 2:
        raise DatasetError(
            f"landmarks have the shape {source.shape}; alignment takes {target.shape}."
        )
    if not np.isfinite(source).all():
        raise DatasetError(f"landmarks are not finite: {source.tolist()}.")
    z, w = source @ [1, 1j], target @ [1, 1j]
    centred = z - z.mean()
    spread = np.vdot(centred, centred).real
    # A face whose points lie within half a pixel of one another cannot be scaled up.
    if spread < 0.25 * len(source):
        raise DatasetError(f"landmarks lie in one place: {source.tolist()}.")
    a = np.vdot(centred, w - w.mean()) / spread
    if abs(a) < 1e-6:
        raise DatasetError(f"landmarks do not look like a face in any position: {source.tolist()}.")
    b = w.mean() - a * z.mean()
    return np.array([[a.real, -a.imag, b.real], [a.imag, a.real, b.imag]])


@TRANSFORMS.register_module()
class AlignFace(BaseTransform):
    """Turn, scale and shift an image so that its landmarks lie where ArcFace has them.

    Stands before any transform that moves pixels, since only this one moves ``landmarks`` along.

    Required keys: ``img``; ``landmarks`` (5, 2) in pixels: left eye, right eye, tip of the nose,
    left and right corner of the mouth, as seen in the image.
    Changed keys: ``img``, ``img_shape``, ``landmarks``.

    Args:
        size: Side of the result; the reference points scale along with it.
        border: Value of pixels beyond the image.

    Example:
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
        """Align one image; raises ``DatasetError`` where its landmarks cannot be used."""
        name = results.get("img_path", "image")
        if "landmarks" not in results:
            raise DatasetError(
                f"{name}: has no landmarks to be aligned by. Give the dataset a landmarks_file, "
                "or leave negvision.AlignFace out where the images are aligned already.",
                kind="image without landmarks",
            )
        landmarks = np.asarray(results["landmarks"], dtype=np.float64)
        # Centres of pixels have whole coordinates, hence the half pixel.
        target = (REFERENCE_POINTS + 0.5) * (self.size / 112) - 0.5
        try:
            matrix = similarity_transform(landmarks, target)
        except DatasetError as error:
            raise DatasetError(f"{name}: {error}", kind="landmarks that cannot be used") from None
        results["img"] = cv2.warpAffine(
            results["img"],
            matrix,
            (self.size, self.size),
            flags=cv2.INTER_LINEAR,
            borderValue=(self.border,) * 3,
        )
        results["img_shape"] = (self.size, self.size)
        moved = landmarks @ matrix[:, :2].T + matrix[:, 2]
        results["landmarks"] = moved.astype(np.float32)
        return results

    def __repr__(self) -> str:
        return f"{type(self).__name__}(size={self.size}, border={self.border})"
