"""Align a face by five points, as ArcFace's data are aligned."""

import cv2
import numpy as np

from negvision.errors import DatasetError

# In ArcFace's 112 x 112 crops: left eye, right eye, tip of the nose and corners of the mouth (left
# and right as seen in the image).
REFERENCE_POINTS = np.array(
    [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655],
     [70.7299, 92.2041]]
)  # fmt: skip


def similarity_transform(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """The rotation, uniform scale and shift that bring ``source`` closest to ``target``.

    With points as complex numbers, a similarity that does not mirror is z -> a z + b, so this is a
    linear regression; its solution is Umeyama's with the determinant kept positive.

    Points are (N, 2), in pixels; the matrix (2, 3), float64, maps (x, y, 1) of the source to the
    target. Raises ``DatasetError`` if a point is not finite or all lie in one place.

    Source: Umeyama, Least-squares estimation of transformation parameters between two point
    patterns, TPAMI 13 (1991).

    Example:
        >>> (similarity_transform(2 * REFERENCE_POINTS, REFERENCE_POINTS).round(6) + 0.0).tolist()
        [[0.5, 0.0, 0.0], [0.0, 0.5, 0.0]]
    """
    source = np.asarray(source, dtype=np.float64)
    target = np.asarray(target, dtype=np.float64)
    if source.shape != target.shape or source.ndim != 2 or source.shape[1] != 2:
        raise DatasetError(
            f"landmarks have the shape {source.shape}; alignment needs {target.shape}."
        )
    if not np.isfinite(source).all():
        raise DatasetError(f"landmarks are not finite: {source.tolist()}.")
    z, w = source @ [1, 1j], target @ [1, 1j]
    centered = z - z.mean()
    spread = np.vdot(centered, centered).real
    # A face whose points lie within half a pixel of each other cannot be scaled up.
    if spread < 0.25 * len(source):
        raise DatasetError(f"landmarks lie in one place: {source.tolist()}.")
    a = np.vdot(centered, w - w.mean()) / spread
    if abs(a) < 1e-6:
        raise DatasetError(f"landmarks do not fit a face in any position: {source.tolist()}.")
    b = w.mean() - a * z.mean()
    return np.array([[a.real, -a.imag, b.real], [a.imag, a.real, b.imag]])


def align_face(
    image: np.ndarray, landmarks: np.ndarray, size: int = 112, border: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Turn, scale and shift an image so that its landmarks lie where ArcFace has them.

    Args:
        image: (H, W, 3) uint8.
        landmarks: (5, 2) in pixels: left eye, right eye, tip of the nose, left and right corner of
            the mouth, as seen in the image.
        size: Side of the result, pixels; the reference points scale with it.
        border: Value of pixels beyond the image.

    Returns:
        The crop (size, size, 3), and the matrix (2, 3) that maps (x, y, 1) of the image to it.

    Raises:
        DatasetError: The landmarks cannot be used.

    Example:
        >>> crop, matrix = align_face(np.zeros((250, 250, 3), np.uint8), 2 * REFERENCE_POINTS)
        >>> crop.shape, (matrix.round(6) + 0.0).tolist()
        ((112, 112, 3), [[0.5, 0.0, 0.0], [0.0, 0.5, 0.0]])
    """
    # Pixel centers have integer coordinates, hence the half pixel.
    matrix = similarity_transform(landmarks, (REFERENCE_POINTS + 0.5) * (size / 112) - 0.5)
    crop = cv2.warpAffine(
        image, matrix, (size, size), flags=cv2.INTER_LINEAR, borderValue=(border,) * 3
    )
    return crop, matrix
