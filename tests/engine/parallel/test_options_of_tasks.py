"""Options of training in one process, for all tasks; see test_training_on_ranks for several."""

import pytest
import torch
from helpers.training_on_ranks import TASKS, all_close, close, resumed, train
from mmengine.config import Config
from mmengine.registry import MODELS
from torch import nn

from negvision.engine.config.options import enable_ema

of_tasks = pytest.mark.parametrize("task", TASKS)
MOMENTUM = 0.3


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """The same trainings without any option."""
    runs = {}

    def run(task):
        if task not in runs:
            runs[task] = train(task, tmp_path_factory.mktemp(task) / "plain")[1]
        return runs[task]

    return run


@of_tasks
def test_activation_checkpointing_is_bit_exact(task, plain, tmp_path):
    config = {"activation_checkpointing": "backbone"}
    _, held = train(task, tmp_path / "again", config=config)
    all_close(held, plain(task), task, tolerance=0)


# aot_eager is the compiler's front end, which finds what to compile.
@of_tasks
def test_compiled_parts(task, plain, tmp_path):
    config = {"compile": {"backend": "aot_eager"}}
    runner, held = train(task, tmp_path / "compiled", config=config)
    all_close(held, plain(task), task)
    assert held.states[0].keys() == plain(task).states[0].keys()
    assert runner.model.backbone._compiled_call_impl is not None
    head = {"detection": "bbox_head", "segmentation": "decode_head"}.get(task)
    assert head is None or "forward" in vars(getattr(runner.model, head))


@MODELS.register_module(force=True)
class OneConvolution(nn.Sequential):
    """Each kernel takes g++ seconds."""

    def __init__(self):
        super().__init__(nn.Conv2d(3, 8, 3, 2), nn.BatchNorm2d(8), nn.ReLU())


@pytest.mark.slow
def test_kernels_of_the_default_compiler(tmp_path):
    config = {"val_dataloader": None, "val_evaluator": None, "val_cfg": None}
    options = {"steps": 1, "backbone": {"type": "OneConvolution"}}
    _, wanted = train("classification", tmp_path / "plain", config=config, **options)
    config["compile"] = True
    _, held = train("classification", tmp_path / "compiled", config=config, **options)
    all_close(held, wanted, "compiled")


@of_tasks
def test_mixed_precision(task, plain, tmp_path):
    amp = {"type": "negvision.BF16OptimWrapper"}
    _, held = train(task, tmp_path / "amp", options=amp)
    for got, wanted in zip(held.losses, plain(task).losses, strict=True):
        assert got != wanted and abs(got - wanted) <= 0.1 * abs(wanted)


@of_tasks
def test_average_is_evaluated_saved_and_resumed(task, plain, tmp_path):
    cfg = Config({"optim_wrapper": {}})
    enable_ema(cfg, MOMENTUM)
    config = {"custom_hooks": cfg.custom_hooks}
    runner, held = train(task, tmp_path / "ema", config=config)
    all_close(held, plain(task), task, tolerance=0)  # what is trained does not change
    saved = torch.load(tmp_path / "ema" / "iter_2.pth", weights_only=False)
    names = [name for name, _ in runner.model.named_parameters()]
    first, second = held.states[1:3]
    share = 1 - (1 - MOMENTUM) * (1 - torch.tensor(-2 / 2000).exp())
    average = {name: first[name].lerp(second[name], share) for name in names}
    close({name: saved["state_dict"][name] for name in names}, average, task, 1e-6)
    own = {name: saved["ema_state_dict"][f"module.{name}"] for name in names}
    close(own, {name: second[name] for name in names}, task, 0)

    config |= resumed(tmp_path / "ema" / "iter_2.pth")
    again, _ = train(task, tmp_path / "again", config=config)
    averages = [
        hook.ema_model.state_dict()
        for run in (again, runner)
        for hook in run.hooks
        if hasattr(hook, "ema_model")
    ]
    close(*averages, task, 0)


def test_accumulated_parts_equal_the_batch(tmp_path):
    """Where nothing is normalized over the batch."""
    norm = {"type": "GN", "num_groups": 2}
    backbone = {**TASKS["segmentation"][1]["backbone"], "norm_cfg": norm}
    head = {**TASKS["segmentation"][1]["decode_head"], "norm_cfg": norm, "dropout_ratio": 0}
    model = {"type": "mmseg.EncoderDecoder", "backbone": backbone, "decode_head": head}
    _, one = train("segmentation", tmp_path / "one", **model)
    options = {"accumulative_counts": 2}
    _, two = train("segmentation", tmp_path / "two", parts=2, options=options, **model)
    # A warm-up counts iterations, of which there are twice as many.
    close(two.states[1], two.states[0], "no update yet", 0)
    config = {"param_scheduler": None}
    _, one = train("segmentation", tmp_path / "1", config=config, **model)
    _, two = train("segmentation", tmp_path / "2", parts=2, options=options, config=config, **model)
    two.states = two.states[::2]
    all_close(two, one, "accumulated", 1e-6)


def test_learning_rate_counts_all_images_of_an_update(tmp_path):
    options = {"accumulative_counts": 3}
    config = {
        "auto_scale_lr": {"enable": True, "base_batch_size": 16},
        "param_scheduler": None,
        "log_level": "INFO",
    }
    runner, _ = train("faces", tmp_path / "scaled", options=options, config=config, size=4, steps=1)
    assert runner.optim_wrapper.get_lr()["lr"] == [pytest.approx(0.02 * 3 * 4 / 16)]
    (log,) = (tmp_path / "scaled").rglob("*.log")
    text = "4 images x 1 processes x 3 iterations = 12, and it is meant for 16"
    assert f"learning rate scaled by 0.75: an update sees {text}" in log.read_text()
