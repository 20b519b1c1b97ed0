"""A training that cannot learn is refused; one that made fewer steps than announced is an error."""

import os
import signal
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from helpers.checked_training import check
from helpers.tiny_training import At, Net, Noisy, assert_same, loader, make_runner, outcome
from mmengine.dataset import BaseDataset, ConcatDataset, DefaultSampler, InfiniteSampler
from mmengine.structures import InstanceData
from mmseg.evaluation import IoUMetric
from torch import nn
from torch.utils.data import BatchSampler, DataLoader

from negvision.engine import training_check
from negvision.engine.interruption import TrainingInterrupted
from negvision.engine.training_check import check_evaluated_labels
from negvision.engine.training_steps import TrainingError
from negvision.errors import ConfigError, DatasetError
from negvision.face.datasets.base import FaceIdentityDataset
from negvision.ood import AbeTLogits
from negvision.segmentation.datasets import SegDataset

BY_EPOCH = {"by_epoch": True}
BY_ITERATION = {"by_epoch": False}


# Something to learn. The loop is a stand-in: only its data, model and length are looked at.


class Records(BaseDataset):
    """Given records; "transforms" are functions of a sample."""

    def __init__(self, records, transforms=(), **kwargs):
        self.records = records
        super().__init__(**kwargs)
        self.pipeline.transforms = list(transforms)

    def load_data_list(self):
        return [dict(record) for record in self.records]


@pytest.fixture
def warned(monkeypatch):
    messages = []
    monkeypatch.setattr(training_check, "_warn", messages.append)
    return messages


OBJECT, CROWD = {"ignore_flag": 0}, {"ignore_flag": 1}


def of(*instances, count=12):
    return [{"img_path": f"{k}.png", "instances": list(instances)} for k in range(count)]


class LoadBoxes:
    def __call__(self, results):
        flags = np.array([item["ignore_flag"] for item in results["instances"]], bool)
        return {**results, "gt_bboxes": np.zeros((len(flags), 4)), "gt_ignore_flags": flags}


class Pack:
    def __call__(self, results):
        kept = ~results.get("gt_ignore_flags", np.zeros(0, bool))
        instances = InstanceData(bboxes=np.zeros((kept.sum(), 4)))
        return {"data_samples": SimpleNamespace(gt_instances=instances)}


class FilterAnnotations:
    """Drops the boxes, or the sample that has none then, as mmdet's."""

    def __init__(self, keep_empty):
        self.keep_empty = keep_empty

    def __call__(self, results):
        empty = {"gt_bboxes": np.zeros((0, 4)), "gt_ignore_flags": np.zeros(0, bool)}
        return {**results, **empty} if self.keep_empty else None


DETECTION = [LoadBoxes(), Pack()]


def test_a_single_object_is_enough(warned):
    check(Records([*of(), *of(OBJECT, count=1)], DETECTION))
    check(ConcatDataset([Records(of(CROWD), DETECTION), Records(of(OBJECT), DETECTION)]))
    check(Records(of(OBJECT), []))  # nobody can tell what such a pipeline leaves
    check(Records([{"img_path": "a"}] * 3))
    assert warned == []


@pytest.mark.parametrize(
    ("records", "reason"),
    [
        (of(CROWD, CROWD), "24 x crowd, or marked ignore"),
        (of(), "12 x image without a usable annotation of the classes"),
        ([*of(CROWD, count=3), *of(count=9)], "9 x image without a usable"),
    ],
)
def test_no_object_is_an_error_with_the_reasons_counted(records, reason):
    with pytest.raises(DatasetError, match="no object is left to train in 12 images") as caught:
        check(Records(records, DETECTION))
    assert reason in str(caught.value) and "0.png" in str(caught.value)


@pytest.mark.parametrize(
    ("steps", "reason"),
    [
        ([LoadBoxes(), FilterAnnotations(False), Pack()], "200 x dropped by FilterAnnotations"),
        ([Pack()], "200 x no transform loads boxes"),
    ],
)
def test_a_pipeline_that_leaves_no_object_is_an_error(steps, reason):
    with pytest.raises(DatasetError, match="the pipeline of the training set leaves no") as caught:
        check(Records(of(OBJECT), steps))
    assert reason in str(caught.value)


def test_a_pipeline_that_may_leave_objects_is_a_warning(warned):
    check(Records(of(OBJECT), [LoadBoxes(), FilterAnnotations(True), Pack()]))
    assert "200 x objects lost in FilterAnnotations" in warned[0]


def test_looking_at_samples_keeps_the_random_state():
    class Draws(LoadBoxes):
        def __call__(self, results):
            np.random.rand(), torch.rand(1)  # noqa: NPY002
            return super().__call__(results)

    model = nn.Linear(2, 2)
    np.random.seed(3), torch.manual_seed(3)  # noqa: NPY002
    expected = np.random.rand(), torch.rand(1)  # noqa: NPY002
    np.random.seed(3), torch.manual_seed(3)  # noqa: NPY002
    check(Records(of(OBJECT), [Draws(), Pack()]), model)
    assert (np.random.rand(), torch.rand(1)) == expected  # noqa: NPY002


@pytest.mark.parametrize(
    ("masks", "error"),
    [
        (
            [[0, 255], [0, 0], [255, 255]],
            "3 of 3 label images show class 0 alone; 50% of their pixels",
        ),
        ([[255, 255]] * 3, "3 of 3 label images show no class; 100% of their pixels"),
        ([[1, 1]] * 2, "2 of 2 label images show class 1 alone; 0% of their pixels"),
        ([[0, 255], [255, 255], [255, 1]], None),
    ],
)
def test_label_images_need_two_classes(tmp_path, warned, masks, error):
    for folder in ("img", "ann"):
        (tmp_path / folder).mkdir()
    for number, mask in enumerate(masks):
        cv2.imwrite(str(tmp_path / f"img/{number}.png"), np.zeros((1, 2, 3), np.uint8))
        cv2.imwrite(str(tmp_path / f"ann/{number}.png"), np.array([mask], np.uint8))
    dataset = SegDataset(
        data_root=str(tmp_path),
        data_prefix={"img_path": "img", "seg_map_path": "ann"},
        img_suffix=".png",
        metainfo={"classes": ("background", "crack")},
        pipeline=[
            {"type": "negvision.LoadImageFromFile"},
            {"type": "negvision.LoadSegAnnotations"},
        ],
    )
    evaluation = SimpleNamespace(metrics=[IoUMetric()])
    check_evaluated_labels(dataset, SimpleNamespace(metrics=[]), "val")
    assert warned == []
    check_evaluated_labels(dataset, evaluation, "val")
    if error is None:
        check(dataset)
        assert len(warned) == 1 and "67% of the pixels of 3 label images are void" in warned[0]
        return
    assert "A mean IoU of them says nothing" in warned[0]
    with pytest.raises(DatasetError, match=error) as caught:
        check(dataset)
    assert ("masks of 0 and 255" in str(caught.value)) == (" 0%" not in error)


def test_few_label_images_of_many_are_a_warning(warned, monkeypatch):
    class LoadAnnotations:
        def __call__(self, results):
            return {**results, "gt_seg_map": np.array([results["label"]])}

    monkeypatch.setattr(training_check, "_MOST_LABEL_IMAGES", 4)
    records = [{"seg_map_path": f"{k}.png", "label": 0} for k in range(9)]
    check(Records(records, [LoadAnnotations()]))
    assert "4 of 9 label images show class 0 alone" in warned[0]


class Faces(FaceIdentityDataset):
    def load_columns(self):
        _, labels = self._number_identities([0] * 5 + [7] * self.others, "faces.txt")
        return {"label": labels, "img_path": [f"{k}.jpg" for k in range(len(labels))]}

    def __init__(self, others, **kwargs):
        self.others = others
        super().__init__(**kwargs)


@pytest.mark.parametrize(
    "dataset",
    [Faces(0), Records([{"label": 3}] * 6), ConcatDataset([Faces(0), Faces(0)])],
    ids=["faces", "images", "joined"],
)
def test_one_identity_or_class_is_an_error(dataset):
    with pytest.raises(DatasetError, match=r"all \d+ images of the training set have the label"):
        check(dataset)


def test_a_head_with_fewer_classes_than_identities_is_an_error():
    model = nn.Linear(2, 2)
    model.head = SimpleNamespace(num_classes=1)
    with pytest.raises(ConfigError, match=r"labels up to 1\. Set num_classes=2"):
        check(Faces(4), model)
    model.head = SimpleNamespace(num_classes=2)
    check(Faces(4), model)


def pooled(last):
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Sequential(nn.Conv2d(3, 3, 1), last))


@pytest.mark.parametrize(
    ("dataset", "model", "named"),
    [
        (Faces(4), nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)), r"model\.1 normalizes"),
        (Records(of(OBJECT, count=9), DETECTION), pooled(nn.BatchNorm2d(3)), r"model\.1 normal"),
    ],
)
def test_a_batch_of_one_image_for_batch_normalization(dataset, model, named, warned):
    with pytest.raises(ConfigError, match=f"the last batch of an epoch has one image .*{named}"):
        check(dataset, model, batch=4)
    with pytest.raises(ConfigError, match=f"every batch has one image.*{named}"):
        check(dataset, model, batch=1, sampler=InfiniteSampler)
    check(dataset, model, batch=4, drop_last=True)
    check(dataset, model, batch=4, sampler=InfiniteSampler)
    check(dataset, model, batch=5)
    assert warned == []


def test_legal_batches_of_one_image(warned):
    boxes = Records(of(OBJECT), DETECTION)
    check(boxes, nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)).eval(), batch=1)
    assert "its statistics will be noisy" in warned.pop()
    check(boxes, pooled(nn.GroupNorm(1, 3)), batch=1)
    check(Faces(4), nn.Sequential(AbeTLogits(2, 2)), batch=4)
    assert warned == []


# A length.


@pytest.mark.parametrize("loop", [BY_EPOCH, BY_ITERATION])
def test_an_epoch_without_an_iteration_is_an_error(tmp_path, loop):
    data = {**loader(Noisy(3)), "drop_last": True}
    with pytest.raises(ConfigError, match=r"an epoch has 0 iterations: 3 images .* drop_last=True"):
        make_runner(tmp_path, **loop, train_dataloader=data).train()


def test_an_endless_sampler_fills_its_batches(tmp_path):
    data = {**loader(Noisy(3), "InfiniteSampler"), "drop_last": True}
    make_runner(tmp_path, **BY_ITERATION, train_dataloader=data).train()


@pytest.mark.parametrize(
    ("loop", "error"),
    [
        ({"by_epoch": True, "max_epochs": 0}, "train_cfg.max_epochs is 0"),
        ({"type": "IterBasedTrainLoop", "max_iters": 0}, "train_cfg.max_iters is 0"),
    ],
)
def test_nothing_announced_is_an_error(tmp_path, loop, error):
    with pytest.raises(ConfigError, match=error):
        make_runner(tmp_path, train_cfg=loop).train()


class Optimistic(BatchSampler):
    """Its length counts a batch that does not come."""

    def __len__(self):
        return super().__len__() + 1


def test_fewer_iterations_than_announced_are_an_error(tmp_path):
    data = Noisy()
    batches = Optimistic(DefaultSampler(data, seed=0), 4, False)
    with pytest.raises(TrainingError, match="ended after 18 of 21 iterations"):
        make_runner(tmp_path, train_dataloader=DataLoader(data, batch_sampler=batches)).train()


# Steps.


class Changed(Net):
    """Its loss is changed by a function."""

    def __init__(self, change):
        super().__init__()
        self.change = change

    def forward(self, inputs, labels=None, mode="tensor"):
        found = super().forward(inputs, labels, mode)
        return self.change(found["loss"]) if mode == "loss" else found


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (lambda loss: {"loss": loss * float("nan")}, "0 of 9 steps were made, the others skipped"),
        (lambda loss: {"loss": loss * 0}, "no weight had a gradient in 9 steps"),
        (lambda loss: {"cls": loss}, "the model returned no loss"),
        (lambda loss: {"loss": loss.detach()}, "the model returned no loss"),
    ],
)
def test_a_loss_with_nothing_in_it_is_an_error(tmp_path, change, error):
    hooks = {"loss_guard": {"type": "negvision.LossGuardHook", "max_in_a_row": 99}}
    with pytest.raises(TrainingError, match=error):
        make_runner(tmp_path, model=Changed(change), default_hooks=hooks, accumulate=2).train()


def test_weights_that_are_not_finite_are_an_error_without_the_guard_too(tmp_path):
    model = Changed(lambda loss: {"loss": loss * float("nan")})
    with pytest.raises(TrainingError, match="the trained weights are not finite"):
        make_runner(tmp_path, model=model, default_hooks={"loss_guard": None}).train()


def test_a_hundred_steps_without_a_gradient_end_a_run(tmp_path):
    model = Changed(lambda loss: {"loss": loss * 0})
    loop = {"by_epoch": True, "max_epochs": 99, "val_interval": 99}
    with pytest.raises(TrainingError, match="no weight had a gradient in 100 steps"):
        make_runner(tmp_path, model=model, train_cfg=loop).train()


def test_steps_that_change_no_weight_are_an_error(tmp_path):
    still = {"optimizer": {"type": "SGD", "lr": 0.0}}
    with pytest.raises(ConfigError, match="the learning rate is 0"):
        make_runner(tmp_path / "a", optim_wrapper=still, param_scheduler=None).train()
    with pytest.raises(TrainingError, match="the learning rate was 0 in all 18 steps"):
        make_runner(tmp_path / "b", optim_wrapper=still).train()
    frozen = Net().requires_grad_(False)
    with pytest.raises(ConfigError, match="no weight of the model is trained"):
        make_runner(tmp_path / "c", model=frozen).train()


def test_a_batch_of_one_value_says_what_to_do(tmp_path):
    model = Net()
    model.layers[0] = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1))
    model.last = nn.Linear(4, 2)
    # The pool and the normalization are in different parts, so only the training finds it.
    with pytest.raises(ConfigError, match=r"iteration 6: Expected more than 1 value.*drop_last"):
        make_runner(tmp_path, model=model, samples=21).train()


class Empty(Noisy):
    """Batches of samples without an object."""

    def __getitem__(self, index):
        return super().__getitem__(index), SimpleNamespace(gt_instances=[])


def test_batches_without_an_object_are_an_error(tmp_path):
    def collate(samples):
        batch = torch.utils.data.default_collate([sample for sample, _ in samples])
        return {**batch, "data_samples": [sample for _, sample in samples]}

    class Blind(Net):
        def forward(self, inputs, labels=None, mode="tensor", data_samples=None):
            return super().forward(inputs, labels, mode)

    data = {**loader(Empty()), "collate_fn": collate}
    with pytest.raises(TrainingError, match="not one of 18 batches had an object or a labeled"):
        make_runner(tmp_path, model=Blind(), train_dataloader=data).train()


# Data that changed before a run was resumed.


def stop_at(iteration):
    return At(iteration, lambda: os.kill(os.getpid(), signal.SIGUSR1))


def interrupted(tmp_path, at, **settings):
    with pytest.raises(TrainingInterrupted):
        make_runner(tmp_path, custom_hooks=[stop_at(at)], **settings).train()
    return {"resume": True, "load_from": str(tmp_path / "interrupted.pth")}


@pytest.mark.parametrize("samples", [3, 40])
@pytest.mark.parametrize("at", [6, 8])
def test_other_data_resume_at_the_start_of_an_epoch(tmp_path, capsys, samples, at):
    settings = interrupted(tmp_path, at, **BY_EPOCH)
    resumed = make_runner(tmp_path, samples=samples, log_level="WARNING", **settings)
    resumed.train()
    # One of three epochs was complete; the second is complete again.
    assert len(resumed.train_dataloader.dataset.asked) == 2 * samples
    assert f"has {samples} images, the checkpoint was written with 22" in capsys.readouterr().out


@pytest.mark.parametrize("kind", ["DefaultSampler", "InfiniteSampler"])
@pytest.mark.parametrize("samples", [3, 40])
def test_other_data_begin_a_pass_where_iterations_count(tmp_path, kind, samples):
    settings = interrupted(tmp_path / "a", 8, **BY_ITERATION)

    def resumed(folder, **options):
        data = loader(Noisy(samples), kind)
        return make_runner(tmp_path / folder, **BY_ITERATION, train_dataloader=data, **options)

    whole = resumed("whole", **settings)
    whole.train()
    expected = outcome(whole)
    assert whole.iter == 18
    first = whole.train_dataloader.dataset.asked[:samples]
    assert sorted(first) == list(range(samples))  # each once
    # What is resumed again continues the new passes.
    with pytest.raises(TrainingInterrupted):
        resumed("b", custom_hooks=[stop_at(13)], **settings).train()
    again = resumed("c", resume=True, load_from=str(tmp_path / "b/interrupted.pth"))
    again.train()
    assert_same(outcome(again), expected)


def test_a_complete_run_has_nothing_left(tmp_path, capsys):
    make_runner(tmp_path).train()
    settings = {"resume": True, "load_from": str(tmp_path / "epoch_3.pth"), "log_level": "WARNING"}
    make_runner(tmp_path, **settings).train()
    assert "nothing is left to train: the checkpoint has trained all 3" in capsys.readouterr().out
    loop = {"by_epoch": True, "max_epochs": 2}
    with pytest.raises(ConfigError, match=r"has trained 3 epochs, more .*max_epochs.* anew"):
        make_runner(tmp_path, train_cfg=loop, **settings).train()
