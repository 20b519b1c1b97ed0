"""OODBoxMetric as used by a config, against the written-out protocol."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from helpers.ood_boxes import FEW, Case
from mmengine.config import Config
from oracles.coco import direct_stats
from oracles.f1 import slow_threshold
from sklearn.metrics import average_precision_score, roc_auc_score

from negvision.detection.metrics import OODBoxMetric
from negvision.errors import ConfigError, DatasetError, OODDataError
from negvision.ood.records import OODRecords


@pytest.fixture
def case(tmp_path):
    return Case(tmp_path)


def protocol(case, threshold, score):
    """Scores and kinds of all boxes at a threshold, box by box; ``score`` of one box's fields."""
    scores, is_ood = [], []
    for sample in case.known + case.unknown:
        found = sample["pred_instances"]
        for row in range(len(found["scores"])):
            if found["scores"][row] >= threshold:
                z = found["logits"][row, :4].numpy()
                scores.append(score(z, float(found["temperature"][row])))
                is_ood.append(sample.get("is_ood", False))
    return np.array(scores), np.array(is_ood)


SLOW = {
    "abet": lambda z, t: -np.log(np.exp(z).sum()),
    "energy": lambda z, t: -t * np.log(np.exp(z).sum()),
    "msp": lambda z, t: -(np.exp(z) / np.exp(z).sum()).max(),
    "max_logit": lambda z, t: -z.max(),
    "entropy": lambda z, t: -(np.exp(z) / np.exp(z).sum() * (z - np.log(np.exp(z).sum()))).sum(),
}


@pytest.mark.parametrize("score_thr", ["f1", 0.0, 0.6, "the score of a box"])
def test_equals_the_written_out_protocol(case, score_thr):
    if score_thr == "the score of a box":
        score_thr = case.unknown[0]["pred_instances"]["scores"].median().item()
    values = case.evaluated(score_thr=score_thr)
    threshold = score_thr
    if score_thr == "f1":
        # Boxes change slightly through corners and back, but none is close to an IoU of 0.5.
        each = [slow_threshold(case.ground_truth, case.detections, c) for c in case.ids]
        threshold = np.mean([value for value in each if value is not None])
    assert values["ood/class_score_threshold"] == pytest.approx(threshold, abs=1e-12)
    for name, slow in SLOW.items():
        scores, is_ood = protocol(case, threshold, slow)
        prefix = "ood/" if name == "abet" else f"ood/{name}/"
        assert values[f"{prefix}auroc"] == pytest.approx(roc_auc_score(is_ood, scores), abs=1e-12)
        expected = average_precision_score(is_ood, scores)
        assert values[f"{prefix}ap_out"] == pytest.approx(expected, abs=1e-12)
        expected = average_precision_score(~is_ood, -scores)
        assert values[f"{prefix}ap_in"] == pytest.approx(expected, abs=1e-12)
    assert values["ood/num_ood"] == values["ood/ood_boxes_kept"] == is_ood.sum()
    assert values["ood/num_id"] == values["ood/id_boxes_kept"] == (~is_ood).sum()
    total = sum(len(s["pred_instances"]["scores"]) for s in case.unknown)
    assert values["ood/ood_boxes_found"] == total
    assert values["ood/id_boxes_found"] == len(case.detections)
    if score_thr == 0.0:
        assert values["ood/num_ood"] == total


def test_id_ap_equals_coco_on_the_id_images(case):
    values = case.evaluated()
    expected = direct_stats(case.ground_truth, case.detections, case.ids)
    assert values["ood/id_ap"] == pytest.approx(expected[0], abs=1e-12)
    assert values["ood/id_ap50"] == pytest.approx(expected[1], abs=1e-12)
    assert expected[0] > 0.01


def test_records_hold_boxes_and_strata(case, tmp_path):
    limits = (900.0, 8000.0)
    path = str(tmp_path / "scores.npz")
    case.evaluated(score_thr=0.5, scores_file=path, area_limits=limits)
    stored = OODRecords.load(path)
    assert list(stored.scores) == ["abet", "msp", "max_logit", "entropy", "energy"]
    assert stored.task == "boxes" and tuple(stored.classes) == case.classes
    everything = {s["img_path"]: s["pred_instances"] for s in case.known + case.unknown}
    assert stored.paths == sorted(everything)
    names, sizes = stored.strata["box size"]
    assert tuple(names) == ("small", "medium", "large")
    row = 0
    for index, image_path in enumerate(stored.paths):
        found = everything[image_path]
        for k in np.flatnonzero(found["scores"].numpy() >= 0.5):
            assert stored.image[row] == index
            assert stored.is_ood[row] == image_path.startswith("ood/")
            np.testing.assert_allclose(stored.boxes[row], found["bboxes"][k], rtol=1e-6)
            assert stored.labels[row] == stored.strata["class"][1][row] == found["labels"][k]
            assert stored.scores["abet"][row] == pytest.approx(found["ood_score"][k].item())
            x1, y1, x2, y2 = found["bboxes"][k].tolist()
            area = (x2 - x1) * (y2 - y1)
            assert sizes[row] == sum(area >= limit for limit in limits)
            row += 1
    assert row == len(stored.image) and len(set(sizes)) == 3


def test_combined_parts_equal_one(case):
    whole = case.metric()
    samples = case.known + case.unknown
    whole.process({}, samples)
    parts = [case.metric(), case.metric()]
    # As a distributed sampler splits them: alternating, with the first one twice.
    parts[0].process({}, samples[::2])
    parts[1].process({}, [*samples[1::2], samples[0]])
    combined = whole.combine([part.results for part in parts])
    assert len(combined) == len(samples) + 1
    assert whole.compute_metrics(combined) == whole.compute_metrics(whole.results)


def test_images_without_boxes_are_accepted(case):
    """Without proposals mmdet skips the box head, so its fields are missing."""
    bare = {
        "bboxes": torch.zeros(0, 4),
        "scores": torch.zeros(0),
        "labels": torch.zeros(0, dtype=torch.long),
    }
    expected = case.evaluated(score_thr=0.0)
    extra = {"img_id": 1, "img_path": "ood/bare.jpg", "is_ood": True, "pred_instances": bare}
    got = case.evaluated([extra, *case.known, *case.unknown], score_thr=0.0)
    assert got == expected


class TestErrors:
    def test_no_ood_image(self, case):
        with pytest.raises(OODDataError, match=r"none of the 8 images .* is OOD.*'is_ood' among"):
            case.evaluated(case.known)

    def test_no_detection_at_all(self, case):
        for sample in case.known + case.unknown:
            found = sample["pred_instances"]
            found |= {key: value[:0] for key, value in found.items() if torch.is_tensor(value)}
        with pytest.raises(OODDataError, match="no class score is best by F1: of 0 detections"):
            case.evaluated()
        message = "0 of 0 detections on ID images and 0 of 0 on OOD images"
        with pytest.raises(OODDataError, match=message):
            case.evaluated(score_thr=0.05)

    @pytest.mark.parametrize("value", [float("nan"), float("inf")])
    def test_scores_that_are_not_finite_are_counted(self, case, value):
        case.known[0]["pred_instances"]["ood_score"][:2] = value
        count = sum(len(s["pred_instances"]["scores"]) for s in case.known + case.unknown)
        with pytest.raises(OODDataError, match=f"2 of {count} OOD scores are not finite"):
            case.evaluated(score_thr=0.0)

    @pytest.mark.parametrize("field", ["ood_score", "logits"])
    def test_a_head_without_a_score(self, case, field):
        for sample in case.known + case.unknown:
            del sample["pred_instances"][field]
        with pytest.raises(ConfigError, match=r"AbeTBBoxHead .* negvision\.OODBBoxHead .*ATSSHead"):
            case.evaluated()

    @pytest.mark.parametrize("key", ["img_path", "img_id"])
    def test_a_sample_without_its_identity(self, case, key):
        del case.known[0][key]
        with pytest.raises(ConfigError, match=f"have no {key}; .* meta_keys"):
            case.evaluated()

    def test_an_image_that_the_file_lacks(self, case):
        case.known[0]["img_id"] = 99999
        with pytest.raises(
            ConfigError, match=r"(?s)id\.json.*not in the file\n.*id 99999: 'id/\d+\.jpg'"
        ):
            case.evaluated()

    def test_a_class_that_is_no_category_names_the_nearest(self, case):
        metric = OODBoxMetric(case.path, **FEW)
        with pytest.raises(DatasetError, match=r"(?s)'clas 90'.*nearest: 'class 90'"):
            metric.dataset_meta = {"classes": ("class 1", "clas 90")}

    def test_data_sets_of_different_classes(self, case):
        metric = OODBoxMetric(case.path, **FEW)
        with pytest.raises(ConfigError, match="the same classes, in the same order"):
            metric.dataset_meta = [{"classes": ("a",)}, {"classes": ("b",)}]

    @pytest.mark.parametrize(
        ("argument", "says"),
        [
            ({"score_thr": "best"}, "score_thr must be"),
            ({"score_thr": 1.5}, "got 1.5"),
            ({"score_thr": None}, "got None"),
            ({"score_thr": float("nan")}, "got nan"),
            ({"area_limits": (9, 3)}, "area_limits must be 0 < small < medium"),
            ({"scores": ("mps",)}, "got 'mps'; nearest: 'msp'"),
            ({"resamples": 0}, "resamples must be at least 1"),
        ],
    )
    def test_arguments(self, case, argument, says):
        with pytest.raises(ValueError, match=says):
            OODBoxMetric(case.path, **argument)


def test_from_the_data_set_to_the_table(tiny_detector, digits, tmp_path, monkeypatch):
    """MMEngine's loop with a detector, both kinds of images, and the drawn sheet."""
    from negvision.engine.runner import Runner

    drawn = []
    monkeypatch.setattr(
        "negvision.detection.prediction_hooks.draw_predictions",
        lambda image, *_, truth, ignored, **__: drawn.append((truth, ignored)) or image,
    )
    cfg: Config = tiny_detector("negvision.AbeTATSSHead")
    names = ("zero", "one", "two", "three", "four", "five", "six", "eight")
    known = cfg.val_dataloader.dataset
    known.ann_file = "annotations/instances_test_id.json"
    known.data_prefix = {"img": "test/"}
    known.metainfo = {"classes": names}
    known.pipeline[-1].meta_keys = (*known.pipeline[-1].meta_keys, "is_ood")
    unknown = {
        **known,
        "type": "negvision.OODCocoDataset",
        "ann_file": "annotations/instances_test_ood.json",
        "data_prefix": {"img": "test_ood/"},
    }
    unknown.pop("digits")
    cfg.val_dataloader.dataset = {"type": "ConcatDataset", "datasets": [known, unknown]}
    cfg.val_evaluator = {
        "type": "negvision.OODBoxMetric",
        "ann_file": str(digits / "annotations" / "instances_test_id.json"),
        "score_thr": 0.0,
        "resamples": 3,
    }
    cfg.model.bbox_head.num_classes = 8
    cfg.custom_hooks = [{"type": "negvision.PredictionSheetHook", "num_images": 18}]
    runner = Runner.from_cfg(cfg)
    values = runner.val()
    assert values["ood/num_ood"] > 0 and values["ood/num_id"] > 0
    assert {"ood/auroc", "ood/energy/auroc", "ood/id_ap"} <= values.keys()
    stored = OODRecords.load(next((tmp_path / "work").rglob("ood_scores.npz")))
    assert len(stored.paths) == len(runner.val_dataloader.dataset) > 6
    assert sum("test_ood" in path for path in stored.paths) == 6
    # Ids of the two sets clash; the sheet has every image, including those with unknown objects.
    assert len(drawn) == len(stored.paths)
    assert all(ignored and not truth for truth, ignored in drawn[-6:])
