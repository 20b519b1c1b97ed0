"""Alignment against known similarities and a least-squares solver; packing of results."""

import cv2
import numpy as np
import pytest
import torch

from negvision.data.images.face_alignment import REFERENCE_POINTS, similarity_transform
from negvision.errors import DatasetError
from negvision.face.datasets.transforms import AlignFace, PackFaceInputs


def similarity(scale: float, degrees: float, shift: tuple[float, float]) -> np.ndarray:
    angle = np.deg2rad(degrees)
    cos, sin = scale * np.cos(angle), scale * np.sin(angle)
    return np.array([[cos, -sin, shift[0]], [sin, cos, shift[1]]])


def apply(matrix: np.ndarray, points: np.ndarray) -> np.ndarray:
    return np.array([matrix[:, :2] @ point + matrix[:, 2] for point in points])


@pytest.mark.parametrize("scale", [0.1, 7.5])
@pytest.mark.parametrize("degrees", [0, 33, 180, -120])
def test_exact_similarity_is_found(scale, degrees):
    matrix = similarity(scale, degrees, (12.5, -40))
    points = np.random.default_rng(0).uniform(0, 200, (5, 2))
    found = similarity_transform(points, apply(matrix, points))
    np.testing.assert_allclose(found, matrix, atol=1e-9)
    mirrored = REFERENCE_POINTS * [-1, 1] + [112, 0]  # is not matched by a reflection
    assert np.linalg.det(similarity_transform(mirrored, REFERENCE_POINTS)[:, :2]) > 0


def test_least_squares_of_points_that_do_not_fit():
    rng = np.random.default_rng(1)
    for _ in range(20):
        source, target = rng.uniform(0, 100, (2, 5, 2))
        # x' = a x - b y + c, y' = b x + a y + d as a linear system in a, b, c, d.
        rows = np.zeros((10, 4))
        rows[:5] = np.c_[source[:, 0], -source[:, 1], np.ones(5), np.zeros(5)]
        rows[5:] = np.c_[source[:, 1], source[:, 0], np.zeros(5), np.ones(5)]
        a, b, c, d = np.linalg.lstsq(rows, target.T.ravel(), rcond=None)[0]
        found = similarity_transform(source, target)
        np.testing.assert_allclose(found, [[a, -b, c], [b, a, d]], atol=1e-8)


@pytest.mark.parametrize("degrees", [0, 25, -70])
def test_landmarks_and_pixels_go_to_the_reference(degrees):
    """Bright dots at the landmarks end at the reference points."""
    matrix = similarity(2.0, degrees, (0, 0))
    points = apply(matrix, REFERENCE_POINTS)
    points += 150 - points.mean(axis=0)
    image = np.zeros((300, 300, 3), np.uint8)
    for x, y in points:
        cv2.circle(image, (round(x * 16), round(y * 16)), 4 * 16, (255,) * 3, -1, cv2.LINE_AA, 4)
    results = AlignFace()({"img": image, "landmarks": points, "img_path": "a.jpg"})
    assert results["img"].shape == (112, 112, 3) and results["img"].dtype == np.uint8
    assert results["img_shape"] == (112, 112)
    np.testing.assert_allclose(results["landmarks"], REFERENCE_POINTS, atol=1e-4)
    count, _, _, centers = cv2.connectedComponentsWithStats(
        (results["img"][..., 0] > 100).astype(np.uint8)
    )
    assert count == 6  # the background is one
    for point in REFERENCE_POINTS:
        assert np.linalg.norm(centers[1:] - point, axis=1).min() < 0.5


SQUARE = np.array([[0, 0], [1, 0], [1, 1], [0, 1], [0.5, 0.5]]) * 50
DEGENERATE = {
    "landmarks lie in one place": np.full((5, 2), 7.0),
    "landmarks are not finite": np.where(np.eye(5, 2) > 0, np.inf, REFERENCE_POINTS),
    "landmarks have the shape (4, 2)": REFERENCE_POINTS[:4],
    "landmarks have the shape (10,)": REFERENCE_POINTS.ravel(),
}


@pytest.mark.parametrize("says", DEGENERATE)
def test_degenerate_landmarks(says):
    results = {"img": np.zeros((9, 9, 3)), "landmarks": DEGENERATE[says], "img_path": "b.jpg"}
    with pytest.raises(DatasetError) as caught:
        AlignFace()(results)
    assert str(caught.value).startswith(f"b.jpg: {says}")


def test_points_that_fit_in_no_position():
    # The mirror image of the target: no rotation is closer than a single point.
    with pytest.raises(DatasetError, match="do not fit a face"):
        similarity_transform(SQUARE * [-1, 1], SQUARE)


def test_channels_first_and_bgr_stays():
    image = np.random.default_rng(0).integers(0, 256, (4, 6, 3), dtype=np.uint8)
    results = {
        "img": image[:, ::-1],  # a view, as a flip leaves
        "label": np.int64(7),
        "sample_idx": 3,
        "img_path": "a.jpg",
        "img_shape": (4, 6),
        "other": 1,
    }
    packed = PackFaceInputs()(results)
    assert packed["inputs"].dtype == torch.uint8 and packed["inputs"].is_contiguous()
    for channel in range(3):
        assert packed["inputs"][channel].tolist() == image[:, ::-1, channel].tolist()
    sample = packed["data_samples"]
    assert sample.label.dtype == torch.int64 and sample.label.shape == () and sample.label == 7
    assert sample.metainfo == {"sample_idx": 3, "img_path": "a.jpg", "img_shape": (4, 6)}
    assert sample.to_dict()["sample_idx"] == 3


@pytest.mark.parametrize(
    "image",
    [np.zeros((4, 4, 3), np.float32), np.zeros((4, 4), np.uint8), np.zeros((4, 4, 4), np.uint8)],
)
def test_what_the_model_would_misread(image):
    with pytest.raises(ValueError, match=r"the image has shape \(4, 4.*keep \(H, W, 3\) and uint8"):
        PackFaceInputs()({"img": image})
