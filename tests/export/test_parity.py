"""Comparison of results: equal, different by rounding, and different."""

import dataclasses
from functools import partial

import numpy as np
import pytest

from negvision.errors import ExportError
from negvision.export import sample_images
from negvision.export.parity import TOLERANCES, Differences, compare, compare_results
from negvision.inference.runtime import (
    Classification,
    Detections,
    Embedding,
    ExportedModel,
    LabelMap,
    Metadata,
)
from negvision.inference.runtime.metadata import Preprocessing
from negvision.inference.torch_model import TorchModel

META = Metadata("detection", Preprocessing(), score_threshold=0.05, iou_threshold=0.6, max_boxes=4)
LIMIT = TOLERANCES["fp32"]
COUNT = 64


def _found(boxes, scores, labels=None, ood=None) -> Detections:
    return Detections(
        np.array(boxes, np.float32).reshape(-1, 4),
        np.array(scores, np.float32),
        np.array(labels if labels is not None else [0] * len(scores), np.int64),
        None if ood is None else np.array(ood, np.float32),
    )


FIRST = _found([[0, 0, 10, 10], [50, 50, 90, 80]], [0.9, 0.4], [1, 2], [-3.0, -4000.0])


def _difference(one, other, metadata=META) -> Differences:
    found = Differences()
    compare_results(other, one, metadata, 1e-3, found)
    return found


def _unmatched(one, other, metadata=META) -> tuple[int, int]:
    found = _difference(one, other, metadata)
    return found.unmatched, found.borderline


def test_equal_boxes_have_no_difference():
    found = _difference(FIRST, FIRST)
    assert found.compared == 2 and set(found.largest.values()) == {0}
    assert found.borderline == found.unmatched == 0


def test_order_does_not_matter():
    other = _found([[50, 50, 90, 80.25], [0, 0, 10, 10]], [0.41, 0.9], [2, 1], [-4002.0, -3.0])
    found = _difference(FIRST, other)
    assert found.values["box"][0].tolist() == [0, 0.25]
    assert found.largest["score"] == pytest.approx(0.01)
    assert found.largest["ood"] == pytest.approx(2 / 4000)


@pytest.mark.parametrize(
    "other",
    [
        _found([[0, 0, 10, 10]], [0.9], [1]),  # one box is missing
        _found([[0, 0, 10, 10], [50, 50, 90, 80]], [0.9, 0.4], [1, 1]),  # another label
        _found([[0, 0, 10, 10], [5, 50, 40, 80]], [0.9, 0.4], [1, 2]),  # elsewhere
        _found([], []),
    ],
)
def test_unmatched_boxes_are_counted(other):
    unmatched, borderline = _unmatched(FIRST, other)
    assert unmatched > 0 and borderline == 0


def test_boxes_at_the_score_threshold_are_rounding():
    other = _found(
        [[0, 0, 10, 10], [50, 50, 90, 80], [60, 0, 80, 9]], [0.9, 0.4, 0.0505], [1, 2, 0]
    )
    assert _unmatched(FIRST, other) == (0, 1)


def test_last_box_of_a_full_list_is_rounding():
    boxes = [[0, 0, 9, 9], [20, 0, 29, 9], [40, 0, 49, 9], [60, 0, 69, 9]]
    one = _found(boxes, [0.9, 0.8, 0.7, 0.5])
    other = _found([*boxes[:3], [80, 0, 89, 9]], [0.9, 0.8, 0.7, 0.5002])
    assert _unmatched(one, other) == (0, 2)
    assert _unmatched(one, other, dataclasses.replace(META, max_boxes=100)) == (2, 0)


def test_boxes_at_the_nms_threshold_and_beneath_are_rounding():
    kept = [0, 0, 10, 10]
    edge = [0, 0, 10, 6]  # IoU of 0.6 with the kept one
    one = _found([kept, edge], [0.9, 0.5])
    assert _unmatched(one, _found([kept], [0.9])) == (0, 1)
    other = _found([kept, [0, 2.5, 10, 6]], [0.9, 0.4])  # the edge would have suppressed it
    assert _unmatched(one, other)[0] == 0


def test_nan_is_never_within_limits():
    other = _found([[0, 0, 10, 10], [50, 50, 90, 80]], [0.9, np.nan], [1, 2], [-3.0, -4000.0])
    assert any(reason.startswith("score") for reason in _difference(FIRST, other).beyond(LIMIT))


def _compare(own, theirs, task="detection"):
    image = np.zeros((8, 8, 3), np.uint8)
    model, reference = (
        ExportedModel.of_graph(None, dataclasses.replace(META, task=task)) for _ in range(2)
    )
    model.run = lambda batch: [own] * len(batch)
    reference.run = lambda batch: [theirs] * len(batch)
    return compare(model, reference, [image] * 3)


def test_comparison_is_summed_up_and_judged():
    moved = _found([[0, 0, 10, 10.75], [50, 50, 90, 80]], [0.9, 0.4], [1, 2], [-3.0, -4000.0])
    found = _compare(moved, FIRST)
    assert found.images == 3 and found.compared == 12
    assert found.largest["box"] == 0.75
    [reason] = found.beyond(LIMIT)
    assert "box: 6 of 12 differ by more than 0.5, at most 0.75" in reason
    assert "largest differences: score 0, box 0.75 px" in found.line()
    assert not _compare(FIRST, FIRST).beyond(LIMIT)
    assert _compare(FIRST, _found([], [])).beyond(LIMIT)


def test_no_box_on_any_image_is_an_error():
    with pytest.raises(ExportError, match=r"nothing was compared.*--images DIR"):
        _compare(_found([], []), _found([], []))


def test_a_few_pixels_may_be_tied():
    labels = np.zeros((100, 100), np.int32)
    flipped = labels.copy()
    flipped[0, :5] = 1
    assert not _compare(LabelMap(flipped), LabelMap(labels), "segmentation").beyond(LIMIT)
    flipped[0, :50] = 1
    assert _compare(LabelMap(flipped), LabelMap(labels), "segmentation").beyond(LIMIT)
    with pytest.raises(ExportError, match="labels have the shape"):
        _compare(LabelMap(flipped[1:]), LabelMap(labels), "segmentation")


@pytest.mark.parametrize(("value", "is_close"), [(100.05, True), (100.2, False)])
def test_embeddings_are_compared_relative_to_their_size(value, is_close):
    one, other = (Embedding(np.array([v, 2.0], np.float32)) for v in (100.0, value))
    assert (not _compare(other, one, "face").beyond(LIMIT)) == is_close


@pytest.mark.parametrize(
    ("other", "reason"),
    [
        (Classification(np.array([0.3, 0.7], np.float32), -1.0), None),
        (Classification(np.array([0.31, 0.69], np.float32), -1.0), "probability: 6 of 6 differ"),
        (Classification(np.array([0.3, np.nan], np.float32), -1.0), "probability: 6 of 6 differ"),
        (Classification(np.array([0.3, 0.7], np.float32), -1.1), "ood: 6 of 6 differ"),
    ],
)
def test_probabilities_and_their_ood_score_are_compared(other, reason):
    one = Classification(np.array([0.3, 0.7], np.float32), -1.0)
    found = _compare(other, one, "classification")
    assert "6 predictions compared" in found.line()
    assert [text.startswith(reason or "") for text in found.beyond(LIMIT)] == [True] * bool(reason)


def test_sample_images_differ_and_fewer_are_the_first():
    for draw in (sample_images.scenes, partial(sample_images.crops, size=(32, 32))):
        drawn = {name: pixels.tobytes() for name, pixels in draw(COUNT).items()}
        assert len(drawn) == len(set(drawn.values())) == COUNT
        assert [pixels.tobytes() for pixels in draw(10).values()] == list(drawn.values())[:10]


@pytest.mark.parametrize("name", ["atss", "faster_abet", "pixels", "images", "face"])
def test_exports_match_pytorch(built, exported, tmp_path, name):
    cfg, model = built(name)
    runner = ExportedModel(exported(name))
    size = runner.metadata.preprocessing.size if name == "face" else None
    files = sample_images.write_samples(tmp_path, COUNT, size)
    found = compare(runner, TorchModel(cfg, model), files, batch_sizes=(8,))
    assert found.beyond(TOLERANCES["fp32"]) == []
    assert found.compared >= COUNT and found.unmatched == 0
    assert found.line().startswith("64 images, batches of 8: ")
