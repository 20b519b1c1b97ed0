"""Sections for detectors, from handmade predictions."""

import json
import re

import numpy as np
import pytest
import torch
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData

from negvision.data.reliability import reliability
from negvision.detection.metrics.coco_annotations import load_coco_annotations
from negvision.detection.metrics.coco_evaluation import evaluate_coco
from negvision.detection.metrics.error_kinds import KINDS, error_kinds
from negvision.report import detection_sections
from negvision.report.detection_sections import DetectionCollector

CLASSES, IDS = ("cat", "dog", "owl"), (7, 3, 5)


@pytest.fixture
def ann_file(tmp_path):
    rng = np.random.default_rng(0)
    annotations = [
        {
            "id": number + 1,
            "image_id": number % 6,
            "category_id": IDS[number % 2],
            "bbox": [*rng.integers(0, 60, 2).tolist(), *rng.integers(10, 60, 2).tolist()],
            "iscrowd": 0,
        }
        for number in range(20)
    ]
    content = {
        "images": [
            {"id": index, "file_name": f"{index}.jpg", "width": 128, "height": 128}
            for index in range(6)
        ],
        "annotations": annotations,
        "categories": [{"id": i, "name": n} for i, n in zip(IDS, CLASSES, strict=True)],
    }
    path = tmp_path / "annotations.json"
    path.write_text(json.dumps(content))
    return path


def predictions(ann_file, is_ood=False):
    """Each object, moved slightly, some with another class."""
    rng = np.random.default_rng(1)
    annotations = json.loads(ann_file.read_text())["annotations"]
    for image_id in range(6):
        own = [one for one in annotations if one["image_id"] == image_id]
        boxes = torch.tensor([one["bbox"] for one in own], dtype=torch.float32)
        boxes[:, 2:] += boxes[:, :2]
        boxes += torch.from_numpy(rng.normal(0, 2, boxes.shape)).float()
        labels = [IDS.index(one["category_id"]) if rng.random() < 0.8 else 2 for one in own]
        found = InstanceData(
            bboxes=boxes, labels=torch.tensor(labels), scores=torch.from_numpy(rng.random(len(own)))
        )
        meta = {"img_id": image_id, "img_path": f"{is_ood}/{image_id}.jpg", "is_ood": is_ood}
        yield DetDataSample(metainfo=meta, pred_instances=found)


def sections_of(ann_file, samples, **evaluator):
    collector = DetectionCollector(
        torch.nn.Identity(), CLASSES, {"ann_file": str(ann_file), **evaluator}
    )
    collector.add([None] * len(samples), samples)
    return {section.anchor: section for section in collector.sections()}


def test_metrics_are_those_of_known_images(ann_file):
    samples = list(predictions(ann_file))
    # OOD images from another data set, with the same image ids.
    sections = sections_of(ann_file, [*samples, *predictions(ann_file, is_ood=True)])
    shift = torch.tensor([0, 0, 1, 1])  # from corners to width and height
    detections = [
        {
            "image_id": sample.img_id,
            "category_id": IDS[int(one.labels[0])],
            "bbox": (one.bboxes - one.bboxes[:, [0, 1, 0, 1]] * shift)[0].tolist(),
            "score": float(one.scores[0]),
        }
        for sample in samples
        for one in sample.pred_instances
    ]
    result = evaluate_coco(load_coco_annotations(ann_file), detections, IDS)
    overall, by_class = sections["metrics"].parts
    assert {row.name: row.values[0] for row in overall.rows} == pytest.approx(
        result.metrics(), nan_ok=True
    )
    rows = {row.name: row.values for row in by_class.rows}
    assert list(rows) == list(CLASSES)
    assert rows["dog"][0] == pytest.approx(result.average_precision(category_id=3))
    assert [rows[name][-1] for name in CLASSES] == [10, 10, 0]
    assert re.search(r"; 95 % interval 0\.\d{3} to [01]\.\d{3}$", overall.rows[0].meaning)
    kinds, of_classes = sections["errors"].parts
    assert [row.name for row in kinds.rows][:6] == list(KINDS) == list(of_classes.columns)
    costs = error_kinds(load_coco_annotations(ann_file), detections, IDS)
    assert [row.values[0] for row in kinds.rows][:6] == [costs.mean_costs()[name] for name in KINDS]
    assert of_classes.rows[1].values[0] == costs.costs["classification"][0]  # dog has id 3
    table, curves = sections["calibration"].parts
    calibration = reliability(costs.scores, costs.hits)
    assert table.rows[0].values == pytest.approx(
        [calibration.error, calibration.mean_confidence, calibration.mean_precision]
        + [calibration.total]
    )
    assert sum(row.values[3] for row in table.rows[1:]) == calibration.total
    assert {plot.title for plot in curves.plots} == {"all classes", *CLASSES}
    [matrix] = sections["confusion"].parts
    assert sum(map(sum, matrix.counts[:3])) == 20
    [plots] = sections["precision"].parts
    # The third class has no objects.
    assert [plot.title for plot in plots.plots] == ["mean of all classes", "cat", "dog"]
    # The mean of 101 points is the AP.
    assert f"IoU 0.5 {result.average_precision(iou=0.5):.3f}" in plots.plots[0].alt


def test_limits_of_the_evaluator_are_used(ann_file):
    samples = list(predictions(ann_file))
    rows = sections_of(ann_file, samples, max_dets=(1, 2), area_limits=(1.0, 2.0))
    names = [row.name for row in rows["metrics"].parts[0].rows]
    assert "AR@2" in names and "AR_l@2" in names


def test_missing_parts_are_explained(ann_file):
    collector = DetectionCollector(torch.nn.Identity(), CLASSES, {})
    collector.add([None] * 6, predictions(ann_file))
    sections = {section.anchor: section for section in collector.sections()}
    for name in ("metrics", "precision", "errors", "calibration", "confusion"):
        assert "no COCO annotations" in sections[name].missing
    assert "no losses of single images: Identity cannot be trained" in sections["worst"].missing
    empty = DetectionCollector(torch.nn.Identity(), CLASSES, {"ann_file": str(ann_file)}).sections()
    assert empty[0].parts[0].rows[0].values == [0.0]


def test_images_are_drawn_as_the_test_set_reads_them():
    """A file of 60 x 40 pixels that EXIF turns, and that the pipeline reads as stored or not."""
    none = np.zeros((0, 4), np.float32)
    seen = detection_sections._Seen(
        1, "a.jpg", none, np.zeros(0), np.zeros(0, int), None, none, none, {"loss": 1.0}, ""
    )
    for height, width in ((40, 60), (60, 40)):
        pixels = np.zeros((height, width, 3), np.uint8)
        [image] = detection_sections._drawn(seen, CLASSES, 0.3, lambda path, p=pixels: p).images
        assert (image.width > image.height) is (width > height)
