"""Attributes in which modules and hooks keep state are saved, and restored in a resumed run."""

import inspect
import os
import random
import re
import signal
from collections import deque

import mmdet.engine.hooks
import mmdet.models.data_preprocessors
import mmengine.hooks
import mmengine.model
import mmseg.engine.hooks
import mmseg.models
import numpy as np
import pytest
import torch
from helpers.tiny_training import At, Net, assert_same, make_runner, outcome
from mmdet.models import BatchSyncRandomResize
from mmengine.evaluator import BaseMetric
from mmengine.hooks import EarlyStoppingHook, Hook
from torch import nn

from negvision.engine.checkpoints.component_state import ComponentState
from negvision.engine.checkpoints.loading import load_checkpoint_file
from negvision.engine.interruption import TrainingInterrupted


class Assigner:
    def __init__(self):
        self.threshold, self.name, self.flag = 0.5, "max iou", False


class Part(nn.Module):
    """Draws from generators of its own and keeps what it drew."""

    def __init__(self):
        super().__init__()
        self.python, self.torch = random.Random(1), torch.Generator()
        self.numpy, self.legacy = np.random.default_rng(1), np.random.RandomState(1)
        self.size, self.seen, self.recent = None, [], deque(maxlen=2)
        self.assigners = [Assigner()]

    def draw(self):
        drawn = (
            self.python.random(),
            float(torch.rand((), generator=self.torch)),
            self.numpy.random(),
            self.legacy.rand(),
        )
        self.size = (int(100 * drawn[0]), 7)
        self.seen.append(np.float64(drawn[1]))
        self.recent.append(drawn[2])
        self.assigners[0].threshold = drawn[3]
        self.assigners[0].flag = True
        return drawn, self.size, list(self.seen), list(self.recent), self.assigners[0].threshold


def test_what_was_drawn_and_what_will_be(tmp_path):
    model = nn.Sequential(Part())
    state = ComponentState(model, [])
    assert state.changed() == {}
    for _ in range(3):
        model[0].draw()
    # Through a checkpoint, which loads without running code.
    torch.save({"meta": state.changed()}, tmp_path / "a.pth")
    saved = load_checkpoint_file(tmp_path / "a.pth")["meta"]
    expected = [model[0].draw() for _ in range(2)]

    other = nn.Sequential(Part())
    resumed = ComponentState(other, [])
    resumed.restore({**saved, "model.0.gone": 1})
    assert other[0].assigners[0].flag is False
    assert other[0].recent.maxlen == 2
    # What was restored is saved again.
    assert resumed.changed().keys() == saved.keys()
    assert [other[0].draw() for _ in range(2)] == expected


def test_attributes_that_did_not_change_come_from_the_config():
    dropout = nn.Sequential(nn.Dropout(0.5))
    saved = ComponentState(dropout, []).changed()
    other = nn.Sequential(nn.Dropout(0.1))
    ComponentState(other, []).restore(saved)
    assert other[0].p == 0.1


class Resizing(Net):
    """Resizes its batch as YOLOX does."""

    def __init__(self):
        super().__init__()
        self.resize = BatchSyncRandomResize((6, 20), interval=2, size_divisor=1)

    def forward(self, inputs, labels=None, mode="tensor"):
        images = torch.stack(list(inputs))
        if mode == "loss":
            images, _ = self.resize(images, [])
            images = nn.functional.interpolate(images, (6, 6))
        return super().forward(images, labels, mode)


class Draws(Hook):
    """Draws from its own generator and a size that it keeps for some iterations."""

    def __init__(self):
        self.generator, self.noise = np.random.default_rng(3), 0.0

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        if runner.iter % 3 == 0:
            self.noise = self.generator.random()
        for parameter in runner.model.parameters():
            parameter.data += 0.01 * self.noise


@pytest.mark.parametrize("model", [Net, Resizing])
def test_a_resumed_run_ends_with_the_same_bits(model, tmp_path):
    def run(work_dir, **options):
        hook = Draws()
        runner = make_runner(work_dir, model=model(), custom_hooks=[hook], **options)
        runner.train()
        return outcome(runner) | {"noise": torch.tensor(hook.noise)}

    options = {"by_epoch": False} if model is Net else {}
    expected = run(tmp_path / "whole", **options)
    for name in ("iter_4.pth", "iter_8.pth") if model is Net else ("epoch_2.pth",):
        start = str(tmp_path / "whole" / name)
        found = run(tmp_path / name, resume=True, load_from=start, **options)
        assert_same(found, expected)


class Score(BaseMetric):
    """Rises with the first evaluation, then falls a little with every other one."""

    count = 0

    def process(self, data_batch, data_samples):
        self.results.append(0)

    def compute_metrics(self, results):
        type(self).count += 1
        return {"sum": [1, 3, 2, 3, 1, 2, 1][self.count - 1]}


def test_early_stopping_resumes_to_the_same_end(tmp_path):
    """From a checkpoint whose evaluation is done, or due, and from an interrupted evaluation."""

    def run(work_dir, evaluations, *hooks, **options):
        Score.count = evaluations
        hook = EarlyStoppingHook("sum", rule="greater", min_delta=0.0, patience=2)
        checkpoint = {"type": "CheckpointHook", "interval": 1, "by_epoch": False}
        best = {"save_best": "sum", "rule": "greater"}
        runner = make_runner(
            work_dir,
            by_epoch=False,
            train_cfg={"type": "IterBasedTrainLoop", "max_iters": 18, "val_interval": 2},
            val_evaluator=[Score()],
            default_hooks={"checkpoint": checkpoint | best},
            custom_hooks=[hook, *hooks],
            **options,
        )
        runner.train()
        return outcome(runner) | {"end": torch.tensor([runner.iter, hook.wait_count])}

    expected = run(tmp_path / "whole", 0)
    # The third is worse, the fourth as good as the best, the fifth and sixth are worse.
    assert expected["end"].tolist() == [12, 2]
    for start, evaluations in ((3, 1), (6, 2), (10, 4), (11, 5), (12, 5)):
        file = str(tmp_path / "whole" / f"iter_{start}.pth")
        found = run(tmp_path / str(start), evaluations, resume=True, load_from=file)
        assert_same(found, expected)

    send = At(10, lambda: os.kill(os.getpid(), signal.SIGTERM), stage="val")
    with pytest.raises(TrainingInterrupted):
        run(tmp_path / "cut", 0, send)
    file = str(tmp_path / "cut" / "interrupted.pth")
    assert_same(run(tmp_path / "cut", 4, resume=True, load_from=file), expected)


# These draw at test time only, or nothing that outlasts a step.
EXCEPTIONS = {"DetVisualizationHook", "TrackVisualizationHook", "GroundingVisualizationHook"}


def test_stock_hooks_and_preprocessors_that_draw_are_known():
    packages = (
        mmengine.hooks,
        mmengine.model,
        mmdet.engine.hooks,
        mmseg.engine.hooks,
        mmdet.models.data_preprocessors,
        mmseg.models,
    )
    drawing = {
        name
        for package in packages
        for name, kind in vars(package).items()
        if inspect.isclass(kind)
        and issubclass(kind, Hook | nn.Module)
        and ("Hook" in name or "reprocessor" in name or name.startswith("Batch"))
        and re.search(r"\brand(om|int|perm)?\w*[.(]", inspect.getsource(kind))
    }
    assert drawing - EXCEPTIONS == {"BatchSyncRandomResize"}
