"""A value that nothing reads is refused: of --cfg-options, or of a file on top of another."""

import pytest

from negvision.engine.config.reading import load_config
from negvision.errors import ConfigError

BASE = """
data_root = "data/coco/"
max_iters = 600
warmup = 50
scale = (64, 48)
pipeline = [dict(type="Resize", scale=scale)]
train_cfg = dict(max_iters=max_iters, val_interval=max_iters)
train_dataloader = dict(batch_size=2, dataset=dict(data_root=data_root, pipeline=pipeline))
val_evaluator = dict(ann_file=data_root + "val.json")
param_scheduler = [dict(begin=0, end=warmup)]
model = dict(head=dict(num_classes=80))
"""


@pytest.fixture
def base(tmp_path):
    file = tmp_path / "base.py"
    file.write_text(BASE)
    return file


@pytest.fixture
def on_top(base):
    """Loads a file with ``text`` on top of the base."""

    def load(text, header='_base_ = "base.py"', **options):
        file = base.with_name("top.py")
        file.write_text(f"{header}\n{text}\n")
        return load_config(file, options)

    return load


@pytest.mark.parametrize(
    ("option", "value", "named"),
    [
        ("data_root", "/mine/", ["train_dataloader.dataset.data_root, ", "--data-root DIR"]),
        ("max_iters", 300, ["train_cfg.max_iters, which is 600"]),
        ("warmup", 5, ["param_scheduler.0.end, which is 50"]),
        ("scale", (32, 24), ["train_dataloader.dataset.pipeline.0.scale"]),
        ("pipeline.0.scale", (32, 24), ["train_dataloader.dataset.pipeline.0.scale"]),
        ("num_workers", 4, ["nothing reads 'num_workers'"]),
        ("classes", ["a"], ["nothing reads 'classes'; set metainfo = dict(classes="]),
        ("lr_config", 4, ["nothing reads 'lr_config'; set param_scheduler"]),
        ("batch_size", 4, ["train_dataloader.batch_size, which is 2"]),
    ],
)
def test_option_of_a_variable(base, option, value, named):
    with pytest.raises(ConfigError, match=f"--cfg-options {option}: ") as caught:
        load_config(base, {option: value})
    assert all(text in str(caught.value) for text in named), caught.value


def test_options_that_act_are_accepted(base):
    both = {"max_iters": 300, "train_cfg.max_iters": 300}
    assert load_config(base, both).train_cfg.max_iters == 300
    assert load_config(base, {"data_root": "data/coco/"}).data_root == "data/coco/"
    assert load_config(base, {"randomness.seed": 1, "work_dir": "w"}).work_dir == "w"
    # Code of the user's may read any key.
    base.write_text(BASE + "custom_imports = dict(imports=['json'])")
    assert load_config(base, {"my_key": 1}).my_key == 1
    with pytest.raises(ConfigError, match="Set instead"):
        load_config(base, {"data_root": "/mine/"})


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("data_root = '/mine/'", r"base\.py has used its own.*\n.*dataset\.data_root"),
        ("pipeline = [dict(type='Flip')]", r"\n  train_dataloader\.dataset\.pipeline"),
        ("scale = (32, 24)", r"\n.*pipeline\.0\.scale, which is \(64, 48\)"),
        ("num_classes = 3", r"\n  model\.head\.num_classes, which is 80"),
        ("batch_size = 8", r"\n  train_dataloader\.batch_size, which is 2"),
        ("lr_config = dict(policy='step')", "is here: param_scheduler"),
        ("evaluation = dict(interval=1)", "is here: val_evaluator"),
        ("classes = ('a', 'b')", r"is here: metainfo = dict\(classes="),
        ("load_form = 'a.pth'", "nearest: 'load_from'"),
        ("custom_hook = []", "nearest: 'custom_hooks'"),
    ],
)
def test_variable_that_nothing_reads(on_top, text, named):
    with pytest.raises(ConfigError, match=r"top\.py': nothing reads.*" + named):
        on_top(text)


@pytest.mark.parametrize(
    "text",
    [
        "scale = (32, 24)\ntrain_dataloader = dict(dataset=dict(pipeline=[dict(scale=scale)]))",
        "data_root = 'data/coco/'",
        "num_classes = 3\nmodel = dict(head=dict(num_classes=3))",
        "data_root = '/mine/'\ntrain_dataloader = dict(dataset=dict(data_root='/mine/'))",
        "pipeline = _base_.pipeline\ntrain_dataloader = dict(dataset=dict(pipeline=pipeline))",
        "optimizer = dict(type='SGD')\noptim_wrapper = dict(optimizer=optimizer)",
        "_hidden = 3\nmy_note = 'a'",
        "warmup = 50\nwarmup += 10",
    ],
)
def test_variables_that_act_or_do_no_harm(on_top, text):
    on_top(text)


def test_own_variables_of_a_base_are_read_on_top(on_top, base):
    base.write_text(BASE + "size = 3\n")
    assert on_top("size = 5\nwork_dir = f'{size}'").work_dir == "5"
    # A lazy config imports its base.
    header = "from mmengine.config import read_base\nwith read_base():\n    from .base import *"
    with pytest.raises(ConfigError, match=r"data_root.*base\.py has used its own"):
        on_top("data_root = '/mine/'", header)
    assert on_top("train_dataloader.update(batch_size=3)", header).train_dataloader.batch_size == 3


def test_keys_of_mmdetection_2(base, on_top):
    base.write_text("data = dict(train=dict())\noptimizer = dict(type='SGD')\n")
    with pytest.raises(ConfigError, match="train_dataloader, val_dataloader and test_dataloader"):
        load_config(base)


def test_configs_that_a_package_installs_are_not_checked(base):
    installed = base.parent / ".mim" / "top.py"
    installed.parent.mkdir()
    installed.write_text('_base_ = "../base.py"\nfp16 = None\nmax_iters = 9\n')
    assert load_config(installed).max_iters == 9
    base.with_name("top.py").write_text('_base_ = ".mim/top.py"\nwork_dir = "w"')
    assert load_config(base.with_name("top.py")).work_dir == "w"


def test_dumped_config_is_read_again(base):
    """It repeats the variables, which nothing reads, and the values that options gave."""
    cfg = load_config(base, {"train_cfg.max_iters": 10})
    cfg.merge_from_dict({"runner": {"type": "A"}, "total_epochs": 3})
    cfg.dump(base.with_name("dumped.py"))
    assert load_config(base.with_name("dumped.py")).train_cfg.max_iters == 10
