"""Find the face in a photograph and align it, by OpenCV."""

from __future__ import annotations

import os
from dataclasses import dataclass

import cv2
import numpy as np

from negvision.data.images.face_alignment import align_face
from negvision.errors import DatasetError, ExportError

# Images are shrunk to this for the search: YuNet finds faces of about 10 to 300 pixels.
_LONGEST = 640
_OVERLAP = 0.3
NO_FACE, SEVERAL_FACES = "image without a face", "image with several faces"


@dataclass(frozen=True)
class Faces:
    """The faces in an image, the main one first: wide, and near the center of the image.

    They are sorted by their width less the distance of their center from that of the image.

    Attributes:
        boxes: (N, 4) float32 x1, y1, x2, y2 in pixels of the image.
        landmarks: (N, 5, 2) float32 in pixels: left eye, right eye, tip of the nose, left and right
            corner of the mouth, as seen in the image.
        scores: (N,) float32 in [0, 1].
    """

    boxes: np.ndarray
    landmarks: np.ndarray
    scores: np.ndarray

    def __len__(self) -> int:
        return len(self.boxes)


class FaceDetector:
    """A face detector that OpenCV's ``FaceDetectorYN`` runs, such as YuNet.

    Args:
        path: ONNX file of YuNet.
        min_score: Faces below this score are ignored.
        main_only: Of several faces take the main one; otherwise they are an error.

    Raises:
        ExportError: The file does not exist, or is no such detector.

    With a photograph, whose face becomes a crop as recognizers take it::

        crop = FaceDetector("yunet_n_640_640.onnx").crop(cv2.imread("photo.jpg"), "photo.jpg")
    """

    def __init__(
        self, path: str | os.PathLike, min_score: float = 0.7, main_only: bool = False
    ) -> None:
        self.path, self.main_only = os.fspath(path), main_only
        if not os.path.isfile(self.path):
            raise ExportError(f"face detector {self.path!r} does not exist")
        try:
            self._net = cv2.FaceDetectorYN.create(
                self.path, "", (_LONGEST, _LONGEST), min_score, _OVERLAP
            )
            self.find(np.zeros((64, 64, 3), np.uint8))
        except cv2.error:
            raise ExportError(
                f"face detector {self.path!r} cannot be run by OpenCV's FaceDetectorYN. Take an "
                "ONNX file of YuNet"
            ) from None

    def find(self, image: np.ndarray) -> Faces:
        """The faces in an image, (H, W, 3) uint8 BGR."""
        height, width = image.shape[:2]
        factor = min(1.0, _LONGEST / max(height, width))
        size = max(1, round(width * factor)), max(1, round(height * factor))
        if factor < 1:
            image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
        self._net.setInputSize(size)
        rows = self._net.detect(image)[1]
        rows = np.zeros((0, 15), np.float32) if rows is None else rows
        off = np.hypot(*(rows[:, :2] + rows[:, 2:4] / 2 - np.array(size) / 2).T)
        rows = rows[np.argsort(off - rows[:, 2], kind="stable")]
        scale = np.array([width / size[0], height / size[1]], np.float32)
        corners = np.stack([rows[:, :2], rows[:, :2] + rows[:, 2:4]], axis=1) * scale
        points = rows[:, 4:14].reshape(-1, 5, 2) * scale
        return Faces(corners.reshape(-1, 4), points, rows[:, 14])

    def crop(self, image: np.ndarray, name: str = "", side: int = 112) -> np.ndarray:
        """The face in an image, aligned: (side, side, 3) uint8 BGR.

        Args:
            image: (H, W, 3) uint8 BGR.
            name: Of the image, in errors; "" for none.
            side: Of the crop, in pixels.

        Raises:
            DatasetError: There is no face, or there are several.
        """
        found = self.find(image)
        where = f"{name}: " if name else ""
        if not len(found):
            raise DatasetError(
                f"{where}no face was found. Take another photograph, larger and from the front.",
                kind=NO_FACE,
            )
        if len(found) > 1 and not self.main_only:
            raise DatasetError(
                f"{where}{len(found)} faces were found. Cut out the one that is meant, or take "
                "the main one (--main-face).",
                kind=SEVERAL_FACES,
            )
        points = found.landmarks[0]
        crop, matrix = align_face(image, points, side)
        factor = 2 * float(np.hypot(*matrix[:, 0]))
        if factor < 1:  # the crop takes few pixels of a large photograph: average first
            height, width = image.shape[:2]
            size = max(1, round(width * factor)), max(1, round(height * factor))
            smaller = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
            scale = np.array([size[0] / width, size[1] / height])
            crop, _ = align_face(smaller, (points + 0.5) * scale - 0.5, side)
        return crop
