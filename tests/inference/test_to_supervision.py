"""Conversion of boxes for the supervision package."""

import sys

import numpy as np
import pytest

from negvision.errors import UserError
from negvision.inference.runtime import Detections, Embedding
from negvision.inference.supervision import to_supervision

FOUND = Detections(
    np.array([[1, 2, 30, 40], [5, 6, 7, 8]], np.float32),
    np.array([0.9, 0.4], np.float32),
    np.array([1, 0]),
    np.array([-2.0, 3.0], np.float32),
    np.array([False, True]),
)


def test_all_values_are_converted():
    supervision = pytest.importorskip("supervision")
    boxes = to_supervision(FOUND, ("cat", "dog"))
    assert isinstance(boxes, supervision.Detections)
    assert np.array_equal(boxes.xyxy, FOUND.boxes)
    assert np.array_equal(boxes.confidence, FOUND.scores)
    assert np.array_equal(boxes.class_id, FOUND.labels)
    assert np.array_equal(boxes.data["ood_score"], FOUND.ood_scores)
    assert boxes.data["class_name"].tolist() == ["dog", "cat"]
    assert boxes[~boxes.data["unknown"]].data["class_name"].tolist() == ["dog"]
    assert to_supervision(Detections(FOUND.boxes, FOUND.scores, FOUND.labels)).data == {}
    assert len(to_supervision(FOUND.above(1.0), ("cat", "dog"))) == 0
    with pytest.raises(TypeError, match="supervision takes boxes and classes; got Embedding"):
        to_supervision(Embedding(np.zeros(3)))


def test_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "supervision", None)
    with pytest.raises(UserError, match="supervision is not installed: pip install supervision"):
        to_supervision(FOUND)
