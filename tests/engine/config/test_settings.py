"""Settings that would have no effect, or that do not fit each other, are refused."""

import pytest
from mmengine.config import Config

from negvision.engine.config.settings import check_settings
from negvision.errors import ConfigError


def config(**changes):
    parts = {
        f"{split}_{part}": {}
        for split, rest in (("train", []), ("val", ["evaluator"]), ("test", ["evaluator"]))
        for part in ["dataloader", "cfg", *rest]
    }
    cfg = Config({**parts, "optim_wrapper": {}, "param_scheduler": []})
    for key, value in changes.items():
        loader, _, name = key.rpartition("__")
        (cfg[loader] if loader else cfg)[name] = value
    return cfg


def check(*splits, **changes):
    cfg = config(**changes)
    check_settings(cfg, splits or ("train", "val"))
    return cfg


@pytest.mark.parametrize("key", ["val_dataloader", "val_evaluator", "val_cfg"])
def test_one_key_that_is_none_switches_the_evaluation_off(key):
    cfg = check(**{key: None})
    assert (cfg.val_dataloader, cfg.val_evaluator, cfg.val_cfg) == (None, None, None)
    assert cfg.test_dataloader is not None


def test_test_without_training_set():
    cfg = check("test", train_dataloader=None)
    assert (cfg.train_cfg, cfg.optim_wrapper, cfg.param_scheduler) == (None, None, None)


@pytest.mark.parametrize(
    ("splits", "removed", "message"),
    [
        (("train", "val"), ["train_dataloader"], "no train set: train_dataloader is missing"),
        (("train", "val"), ["optim_wrapper"], "but no optim_wrapper"),
        (("test",), ["test_dataloader", "test_cfg", "test_evaluator"], "no test set"),
        (("test",), ["test_evaluator"], "but no test_evaluator. Set all of"),
        (("val",), ["val_dataloader"], "no val set"),
        (("train", "val"), ["val_cfg"], "one of them to None to have none"),
    ],
)
def test_splits_that_are_incomplete(splits, removed, message):
    cfg = config()
    for key in removed:
        cfg.pop(key)
    with pytest.raises(ConfigError, match=message):
        check_settings(cfg, splits)


def test_test_set_that_is_none():
    with pytest.raises(ConfigError, match=r"no test set: test_dataloader is None\. Set test_data"):
        check("test", test_dataloader=None)


@pytest.mark.parametrize(
    ("key", "value"),
    [("batch_size", 0), ("batch_size", 2.5), ("batch_size", "2"), ("num_workers", -1)],
)
def test_numbers_of_a_loader(key, value):
    with pytest.raises(
        ConfigError, match=rf"val_dataloader\.{key} is {value!r}; it must be an int"
    ):
        check(**{f"val_dataloader__{key}": value})


def test_batch_size_has_to_be_p_times_k():
    balanced = {"identities_per_batch": 8, "images_per_identity": 4}
    for size in (1, 31, 64):
        with pytest.raises(ConfigError, match=rf"batch_size is {size}, .* 8 x 4; set .* to 32"):
            check(train_dataloader={"batch_size": size, "sampler": balanced})
    check(train_dataloader={"batch_size": 32, "sampler": balanced})
    check(train_dataloader={"batch_size": 7, "sampler": {"type": "DefaultSampler"}})


@pytest.mark.parametrize(
    ("key", "value"), [("max_iters", 0), ("max_epochs", -1), ("val_interval", 0)]
)
def test_length_of_the_training(key, value):
    with pytest.raises(ConfigError, match=rf"train_cfg\.{key} is {value}; it must be at least 1"):
        check(train_cfg={key: value})
    check(train_cfg={key: 1, "val_begin": 0})
    check(train_cfg={"val_interval": float("inf")})


@pytest.mark.parametrize(
    ("metainfo", "message"),
    [
        ({"classes": "disc"}, r"is the text 'disc', .* comma .*: classes=\('disc',\)"),
        ({"CLASSES": ("disc",)}, "nothing reads 'CLASSES' .*; write 'classes'"),
        ({"class": ("disc",)}, "nothing reads 'class' .*; write 'classes'"),
        ({"PALETTE": [(1, 2, 3)]}, "write 'palette'"),
        ({"classes": ()}, "is empty"),
        ({"classes": (1, 2)}, "must be a tuple of names"),
        ({"classes": [("disc", "square")]}, "must be a tuple of names"),
        ({"classes": ("disc", "square", "disc")}, "has 'disc' twice"),
    ],
)
def test_classes_that_are_no_list_of_names(metainfo, message):
    dataset = {"type": "CocoDataset", "metainfo": metainfo}
    wrapped = {"type": "RepeatDataset", "times": 2, "dataset": {"datasets": [dataset]}}
    for where in (dataset, wrapped):
        with pytest.raises(ConfigError, match=f"val_dataloader: .*{message}"):
            check(val_dataloader={"dataset": where})


def test_classes_of_a_file(tmp_path):
    (tmp_path / "names.txt").write_text("disc\n")
    for classes in (str(tmp_path / "names.txt"), "s3://bucket/names.txt", ("disc",), None):
        metainfo = {"classes": classes, "palette": [(1, 2, 3)], "thing_classes": ()}
        check(val_dataloader={"dataset": {"type": "A", "metainfo": metainfo}})


ITERATIONS = {"type": "IterBasedTrainLoop", "max_iters": 9}
EPOCHS = {"type": "EpochBasedTrainLoop", "max_epochs": 9}
PLATEAU = {"type": "ReduceOnPlateauLR", "monitor": "loss"}


@pytest.mark.parametrize(
    ("loop", "schedule", "message"),
    [
        (ITERATIONS, {"type": "MultiStepLR", "milestones": [8]}, "counts epochs, but the training"),
        ({"by_epoch": False}, {"type": "PolyLR", "by_epoch": True}, "would never act"),
        (EPOCHS, {**PLATEAU, "by_epoch": False}, "with by_epoch=False it never acts"),
        (EPOCHS, {"type": "MultiStepLR", "milestones": [8]}, None),
        (EPOCHS, {"type": "LinearLR", "by_epoch": False}, None),
        (ITERATIONS, {"type": "LinearLR", "by_epoch": False}, None),
        (ITERATIONS, {"type": "LinearLR", "convert_to_iter_based": True}, None),
        (ITERATIONS, PLATEAU, None),
    ],
)
def test_schedules_that_would_never_step(loop, schedule, message):
    for path, schedules in (("0", [schedule]), ("generator.0", {"generator": [schedule]})):
        if message is None:
            check(train_cfg=loop, param_scheduler=schedules)
        else:
            with pytest.raises(ConfigError, match=rf"^param_scheduler\.{path} .*{message}"):
                check(train_cfg=loop, param_scheduler=schedules)
