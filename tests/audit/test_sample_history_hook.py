"""SampleHistoryHook in short trainings of all tasks."""

import dataclasses
import itertools
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import ROOT, toy_data
from helpers.gloo import run_on_ranks
from helpers.tiny_training import At
from mmengine.config import Config

from negvision.data.sample_history import FILE_NAME, FOUND, ROWS, SampleHistory
from negvision.engine.image_check import leaf_datasets
from negvision.engine.runner import Runner
from negvision.errors import ConfigError

_numbers = itertools.count()
CONFIGS = {
    "dense": "quickstart/atss_digits.py",
    "retina": "atss/bccd_retinanet.py",
    "abet": "quickstart/abet_boxes.py",
    "two stages": "abet/cards_abet.py",
    "faces": "quickstart/unpg_glyphs.py",
    "images": "quickstart/abet_images.py",
    "pixels": "quickstart/abet_pixels.py",
}


def a_run(name, folder: Path, monkeypatch, epochs=2, hook=True, hooks=(), work="work", **options):
    """A runner on 8 images in batches of 4, of which each pass has two."""
    monkeypatch.setenv("NEGVISION_DATA", str(folder / "data"))
    # Its formatter takes longer than the training.
    monkeypatch.setattr(Config, "pretty_text", property(lambda cfg: ""))
    cfg = Config.fromfile(ROOT / "configs" / CONFIGS[name])
    toy_data.in_files(cfg)
    toy_data.shrink_model(cfg)
    classes = toy_data.class_names(cfg)[: 4 if toy_data.is_faces(cfg) else None]
    toy_data.set_classes(cfg, classes)
    by_epoch = "max_epochs" in cfg.train_cfg
    length = {"max_epochs": epochs} if by_epoch else {"max_iters": 2 * epochs}
    cfg.train_cfg = {"by_epoch": by_epoch, **length}
    for split, part in itertools.product(("val", "test"), ("cfg", "dataloader", "evaluator")):
        cfg[f"{split}_{part}"] = None
    if not (folder / "data").exists():
        whole = toy_data.copied(Config.fromfile(ROOT / "configs" / CONFIGS[name]))
        toy_data.in_files(whole)
        toy_data.set_classes(whole, classes)
        toy_data.write(whole, toy_data.Toy(classes))
    cfg.param_scheduler = None
    cfg.optim_wrapper = {"type": "OptimWrapper", "optimizer": {"type": "SGD", "lr": 1e-3}}
    cfg.custom_hooks = [{"type": "negvision.SampleHistoryHook"}] * hook + list(hooks)
    cfg.default_hooks.checkpoint = {"type": "CheckpointHook", "by_epoch": False, "interval": 1}
    cfg.work_dir = str(folder / work)
    cfg.experiment_name = f"history_{os.getpid()}_{next(_numbers)}"
    cfg.visualizer = {"type": "Visualizer", "name": cfg.experiment_name}
    cfg.log_level = "ERROR"
    cfg.randomness = {"seed": 0}
    cfg.merge_from_dict(options)
    return Runner.from_cfg(cfg)


def leaves(runner):
    return list(leaf_datasets(runner.train_dataloader.dataset))


def history(folder, work="work"):
    return SampleHistory.load(folder / work / FILE_NAME)


@pytest.mark.parametrize("name", CONFIGS)
def test_every_annotation_has_a_row_in_every_epoch(name, tmp_path, monkeypatch):
    runner = a_run(name, tmp_path, monkeypatch)
    pipelines = [list(leaf.pipeline.transforms) for leaf in leaves(runner)]
    runner.train()
    assert pipelines == [leaf.pipeline.transforms for leaf in leaves(runner)]
    found = history(tmp_path)
    ids, epochs, own = found.table("own")
    assert epochs.tolist() == [0, 1]
    if found.task == "segmentation":
        assert {*(ids >> 16)} == {*range(8)}
        assert set(np.bincount(ids >> 16)) == {len(found.classes)}
    elif found.task == "detection":
        assert {*ids} <= {*range(1, 17)} and len(ids) >= 12
        assert np.isfinite(found.iou).mean() > (0 if name == "two stages" else 0.9)
        assert ((found.iou > 0) | ~np.isfinite(found.iou)).all()
        assert {*found.found_image} <= {*range(8)}
        assert (found.found_box >= 0).all() and (found.found_box <= 64).all()
    else:
        assert ids.tolist() == [*range(8)]
    assert np.isfinite(own).mean() > 0.8
    assert np.isfinite(found.loss).all() and (found.loss > 0).all()
    assert len(found.found_image) <= len(found.annotation)
    size = (tmp_path / "work" / FILE_NAME).stat().st_size
    assert size <= 64 * len(found.annotation) + 5000


@pytest.mark.parametrize("name", ["dense", "faces"])
def test_training_is_bitwise_the_same(name, tmp_path, monkeypatch):
    weights = []
    for hook in (True, False):
        runner = a_run(name, tmp_path, monkeypatch, hook=hook, work=f"{hook}")
        runner.train()
        weights.append(runner.model.state_dict())
    assert all(torch.equal(value, weights[1][key]) for key, value in weights[0].items())


def same(one: SampleHistory, other: SampleHistory) -> None:
    for name in ROWS | FOUND:
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name), name)


@pytest.mark.parametrize("name", ["dense", "images"])
def test_a_resumed_run_writes_the_same_file(name, tmp_path, monkeypatch):
    a_run(name, tmp_path, monkeypatch, epochs=3).train()
    whole = history(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        a_run(name, tmp_path, monkeypatch, 3, hooks=[At(5, stopped)], work="b").train()
    assert history(tmp_path, "b").epoch.max() == 1
    for file in ("iter_4.pth", "iter_1.pth"):  # the second one with a file of later epochs
        options = {"resume": True, "load_from": str(tmp_path / "b" / file)}
        a_run(name, tmp_path, monkeypatch, 3, work="b", **options).train()
        same(history(tmp_path, "b"), whole)


def stopped():
    raise KeyboardInterrupt


def test_an_open_pass_is_written_and_continued(tmp_path, monkeypatch):
    a_run("dense", tmp_path, monkeypatch).train()
    whole = history(tmp_path)
    a_run("dense", tmp_path, monkeypatch, work="b", **{"train_cfg.max_iters": 3}).train()
    part = history(tmp_path, "b")
    assert 0 < (part.epoch == 1).sum() < (whole.epoch == 1).sum()
    options = {"resume": True, "load_from": str(tmp_path / "b" / "iter_3.pth")}
    a_run("dense", tmp_path, monkeypatch, work="b", **options).train()
    same(history(tmp_path, "b"), whole)


def test_a_history_of_other_annotations_is_not_continued(tmp_path, monkeypatch):
    a_run("images", tmp_path, monkeypatch).train()
    dataclasses.replace(history(tmp_path), digest="other").save(tmp_path / "work" / FILE_NAME)
    options = {"resume": True, "load_from": str(tmp_path / "work" / "iter_3.pth")}
    runner = a_run("images", tmp_path, monkeypatch, **options)
    said = []
    monkeypatch.setattr(runner.logger, "warning", said.append)
    runner.train()
    assert history(tmp_path).epoch.tolist() == [1] * 8
    assert any("annotations have changed" in text for text in said)


def on_ranks(folder: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        runner = a_run("images", folder, patch, launcher="pytorch")
        runner.train()
        found = history(folder)
        assert found.annotation.tolist() == [*range(8)] * 2
        assert found.epoch.tolist() == [0] * 8 + [1] * 8


def test_ranks_write_one_file(tmp_path, monkeypatch):
    a_run("images", tmp_path, monkeypatch)  # writes the data
    run_on_ranks(on_ranks, 2, tmp_path, tmp_path)


def test_models_and_sets_that_cannot_be_observed_are_refused(tmp_path, monkeypatch):
    def refused(says, name, change):
        runner = a_run(name, tmp_path / name, monkeypatch)
        change(runner)
        steps = [list(leaf.pipeline.transforms) for leaf in leaves(runner)]
        with pytest.raises(ConfigError, match=says):
            runner.train()
        assert steps == [leaf.pipeline.transforms for leaf in leaves(runner)]

    class OtherHead(type(a_run("dense", tmp_path / "dense", monkeypatch).model.bbox_head)):
        pass

    def other_head(runner):
        runner.model.bbox_head.__class__ = OtherHead

    def sharded(runner):
        runner.model.head.sharded = True

    def unpacked(runner):
        del leaves(runner)[0].pipeline.transforms[-1]

    refused("cannot observe ATSS with OtherHead.*ATSSHead", "dense", other_head)
    refused("every rank holds in full", "faces", sharded)
    refused("cannot follow the annotations of .*Pack", "pixels", unpacked)
