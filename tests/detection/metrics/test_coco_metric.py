"""CocoMetric as used by a config."""

from __future__ import annotations

import copy
import json
import logging
import math
import re
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from helpers.coco_cases import random_case
from mmengine.logging import MMLogger
from mmengine.structures import InstanceData
from oracles.coco import direct_stats

from negvision.detection.datasets import CocoDataset
from negvision.detection.metrics import CocoMetric, OODBoxMetric
from negvision.detection.metrics.error_kinds import error_kinds
from negvision.engine.metrics import require_truth, settle_for_test
from negvision.errors import ConfigError, DatasetError

NAMES = ("mAP", "mAP_50", "mAP_75", "mAP_s", "mAP_m", "mAP_l")
RECALLS = ("AR@1", "AR@10", "AR@100", "AR_s@100", "AR_m@100", "AR_l@100")


def write(tmp_path, ground_truth):
    path = tmp_path / "instances.json"
    path.write_text(json.dumps(ground_truth))
    return str(path)


def samples_of(ground_truth, detections, classes):
    """Data samples as MMEngine passes them to a metric, from detections in COCO's format."""
    names = {category["id"]: category["name"] for category in ground_truth["categories"]}
    samples = []
    for image in ground_truth["images"]:
        here = [found for found in detections if found["image_id"] == image["id"]]
        boxes = torch.tensor([found["bbox"] for found in here], dtype=torch.float64)
        boxes = boxes.reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        samples.append(
            {
                "img_id": image["id"],
                "ori_shape": (image["height"], image["width"]),
                "pred_instances": {
                    "bboxes": boxes,
                    "scores": torch.tensor([found["score"] for found in here]).double(),
                    "labels": torch.tensor(
                        [classes.index(names[found["category_id"]]) for found in here],
                        dtype=torch.long,
                    ),
                },
            }
        )
    return samples


def classes_of(ground_truth):
    return tuple(category["name"] for category in ground_truth["categories"])


def evaluated(metric, classes, samples):
    metric.dataset_meta = {"classes": classes}
    for start in range(0, len(samples), 3):
        metric.process({}, samples[start : start + 3])
    return metric.evaluate(size=len(samples))


@pytest.fixture
def log(caplog):
    """The text logged by the current MMEngine logger."""
    logger = MMLogger.get_current_instance()
    logger.addHandler(caplog.handler)
    caplog.handler.setLevel(logging.INFO)
    yield caplog
    logger.removeHandler(caplog.handler)


@pytest.mark.parametrize("backend", ["ultrafast", "pycocotools"])
def test_equals_pycocotools_for_any_order_of_classes(tmp_path, backend):
    ground_truth, detections = random_case(11, most_detections=60)
    classes = classes_of(ground_truth)
    metric = CocoMetric(write(tmp_path, ground_truth), backend=backend)
    values = evaluated(metric, classes, samples_of(ground_truth, detections, classes))

    ids = [category["id"] for category in ground_truth["categories"]]
    expected = direct_stats(ground_truth, detections, ids)
    for name, value in zip(NAMES + RECALLS, expected, strict=True):
        assert values[f"coco/bbox_{name}"] == pytest.approx(value, abs=1e-12)
    for category in ground_truth["categories"]:
        alone = direct_stats(ground_truth, detections, [category["id"]])[0]
        key = f"coco/bbox_mAP/{category['name']}"
        assert values[key] == pytest.approx(alone, abs=1e-12), key
    mean = np.mean([values[f"coco/bbox_mAP/{name}"] for name in classes])
    assert mean == pytest.approx(values["coco/bbox_mAP"], abs=1e-12)


def test_absent_class_is_nan_and_a_dash(tmp_path, log):
    ground_truth, detections = random_case(7)
    ground_truth["categories"].append({"id": 50, "name": "nowhere"})
    classes = ("nowhere", *(category["name"] for category in ground_truth["categories"][:-1]))
    metric = CocoMetric(write(tmp_path, ground_truth))
    values = evaluated(metric, classes, samples_of(ground_truth, detections, classes))
    assert math.isnan(values["coco/bbox_mAP/nowhere"])
    assert not math.isnan(values["coco/bbox_mAP"])
    row = next(line for line in log.text.splitlines() if line.startswith("nowhere"))
    assert row.split() == ["nowhere", "0", "-", "-", "-", "-", "-", "-"]


def test_annotation_id_zero_counts(tmp_path):
    # COCO marks unmatched objects with id 0, so an object with that id would never be found.
    ground_truth, _ = random_case(2, crowd=0.0)
    for number, annotation in enumerate(ground_truth["annotations"]):
        annotation["id"] = number
    classes = classes_of(ground_truth)
    perfect = [
        {**{k: a[k] for k in ("image_id", "category_id", "bbox")}, "score": 0.9}
        for a in ground_truth["annotations"]
    ]
    metric = CocoMetric(write(tmp_path, ground_truth))
    values = evaluated(metric, classes, samples_of(ground_truth, perfect, classes))
    assert values["coco/bbox_mAP"] == pytest.approx(1.0, abs=1e-9)


def test_masks(tmp_path):
    size = 64
    ground_truth = {
        "images": [{"id": 1, "file_name": "1.png", "width": size, "height": size}],
        "annotations": [
            {
                "id": 1,
                "image_id": 1,
                "category_id": 4,
                "bbox": [8, 8, 16, 16],
                "area": 256,
                "iscrowd": 0,
                "segmentation": [[8, 8, 24, 8, 24, 24, 8, 24]],
            }
        ],
        "categories": [{"id": 4, "name": "square"}],
    }
    mask = torch.zeros(1, size, size, dtype=torch.bool)
    mask[0, 8:24, 8:20] = True  # 3/4 of the object: found up to IoU 0.75
    predicted = InstanceData(
        bboxes=torch.tensor([[8.0, 8.0, 24.0, 24.0]]),
        scores=torch.tensor([0.9]),
        labels=torch.tensor([0]),
        masks=mask,
    )
    for backend in ("ultrafast", "pycocotools"):
        metric = CocoMetric(write(tmp_path, ground_truth), metric=["bbox", "segm"], backend=backend)
        values = evaluated(metric, ("square",), [{"img_id": 1, "pred_instances": predicted}])
        assert values["coco/bbox_mAP"] == pytest.approx(1.0, abs=1e-12)
        assert values["coco/segm_mAP"] == pytest.approx(0.6, abs=1e-12)
        assert values["coco/segm_mAP/square"] == pytest.approx(0.6, abs=1e-12)


def test_masks_missing_are_errors(tmp_path):
    ground_truth, detections = random_case(0)
    path = write(tmp_path, ground_truth)
    with pytest.raises(DatasetError, match=r"needs a mask of every object:\n.* x missing mask"):
        CocoMetric(path, metric="segm")
    for annotation in ground_truth["annotations"]:
        annotation["segmentation"] = [[0, 0, 9, 0, 9, 9]]
    metric = CocoMetric(write(tmp_path, ground_truth), metric="segm")
    classes = classes_of(ground_truth)
    with pytest.raises(ConfigError, match="needs masks"):
        evaluated(metric, classes, samples_of(ground_truth, detections, classes))


def test_without_annotations_there_are_no_figures(tmp_path, log):
    ground_truth, detections = random_case(3)
    classes = classes_of(ground_truth)
    samples = samples_of(ground_truth, detections, classes)
    ground_truth["annotations"] = []
    for _ in ("an empty list", "no list"):
        metric = CocoMetric(write(tmp_path, ground_truth))
        assert evaluated(metric, classes, samples) == {}
        with pytest.raises(ConfigError, match=r"instances\.json: has no annotations.*--out FILE"):
            require_truth(SimpleNamespace(metrics=[metric]))
        ground_truth.pop("annotations", None)
    with pytest.raises(DatasetError, match="a list 'annotations'; found nothing"):
        OODBoxMetric(write(tmp_path, ground_truth))


def test_non_finite_detections_are_dropped_with_a_warning(tmp_path, log):
    ground_truth, detections = random_case(6, most_detections=40)
    classes = classes_of(ground_truth)
    path = write(tmp_path, ground_truth)
    clean = samples_of(ground_truth, detections, classes)
    expected = evaluated(CocoMetric(path), classes, copy.deepcopy(clean))
    for sample in clean:
        predicted = sample["pred_instances"]
        broken = torch.tensor([[1.0, float("nan"), 9.0, 9.0], [0.0, 0.0, float("inf"), 9.0]])
        predicted["bboxes"] = torch.cat([predicted["bboxes"], broken])
        predicted["scores"] = torch.cat([predicted["scores"], torch.tensor([0.9, 0.9])])
        predicted["labels"] = torch.cat([predicted["labels"], torch.tensor([0, 0])])
    assert evaluated(CocoMetric(path), classes, clean) == pytest.approx(expected, nan_ok=True)
    assert f"{2 * len(clean)} detections with a NaN or infinite" in log.text


def test_images_not_predicted_are_reported(tmp_path, log):
    ground_truth, detections = random_case(8)
    classes = classes_of(ground_truth)
    samples = samples_of(ground_truth, detections, classes)
    evaluated(CocoMetric(write(tmp_path, ground_truth)), classes, samples[:-2])
    assert "2 of 8 images" in log.text


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "does not exist"),
        ('{"images": [', "is not JSON"),
        ('{"images": []}', "has a list 'categories'; found nothing"),
    ],
)
def test_bad_files(tmp_path, content, message):
    path = tmp_path / "truth.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises((ValueError, FileNotFoundError), match=rf"truth\.json.*{message}"):
        CocoMetric(str(path))


def test_what_is_no_object_in_training_is_none_here(tmp_path, log):
    root = tmp_path
    (root / "1.png").write_bytes(b"")
    truth, _ = random_case(0, images=1)
    truth["images"][0].update(id=1, file_name="1.png")
    box = {"image_id": 1, "category_id": 1, "area": 900}
    kinds = [
        {"bbox": [10, 10, 30, 30]},
        {"bbox": [50, 10, 30, 30], "ignore": 1},
        {"bbox": [90, 10, 30, 30], "iscrowd": 1},
        {"bbox": [10, 50, 0.5, 30]},
        {"bbox": [230, 10, 60, 30], "ignore": 0},
        {"bbox": [10, 90, 30, 30], "category_id": 4321},
        {"bbox": [10, 90, 30, 30], "image_id": 4321},
        {"bbox": [10, 90, float("nan"), 30]},
        {"bbox": [600, 90, 30, 30]},
    ]
    truth["annotations"] = [{"id": i, **box, **kind} for i, kind in enumerate(kinds)]
    path = write(tmp_path, truth)
    dataset = CocoDataset(ann_file=path, data_prefix={"img": str(root)}, on_bad_sample="skip")
    trained = [
        (instance["bbox"], instance["ignore_flag"])
        for instance in dataset.get_data_info(0)["instances"]
    ]
    metric = CocoMetric(path)
    evaluated_boxes = [
        ([x, y, x + w, y + h], annotation["iscrowd"])
        for annotation in metric.ground_truth["annotations"]
        for x, y, w, h in [annotation["bbox"]]
    ]
    assert evaluated_boxes == trained
    assert [flag for _, flag in trained] == [0, 1, 1, 0]

    perfect = [
        {"image_id": 1, "category_id": 1, "bbox": [x, y, x2 - x, y2 - y], "score": 0.9}
        for (x, y, x2, y2), _ in trained
    ]
    values = evaluated(metric, ("class 1",), samples_of(truth, perfect, ("class 1",)))
    assert values["coco/bbox_mAP"] == pytest.approx(1.0, abs=1e-9)
    assert "1 images, 2 objects, 2 ignored, 4 detections" in log.text
    assert "1 x unknown category id" in log.text and "narrower than a pixel" in log.text


def test_image_ids_may_be_text(tmp_path):
    truth, detections = random_case(11, most_detections=60)
    classes = classes_of(truth)
    expected = evaluated(
        CocoMetric(write(tmp_path, truth)), classes, samples_of(truth, detections, classes)
    )
    for image in truth["images"]:
        image["id"] = f"{image['id']:04}"  # sorted like the numbers
    for record in (*truth["annotations"], *detections):
        record["image_id"] = f"{record['image_id']:04}"
    for backend in ("ultrafast", "pycocotools"):
        metric = CocoMetric(write(tmp_path, truth), backend=backend)
        assert evaluated(metric, classes, samples_of(truth, detections, classes)) == expected


def test_intervals_enclose_the_figures_and_widen_with_scenes(tmp_path, log):
    truth, detections = random_case(11, images=40, most_detections=40)
    for number, image in enumerate(truth["images"]):
        image["video"] = number // 20
    classes, path = classes_of(truth), write(tmp_path, truth)
    samples = samples_of(truth, detections, classes)
    alone = evaluated(CocoMetric(path), classes, samples)
    metric = CocoMetric(path, resamples=200)
    values = evaluated(metric, classes, samples)
    assert {name: values[name] for name in alone} == pytest.approx(alone, nan_ok=True)
    assert set(values) == {f"coco/{name}" for name in metric.names()}
    for name in ("mAP", "mAP_50", "AR@100"):
        value = values[f"coco/bbox_{name}"]
        assert values[f"coco/bbox_{name}_low"] < value < values[f"coco/bbox_{name}_high"]
    assert "200 resamples of 40 images" in log.text
    assert re.search(r"\n( +0\.\d{3}){12}   lower end of the 95 % interval\n", log.text)
    evaluated(CocoMetric(path, resamples=50, group_by="video"), classes, samples)
    assert "50 resamples of 2 values of video" in log.text
    with pytest.raises(ConfigError, match=r"40 of 40 images have no 'scene'.*file_name.*video"):
        CocoMetric(path, group_by="scene")


def test_a_test_has_intervals_and_a_validation_none(tmp_path):
    path = write(tmp_path, random_case(0)[0])
    metrics = [CocoMetric(path), CocoMetric(path, resamples=0), CocoMetric(path, resamples=7)]
    assert not any("low" in name or "cost" in name for name in metrics[0].names())
    settle_for_test(SimpleNamespace(metrics=metrics))
    assert [metric.resamples for metric in metrics] == [1000, 0, 7]
    assert all(metric.errors for metric in metrics)


def test_errors_are_told_apart(tmp_path, log):
    truth, detections = random_case(11, crowd=0.0)
    classes = classes_of(truth)
    metric = CocoMetric(write(tmp_path, truth), errors=True)
    values = evaluated(metric, classes, samples_of(truth, detections, classes))
    assert set(values) == {f"coco/{name}" for name in metric.names()}
    ids = [category["id"] for category in truth["categories"]]
    costs = error_kinds(truth, detections, ids).mean_costs()
    assert values["coco/bbox_cost/localization"] == pytest.approx(costs["localization"], abs=1e-12)
    assert f"AP50 lost by kind of error: classification {costs['classification']:.3f}" in log.text


def test_a_file_without_a_usable_annotation_is_an_error(tmp_path):
    truth, _ = random_case(0)
    for annotation in truth["annotations"]:
        annotation["image_id"] = 4321
    with pytest.raises(ValueError, match=r"metric cannot use this file:\n.* not list\n.*4321"):
        CocoMetric(write(tmp_path, truth))


def test_bad_classes(tmp_path):
    ground_truth, _ = random_case(0)
    metric = CocoMetric(write(tmp_path, ground_truth))
    with pytest.raises(ValueError, match=r"(?s)'clas 90'.*nearest: 'class 90'"):
        metric.dataset_meta = {"classes": ("class 1", "clas 90")}
    ground_truth["categories"].append({"id": 77, "name": "class 1"})
    with pytest.raises(ValueError, match="2 categories have the name 'class 1'"):
        CocoMetric(write(tmp_path, ground_truth))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"img_id": 99999}, "1 x image that is not in the file.*99999"),
        ({"img_path": "val/other.jpg"}, r"1 x image of another name.*val/other\.jpg"),
    ],
)
def test_predicted_images_are_those_of_the_file(tmp_path, changes, message):
    ground_truth, detections = random_case(0)
    classes = classes_of(ground_truth)
    samples = samples_of(ground_truth, detections, classes)
    samples[0] |= changes
    with pytest.raises(ConfigError, match=f"(?s){message}"):
        evaluated(CocoMetric(write(tmp_path, ground_truth)), classes, samples)


def test_images_of_two_files_with_one_id_are_refused(tmp_path):
    ground_truth, detections = random_case(0)
    classes = classes_of(ground_truth)
    samples = samples_of(ground_truth, detections, classes)
    name = ground_truth["images"][0]["file_name"]
    samples += [{**samples[0], "img_path": f"two/{name}"}]
    samples[0]["img_path"] = f"one/{name}"
    with pytest.raises(ConfigError, match=rf"1 x id of two images.*\n.*one/{name} and two/{name}"):
        evaluated(CocoMetric(write(tmp_path, ground_truth)), classes, samples)


@pytest.mark.parametrize(
    "argument",
    [
        {"metric": "proposal"},
        {"metric": []},
        {"backend": "numpy"},
        {"max_dets": (0, 10)},
        {"max_dets": ()},
        {"area_limits": (96, 32)},
        {"resamples": -1},
    ],
)
def test_bad_arguments(tmp_path, argument):
    ground_truth, _ = random_case(0)
    with pytest.raises(ValueError, match=next(iter(argument))):
        CocoMetric(write(tmp_path, ground_truth), **argument)
