"""What a comparison of boxes calls the same, rounding, and different."""

import dataclasses

import numpy as np
import pytest

from negvision.errors import ExportError
from negvision.export.parity import compare
from negvision.export.parity.boxes import compare_boxes
from negvision.inference.runtime import Detections, Embedding, ExportedModel, LabelMap, Metadata
from negvision.inference.runtime.metadata import Preprocessing

META = Metadata("detection", Preprocessing(), score_threshold=0.05, iou_threshold=0.6, max_boxes=4)
LIMIT = compare.TOLERANCES["fp32"]


def _found(boxes, scores, labels=None, ood=None) -> Detections:
    return Detections(
        np.array(boxes, np.float32).reshape(-1, 4),
        np.array(scores, np.float32),
        np.array(labels if labels is not None else [0] * len(scores), np.int64),
        None if ood is None else np.array(ood, np.float32),
    )


FIRST = _found([[0, 0, 10, 10], [50, 50, 90, 80]], [0.9, 0.4], [1, 2], [-3.0, -4000.0])


def test_equal_boxes_differ_in_nothing():
    found = compare_boxes(FIRST, FIRST, META, 1e-3)
    assert len(found.score) == 2 and found.score.max() == found.box.max() == found.ood.max() == 0
    assert found.borderline == found.unmatched == 0


def test_differences_are_measured_whatever_the_order():
    other = _found([[50, 50, 90, 80.25], [0, 0, 10, 10]], [0.41, 0.9], [2, 1], [-4002.0, -3.0])
    found = compare_boxes(FIRST, other, META, 1e-3)
    assert found.box.tolist() == [0, 0.25]
    assert found.score.max() == pytest.approx(0.01)
    assert found.ood.max() == pytest.approx(2 / 4000)


@pytest.mark.parametrize(
    "other",
    [
        _found([[0, 0, 10, 10]], [0.9], [1]),  # one box is missing
        _found([[0, 0, 10, 10], [50, 50, 90, 80]], [0.9, 0.4], [1, 1]),  # another label
        _found([[0, 0, 10, 10], [5, 50, 40, 80]], [0.9, 0.4], [1, 2]),  # elsewhere
        _found([], []),
    ],
)
def test_boxes_of_one_side_alone_are_counted(other):
    found = compare_boxes(FIRST, other, META, 1e-3)
    assert found.unmatched > 0 and found.borderline == 0


def test_boxes_at_the_score_threshold_are_rounding():
    other = _found(
        [[0, 0, 10, 10], [50, 50, 90, 80], [60, 0, 80, 9]], [0.9, 0.4, 0.0505], [1, 2, 0]
    )
    found = compare_boxes(FIRST, other, META, 1e-3)
    assert (found.unmatched, found.borderline) == (0, 1)


def test_the_last_of_a_full_list_is_rounding():
    boxes = [[0, 0, 9, 9], [20, 0, 29, 9], [40, 0, 49, 9], [60, 0, 69, 9]]
    one = _found(boxes, [0.9, 0.8, 0.7, 0.5])
    other = _found([*boxes[:3], [80, 0, 89, 9]], [0.9, 0.8, 0.7, 0.5002])
    found = compare_boxes(one, other, META, 1e-3)
    assert (found.unmatched, found.borderline) == (0, 2)
    fewer = dataclasses.replace(META, max_boxes=100)
    assert compare_boxes(one, other, fewer, 1e-3).unmatched == 2


def test_boxes_that_overlap_by_just_the_threshold_are_rounding_and_those_beneath_them():
    kept = [0, 0, 10, 10]
    edge = [0, 0, 10, 6]  # an overlap of 0.6 with the kept one
    one = _found([kept, edge], [0.9, 0.5])
    other = _found([kept], [0.9])
    found = compare_boxes(one, other, META, 1e-3)
    assert (found.unmatched, found.borderline) == (0, 1)
    other = _found([kept, [0, 2.5, 10, 6]], [0.9, 0.4])  # what the edge would have suppressed
    assert compare_boxes(one, other, META, 1e-3).unmatched == 0


def test_a_nan_is_never_within_limits():
    other = _found([[0, 0, 10, 10], [50, 50, 90, 80]], [0.9, np.nan], [1, 2], [-3.0, -4000.0])
    found = compare.Differences()
    found.note(score=compare_boxes(FIRST, other, META, 1e-3).score)
    assert found.beyond(LIMIT)


class _Reference:
    """The other side, with results of its own."""

    def __init__(self, results):
        self.results = results

    def predict(self, images, batch_size):
        yield from self.results[: len(images)]


def _compare(own, theirs, task="detection"):
    picture = np.zeros((8, 8, 3), np.uint8)
    model = ExportedModel.of_graph(None, dataclasses.replace(META, task=task))
    model.run = lambda batch: [own] * len(batch)
    return compare.compare(model, _Reference([theirs] * 9), [picture] * 3)


def test_a_comparison_sums_up_and_judges():
    moved = _found([[0, 0, 10, 10.75], [50, 50, 90, 80]], [0.9, 0.4], [1, 2], [-3.0, -4000.0])
    found = _compare(moved, FIRST)
    assert found.images == 3 and found.compared == 12
    assert found.largest["box"] == 0.75
    [reason] = found.beyond(LIMIT)
    assert "box: 6 of 12 differ by more than 0.5, at most 0.75" in reason
    assert "largest differences: score 0, box 0.75 px" in found.line()
    assert not _compare(FIRST, FIRST).beyond(LIMIT)


def test_no_box_on_any_image_is_no_comparison():
    with pytest.raises(ExportError, match=r"nothing was compared.*--images DIR"):
        _compare(_found([], []), _found([], []))


def test_boxes_on_one_side_alone_are_a_difference_and_not_nothing():
    assert _compare(FIRST, _found([], [])).beyond(LIMIT)


def test_pixels_may_be_tied_now_and_then():
    labels = np.zeros((100, 100), np.int32)
    flipped = labels.copy()
    flipped[0, :5] = 1
    assert not _compare(LabelMap(flipped), LabelMap(labels), "segmentation").beyond(LIMIT)
    flipped[0, :50] = 1
    assert _compare(LabelMap(flipped), LabelMap(labels), "segmentation").beyond(LIMIT)
    with pytest.raises(ExportError, match="labels are"):
        _compare(LabelMap(flipped[1:]), LabelMap(labels), "segmentation")


def test_embeddings_are_compared_beside_their_size():
    one = Embedding(np.array([100.0, 2.0], np.float32))
    near = Embedding(np.array([100.05, 2.0], np.float32))
    far = Embedding(np.array([100.2, 2.0], np.float32))
    assert not _compare(near, one, "face").beyond(LIMIT)
    assert _compare(far, one, "face").beyond(LIMIT)
