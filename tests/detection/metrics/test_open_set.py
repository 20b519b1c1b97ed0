"""Figures of unknown objects, against a loop over boxes and objects."""

import json

import numpy as np
import pytest
from helpers.ood_boxes import Case

from negvision.detection.metrics.box_matching import precision_threshold
from negvision.detection.metrics.open_set import OpenSetImage, open_set_figures
from negvision.errors import ConfigError

NONE = np.zeros((0, 4))


def iou(a, b):
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    shared = max(width, 0) * max(height, 0)
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (a, b)]
    return shared / (sum(areas) - shared)


def oracle(known, unknown, class_score):
    """Recall, errors and number of objects; and the hits of the boxes by OOD score."""
    inside = sorted(
        s for one in known for s, c in zip(one.ood_scores, one.class_scores, strict=True)
        if c >= class_score
    )  # fmt: skip
    limit = inside[int(np.ceil(0.95 * len(inside))) - 1] if inside else np.inf
    called = mistaken = 0
    for one in unknown:
        free = list(range(len(one.unknown)))
        for row in sorted(range(len(one.boxes)), key=lambda row: -one.class_scores[row]):
            if one.class_scores[row] < class_score:
                continue
            best = max(free, key=lambda k: iou(one.boxes[row], one.unknown[k]), default=None)
            if best is not None and iou(one.boxes[row], one.unknown[best]) >= 0.5:
                free.remove(best)
                called += one.ood_scores[row] > limit
                mistaken += one.ood_scores[row] <= limit
    objects = sum(len(one.unknown) for one in unknown)
    return called / objects if objects else 0.0, mistaken, objects


def random_image(rng, boxes, objects):
    """Boxes near the objects, of integer sides, so that an IoU of 0.5 occurs."""
    truth = rng.integers(0, 30, (objects, 2)).repeat(2, 0).reshape(objects, 4)
    truth[:, 2:] += rng.integers(4, 12, (objects, 2))
    chosen = truth[rng.integers(objects, size=boxes)] if objects else rng.integers(0, 9, (boxes, 4))
    found = chosen + rng.integers(-1, 2, (boxes, 4))
    found[:, 2:] = np.maximum(found[:, 2:], found[:, :2] + 1)
    return OpenSetImage(
        found.astype(float), rng.permutation(boxes) / 10, rng.normal(size=boxes).round(1), truth
    )


@pytest.mark.parametrize("seed", range(8))
def test_random_images_equal_the_loop(seed):
    rng = np.random.default_rng(seed)
    known = [random_image(rng, rng.integers(0, 7), 0) for _ in range(5)]
    unknown = [random_image(rng, rng.integers(0, 9), rng.integers(0, 5)) for _ in range(6)]
    for class_score in (0.0, 0.3):
        found = open_set_figures(known, unknown, class_score)
        recall, mistaken, objects = oracle(known, unknown, class_score)
        assert found["unknown_recall"] == pytest.approx(recall)
        assert (found["open_set_error"], found["unknown_objects"]) == (mistaken, objects)


def test_average_precision_ranks_the_boxes_of_all_images_by_their_ood_score():
    box = np.array([[0.0, 0, 10, 10]])
    known = [OpenSetImage(box, np.array([0.9]), np.array([-1.5]), NONE)]
    unknown = [OpenSetImage(box, np.array([0.8]), np.array([s]), box) for s in (-1.0, -2.0)]
    # The box on the ID image is between the two hits.
    found = open_set_figures(known, unknown, 0.5)["unknown_ap50"]
    assert found == pytest.approx((51 * 1 + 50 * 2 / 3) / 101, abs=1e-6)
    # Without a box, and without an object.
    assert open_set_figures(known, unknown, 0.95)["unknown_ap50"] == 0
    assert open_set_figures(known, known, 0.5)["unknown_ap50"] == 0


def test_the_lowest_score_of_a_precision_counts_equal_scores_together():
    truth = {
        "annotations": [
            {"image_id": 1, "category_id": 7, "bbox": [k * 20, 0, 10, 10], "iscrowd": 0}
            for k in range(3)
        ]
    }

    def found(x, score):
        return {"image_id": 1, "category_id": 7, "bbox": [x, 0, 10, 10], "score": score}

    boxes = [found(0, 0.9), found(200, 0.8), found(20, 0.7), found(40, 0.7), found(300, 0.1)]
    assert precision_threshold(truth, boxes, 0.75) == 0.7
    assert precision_threshold(truth, boxes, 0.76) == 0.9
    assert precision_threshold(truth, boxes[1:2], 0.1) is None
    assert precision_threshold(truth, [], 0.5) is None


@pytest.fixture
def case(tmp_path):
    """Half of the OOD images in each of two files, every second box an unknown object."""
    case = Case(tmp_path)
    for part, samples in enumerate((case.unknown[:3], case.unknown[3:])):
        annotations = []
        for sample in samples:
            for box in sample["pred_instances"]["bboxes"][::2].tolist():
                sides = [box[0], box[1], box[2] - box[0], box[3] - box[1]]
                annotations.append(
                    {"id": len(annotations) + 1, "image_id": sample["img_id"], "bbox": sides,
                     "category_id": 5, "iscrowd": 0, "area": sides[2] * sides[3]}
                )  # fmt: skip
        images = [
            {"id": s["img_id"], "file_name": s["img_path"].split("/")[1], "width": 640,
             "height": 640} for s in samples
        ]  # fmt: skip
        content = {"images": images, "annotations": annotations}
        content["categories"] = [{"id": 5, "name": "unknown"}]
        (tmp_path / f"part{part}.json").write_text(json.dumps(content))
    case.files = {"near": str(tmp_path / "part0.json"), "far": str(tmp_path / "part1.json")}
    return case


def test_the_metric_adds_the_figures_of_each_file(case):
    values = case.evaluated(ood_ann_file=case.files, id_precision=0.5)
    for key in ("unknown_objects", "open_set_error"):
        assert values[f"ood/{key}"] == values[f"ood/near/{key}"] + values[f"ood/far/{key}"]
    assert values["ood/unknown_objects"] > 5 and 0 <= values["ood/unknown_recall"] <= 1
    assert 0 <= values["ood/near/auroc"] <= 1
    plain = case.evaluated()
    assert {key: values[key] for key in plain} == plain
    assert -1 <= plain["ood/class_score_correlation"] <= 1
    one = case.evaluated(case.known + case.unknown[:3], ood_ann_file=case.files["near"])
    assert one["ood/unknown_objects"] == values["ood/near/unknown_objects"]
    assert not any("near" in key for key in one)


def test_an_ood_image_of_no_file_is_named(case):
    with pytest.raises(ConfigError, match=r"image ood/\S+ \(id \S+\) is not in ood_ann_file"):
        case.evaluated(ood_ann_file=case.files["near"])
    with pytest.raises(ValueError, match="id_precision must be above 0"):
        case.metric(id_precision=0)


def test_a_score_that_follows_the_class_score_is_warned_of(case, capsys):
    for sample in case.known + case.unknown:
        found = sample["pred_instances"]
        found["ood_score"] = -found["scores"]
    assert case.evaluated()["ood/class_score_correlation"] == pytest.approx(-1)
    assert "rank correlation -1.00" in capsys.readouterr().out
