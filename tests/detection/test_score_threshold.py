"""The score threshold with the best F1: found, stored, kept and shown."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from helpers.coco_cases import random_case
from helpers.tiny_training import make_runner
from mmdet.structures import DetDataSample
from mmengine.hooks import Hook
from mmengine.structures import InstanceData
from oracles.f1 import counts

from negvision import Inferencer
from negvision.data.score_threshold import FIXED, ScoreThreshold, shown_from
from negvision.detection import score_threshold_hook
from negvision.detection.score_threshold_hook import ScoreThresholdHook
from negvision.engine.runner import Runner
from negvision.errors import CheckpointError
from negvision.export.graphs.choice import graph_and_metadata
from negvision.inference.weights import load_model


class Data(list):
    get_data_info = list.__getitem__


def corners(box):
    return [box[0], box[1], box[0] + box[2], box[1] + box[3]]


def validated(truth, detections, **info):
    """What the hook finds in one validation, over two batches."""
    ids = [image["id"] for image in truth["images"]]
    objects = {image_id: [] for image_id in ids}
    for one in truth["annotations"]:
        objects[one["image_id"]].append(
            {
                "bbox": corners(one["bbox"]),
                "bbox_label": one["category_id"],
                "ignore_flag": one["iscrowd"],
            }
        )
    infos = [{"img_path": str(i), "instances": objects[i], **info} for i in ids]
    runner = SimpleNamespace(
        val_dataloader=SimpleNamespace(dataset=Data(infos)),
        score_threshold=None,
        logger=SimpleNamespace(info=lambda line: None),
    )
    samples = []
    for image_id in ids:
        found = [one for one in detections if one["image_id"] == image_id]
        boxes = torch.tensor([corners(one["bbox"]) for one in found], dtype=torch.float64)
        instances = InstanceData(
            bboxes=boxes.reshape(-1, 4),
            scores=torch.tensor([one["score"] for one in found], dtype=torch.float64),
            labels=torch.tensor([one["category_id"] for one in found], dtype=torch.int64),
        )
        samples.append(
            DetDataSample(metainfo={"img_path": str(image_id)}, pred_instances=instances)
        )
    hook = ScoreThresholdHook()
    hook.before_val_epoch(runner)
    hook.after_val_iter(runner, 0, None, samples[:3])
    # The sampler repeats an image to fill the last batch.
    hook.after_val_iter(runner, 1, None, [*samples[3:], samples[0]])
    hook.after_val_epoch(runner)
    return runner.score_threshold


def f1_at(truth, detections, threshold):
    """F1 of all classes together, by the definition."""
    classes = {one["category_id"] for one in [*truth["annotations"], *detections]}
    each = [counts(truth, detections, category, threshold) for category in classes]
    hits, misses, objects = (sum(column) for column in zip(*each, strict=True))
    return 2 * hits / (hits + misses + objects)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("tied", [False, True])
def test_no_threshold_has_a_better_f1(seed, tied):
    truth, detections = random_case(seed, tied_scores=tied)
    found = validated(truth, detections)
    every = {one["score"]: None for one in detections}
    best = {score: f1_at(truth, detections, score) for score in every}
    assert found.f1 == pytest.approx(max(best.values()), abs=1e-12)
    assert f1_at(truth, detections, found.value) == pytest.approx(found.f1, abs=1e-12)
    # Of equal ones the highest, midway to the next lower score.
    highest = max(score for score, f1 in best.items() if f1 > found.f1 - 1e-12)
    lower = max((score for score in every if score < highest), default=highest)
    assert found.value == pytest.approx((highest + lower) / 2)


def test_validations_without_a_match_have_no_threshold():
    truth, detections = random_case(0)
    empty = {**truth, "annotations": []}
    assert validated(truth, []) is None
    assert validated(empty, detections) is None
    assert validated(empty, []) is None
    assert validated(truth, detections, is_ood=True) is None
    elsewhere = [{**one, "bbox": [900, 900, 5, 5]} for one in detections]
    assert validated(truth, elsewhere) is None


def test_boxes_of_a_diverged_model_do_not_count():
    truth, detections = random_case(1)
    broken = {**detections[0], "score": np.nan}
    outside = {**detections[0], "bbox": [0, 0, np.inf, 5], "score": 0.99}
    assert validated(truth, [*detections, broken, outside]) == validated(truth, detections)


def test_data_of_other_tasks_are_left_alone():
    truth, detections = random_case(1)
    assert validated(truth, detections, instances=[{"bbox": [0, 0, 9, 9]}]) is None
    assert validated(truth, detections, instances=[{"text": "a red car"}]) is None


FOUND = [ScoreThreshold(0.25, 0.5), ScoreThreshold(0.625, 0.75)]


def stored(path):
    return ScoreThreshold.of_meta(torch.load(path, weights_only=False)["meta"], str(path))


def test_checkpoints_store_it_and_all_that_show_boxes_use_it(
    tiny_detector, tmp_path, monkeypatch, capsys
):
    titles, results = [], iter(FOUND)
    monkeypatch.setattr(score_threshold_hook, "best_threshold", lambda *args: next(results))
    sheet = "negvision.detection.prediction_hooks.contact_sheet"
    monkeypatch.setattr(
        sheet, lambda *args: titles.append(args[3]) or np.zeros((9, 9, 3), np.uint8)
    )
    cfg = tiny_detector(hooks=[{"type": "negvision.PredictionSheetHook", "num_images": 2}])
    best = {"save_best": "coco/bbox_mAP", "rule": "greater", "interval": 1, "max_keep_ckpts": 1}
    cfg.default_hooks.checkpoint.update(best)
    cfg.test_dataloader, cfg.test_evaluator = cfg.val_dataloader, cfg.val_evaluator
    cfg.test_cfg = {"type": "TestLoop"}
    Runner.from_cfg(cfg).train()
    last = tmp_path / "work" / "iter_2.pth"
    # Written before the last evaluation, and again with its result.
    assert stored(last) == FOUND[1]
    [best] = (tmp_path / "work").glob("best_*.pth")
    assert stored(best) == FOUND[int(best.stem[-1]) - 1]
    assert "score threshold 0.625 (best F1 on the validation set: 0.750)" in capsys.readouterr().out
    assert titles[0].endswith("at least 0.25 (best F1 on the validation set: 0.500)")
    assert "at least 0.625" in titles[1]

    model = Inferencer(last)
    assert model.shown_threshold == FOUND[1] and model.score_threshold is None
    [one] = model([np.zeros((40, 40, 3), np.uint8)])
    assert one.shown_from == 0.625
    given = Inferencer(last, score_threshold=0.1).shown_threshold
    assert str(given) == "0.1 (as given)"

    module, meta = load_model(cfg, last)
    metadata = graph_and_metadata(cfg, module, meta)[1]
    read = type(metadata).from_json(metadata.to_json(), "x.onnx")
    assert (read.f1_threshold, read.best_f1) == (0.625, 0.75)

    cfg.load_from, cfg.experiment_name = str(last), "test_of_stored"
    tested = Runner.from_cfg(cfg)
    tested.test()
    assert tested.score_threshold == FOUND[1] and titles[-1] == titles[1]


class Find(Hook):
    def __init__(self, found):
        self.found = found

    def after_val_epoch(self, runner, metrics=None):
        runner.score_threshold = self.found


def test_resumed_runs_keep_it_and_new_trainings_do_not(tmp_path):
    make_runner(tmp_path / "run", custom_hooks=[Find(FOUND[0])]).train()
    file = tmp_path / "run" / "epoch_3.pth"
    assert stored(file) == FOUND[0]
    options = {"load_from": str(file), "default_hooks": {"checkpoint": {"type": "CheckpointHook"}}}
    longer = {"by_epoch": True, "max_epochs": 4, "val_begin": 9}
    make_runner(tmp_path / "run", resume=True, train_cfg=longer, **options).train()
    assert stored(tmp_path / "run" / "epoch_4.pth") == FOUND[0]
    short = {"by_epoch": True, "max_epochs": 1, "val_begin": 9}
    make_runner(tmp_path / "other", train_cfg=short, **options).train()
    assert stored(tmp_path / "other" / "epoch_1.pth") is None


def test_models_without_one_are_shown_from_a_fixed_score():
    assert shown_from(None, None) == FIXED
    assert str(FIXED) == "0.3 (fixed, since the model has none of its own)"
    assert shown_from(0.0, FOUND[0]).value == 0


@pytest.mark.parametrize("value", [{"value": 2, "f1": 0.5}, {"value": 0.5}, [0.5], "high"])
def test_malformed_thresholds_are_reported(value):
    with pytest.raises(CheckpointError, match=r"a.pth: its score threshold is malformed"):
        ScoreThreshold.of_meta({"score_threshold": value}, "a.pth")
