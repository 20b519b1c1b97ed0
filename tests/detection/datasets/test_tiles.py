"""Training on tiles: their pixels and boxes, and evaluations over whole images."""

import json
from pathlib import Path

import numpy as np
import pytest
from mmengine.registry import DATASETS, init_default_scope

from negvision.data.images.tiles import Tiles
from negvision.engine.config import options
from negvision.engine.config.options import evaluate_in_tiles, train_in_tiles
from negvision.engine.runner import Runner
from negvision.errors import ConfigError


def loaded(cfg, **options):
    init_default_scope("mmdet")
    return DATASETS.build({**cfg.train_dataloader.dataset, **options})


def test_samples_are_the_tiles_and_boxes_what_they_show(tiny_detector):
    cfg = tiny_detector()
    pipeline = cfg.train_dataloader.dataset.pipeline[:2]
    whole, tiled = loaded(cfg, pipeline=pipeline), loaded(cfg, pipeline=pipeline, tiles="80:16")
    windows = Tiles.of("80:16").windows(192, 192)
    assert len(windows) == 9 and len(tiled) == 9 * len(whole)
    ignored = clipped = 0
    for number in range(0, len(tiled), 5):
        image, (x1, y1, x2, y2) = whole[number // 9], windows[number % 9]
        tile = tiled[number]
        assert np.array_equal(tile["img"], image["img"][y1:y2, x1:x2])
        assert tile["img_shape"] == tile["ori_shape"] == (80, 80)
        boxes, shown = tile["gt_bboxes"].tensor, []
        truth = image["gt_bboxes"].tensor
        for box, crowd in zip(truth.tolist(), image["gt_ignore_flags"], strict=True):
            own = [max(box[0], x1), max(box[1], y1), min(box[2], x2), min(box[3], y2)]
            if own[2] > own[0] and own[3] > own[1]:
                area = (own[2] - own[0]) * (own[3] - own[1])
                share = area / ((box[2] - box[0]) * (box[3] - box[1]))
                shown.append(bool(crowd) or share < 0.25)
                assert [own[0] - x1, own[1] - y1, own[2] - x1, own[3] - y1] in boxes.tolist()
                clipped += share < 1
        assert tile["gt_ignore_flags"].tolist() == shown
        ignored += sum(shown)
    assert clipped > ignored > 0
    assert tiled.objects > whole.objects


def test_tiles_of_small_images_and_without_boxes(tiny_detector):
    cfg = tiny_detector()
    one, whole = loaded(cfg, tiles="192:1"), loaded(cfg)
    assert len(one) == len(whole) and one.objects == whole.objects
    for index in (0, 7):
        assert one.get_data_info(index)["instances"] == whole.get_data_info(index)["instances"]
    every = loaded(cfg, tiles="40:8")
    kept = loaded(cfg, tiles="40:8", filter_cfg={"filter_empty_gt": True})
    assert 0 < len(kept) < len(every) and kept.objects == every.objects


@pytest.mark.parametrize("options", [{"test_mode": True}, {"pipeline": []}, {"tiles": "9:9"}])
def test_what_cannot_be_cut_is_refused(tiny_detector, options):
    with pytest.raises(ConfigError, match="tiles"):
        loaded(tiny_detector(), **{"tiles": "80:16", **options})


def metrics_of(cfg, name, tmp_path, train=False):
    cfg.work_dir = str(tmp_path / name)
    cfg.experiment_name += name
    runner = Runner.from_cfg(cfg)
    if train:
        runner.train()
        [log] = Path(cfg.work_dir).rglob("scalars.json")
        return runner, [json.loads(line) for line in log.read_text().splitlines()]
    return runner, runner.val()


def with_test(cfg):
    cfg.test_dataloader, cfg.test_evaluator, cfg.test_cfg = (
        cfg.val_dataloader, cfg.val_evaluator, {"type": "TestLoop"},
    )  # fmt: skip
    return cfg


def test_evaluation_in_one_tile_is_that_of_whole_images_and_in_several_another(
    tiny_detector, tmp_path
):
    found = {}
    for tiles in ("none", "192:1", "100:20"):
        cfg = with_test(tiny_detector())
        evaluate_in_tiles(cfg, tiles)
        evaluate_in_tiles(cfg, tiles)  # once only
        assert len(cfg.custom_hooks) == (tiles != "none")
        runner, found[tiles] = metrics_of(cfg, tiles.replace(":", "_"), tmp_path)
        assert "val_step" not in vars(runner.model)
    assert found["192:1"] == pytest.approx(found["none"], nan_ok=True)
    assert found["100:20"] != pytest.approx(found["none"], nan_ok=True)


def test_training_in_tiles_trains_tiles_and_evaluates_whole_images(tiny_detector, tmp_path):
    cfg = with_test(tiny_detector())
    train_in_tiles(cfg, "100:20")
    runner, lines = metrics_of(cfg, "tiles", tmp_path, train=True)
    assert len(runner.train_dataloader.dataset) == 24 * 9
    assert any("coco/bbox_mAP" in line for line in lines)
    assert type(runner.model.bbox_head.assigner).__name__ == "IgnoringAssigner"
    train_in_tiles(cfg, "none")
    assert "tiles" not in cfg.train_dataloader.dataset and not cfg.custom_hooks


def test_configs_that_have_no_tiles_are_refused_before_the_training(tiny_detector, monkeypatch):
    cfg = tiny_detector(assigner={"type": "SimOTAAssigner"})
    logged = []
    monkeypatch.setattr(options, "print_log", lambda text, **_: logged.append(text))
    train_in_tiles(cfg, "100:20")
    assert "are background: RetinaNet cannot ignore boxes" in logged[0]
    cfg.train_dataloader.dataset.type = "CocoDataset"
    with pytest.raises(ConfigError, match="needs training sets of negvision"):
        train_in_tiles(cfg, "100:20")
    cfg = tiny_detector()
    train_in_tiles(cfg, "100:20")
    with pytest.raises(ConfigError, match="no test_dataloader with a pipeline"):
        Runner.from_cfg(cfg).train()
