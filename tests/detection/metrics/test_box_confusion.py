"""The confusion matrix of boxes against its definition in plain Python."""

import numpy as np
import pytest

from negvision.detection.metrics.box_confusion import box_confusion

IDS = [4, 2, 9]


def iou_of(a, b, of_first=False):
    width = min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0])
    height = min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1])
    both = max(width, 0) * max(height, 0)
    whole = a[2] * a[3] if of_first else a[2] * a[3] + b[2] * b[3] - both
    return both / whole


def slow_confusion(annotations, detections, score, iou):
    counts = [[0] * 4 for _ in range(4)]
    for image in {one["image_id"] for one in annotations + detections}:
        objects = [a for a in annotations if a["image_id"] == image]
        crowds = [a for a in objects if a["iscrowd"]]
        objects = [a for a in objects if not a["iscrowd"]]
        taken = set()
        mine = [d for d in detections if d["image_id"] == image and d["score"] >= score]
        for detection in sorted(mine, key=lambda d: -d["score"]):
            best, most = None, -1
            for index, item in enumerate(objects):
                overlap = iou_of(detection["bbox"], item["bbox"])
                if index not in taken and overlap > most:
                    best, most = index, overlap
            column = IDS.index(detection["category_id"])
            if most >= iou:
                taken.add(best)
                counts[IDS.index(objects[best]["category_id"])][column] += 1
            elif not any(iou_of(detection["bbox"], c["bbox"], True) >= iou for c in crowds):
                counts[3][column] += 1
        for index, item in enumerate(objects):
            if index not in taken:
                counts[IDS.index(item["category_id"])][3] += 1
    return counts


def draw(rng, count, image_count=4):
    """Boxes on a coarse grid, so that many overlap and tie."""
    for _ in range(count):
        x, y = (rng.integers(0, 6, 2) * 4).tolist()
        width, height = (rng.integers(1, 4, 2) * 6).tolist()
        yield {
            "image_id": int(rng.integers(image_count)),
            "category_id": IDS[int(rng.integers(3))],
            "bbox": [x, y, width, height],
        }


@pytest.mark.parametrize("seed", range(20))
def test_equals_the_definition(seed):
    rng = np.random.default_rng(seed)
    annotations = [{**box, "iscrowd": int(rng.random() < 0.15)} for box in draw(rng, 25)]
    scores = (rng.integers(0, 10, 60) / 10).tolist()
    detections = [{**box, "score": score} for box, score in zip(draw(rng, 60), scores, strict=True)]
    for score, iou in ((0.3, 0.5), (0.0, 0.2), (0.6, 0.75)):
        found = box_confusion({"annotations": annotations}, detections, IDS, score, iou)
        assert found.tolist() == slow_confusion(annotations, detections, score, iou)
        # Each object stands in one place of its row.
        objects = [a["category_id"] for a in annotations if not a["iscrowd"]]
        assert found.sum(1)[:3].tolist() == [objects.count(category) for category in IDS]


def test_nothing_found_and_nothing_there():
    box = {"image_id": 1, "category_id": 9, "bbox": [0, 0, 5, 5]}
    missed = box_confusion({"annotations": [{**box, "iscrowd": 0}]}, [], IDS)
    assert missed[2, 3] == 1 == missed.sum()
    invented = box_confusion({"annotations": []}, [{**box, "score": 0.9}], IDS)
    assert invented[3, 2] == 1 == invented.sum()
    assert not box_confusion({"annotations": []}, [{**box, "score": 0.29}], IDS).any()


def test_an_object_under_another_class_is_one_error():
    box = {"image_id": 1, "category_id": 4, "bbox": [0, 0, 5, 5]}
    found = [{**box, "category_id": 2, "score": 0.9}, {**box, "score": 0.8}]
    counts = box_confusion({"annotations": [{**box, "iscrowd": 0}]}, found, IDS)
    assert counts[0, 1] == 1  # the higher score took it
    assert counts[3, 0] == 1 and counts.sum() == 2
