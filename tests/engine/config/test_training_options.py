"""Training options change the config, and invalid combinations are refused."""

import argparse

import pytest
import torch
from mmengine.config import Config

from negvision.cli import train
from negvision.engine.config.options import (
    apply_training_arguments,
    check_training_options,
    enable_amp,
)
from negvision.errors import ConfigError

SHARDED = {"type": "negvision.FullyShardedModel"}


def config(**top_level):
    wrapper = {"type": "OptimWrapper", "optimizer": {"type": "SGD", "lr": 0.1}}
    return Config({"optim_wrapper": wrapper, **top_level})


def applied(argv, cfg=None):
    parser = argparse.ArgumentParser()
    train.add_arguments(parser)
    cfg = cfg or config()
    apply_training_arguments(cfg, parser.parse_args(["a.py", *argv]))
    return cfg


@pytest.fixture(params=[False, True], ids=["cpu", "cuda"])
def cuda(request, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: request.param)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: True)
    return request.param


def test_defaults_change_nothing():
    before = config(sync_bn="mmcv", compile=False)
    assert applied([], config(sync_bn="mmcv", compile=False)).to_dict() == before.to_dict()


def test_amp_by_device(cuda):
    wrapper = applied(["--amp"]).optim_wrapper
    assert wrapper.type == ("AmpOptimWrapper" if cuda else "negvision.BF16OptimWrapper")
    assert wrapper.get("loss_scale") == ("dynamic" if cuda else None)
    assert applied(["--amp", "auto"]).optim_wrapper == wrapper
    assert applied(["--amp", "bf16"]).optim_wrapper.type == "negvision.BF16OptimWrapper"
    if cuda:
        assert applied(["--amp", "fp16"]).optim_wrapper == wrapper
    else:
        with pytest.raises(ConfigError, match=r"fp16 needs a CUDA device.*use --amp bf16"):
            applied(["--amp", "fp16"])


def test_amp_of_the_config(cuda):
    cfg = config()
    cfg.optim_wrapper.update(type="AmpOptimWrapper", loss_scale=128.0, dtype="float16")
    enable_amp(cfg)
    assert cfg.optim_wrapper.loss_scale == 128.0  # auto leaves it as it is
    enable_amp(cfg, "bf16")
    assert set(cfg.optim_wrapper) == {"type", "optimizer"}
    with pytest.raises(ConfigError, match="'Special'"):
        enable_amp(Config({"optim_wrapper": {"type": "Special"}}))


def test_bfloat16_on_an_old_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: False)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "Old GPU")
    with pytest.raises(ConfigError, match="Old GPU has no bfloat16; use --amp fp16"):
        applied(["--amp", "bf16"])


def test_options_become_keys():
    argv = ["--accumulate", "4", "--sync-bn", "--compile", "--ema", "--auto-scale-lr"]
    cfg = applied(argv, config(auto_scale_lr={"base_batch_size": 16}, custom_hooks=[{"type": "A"}]))
    assert cfg.optim_wrapper.accumulative_counts == 4
    assert (cfg.sync_bn, cfg.compile, cfg.auto_scale_lr.enable) == ("torch", True, True)
    average = {"ema_type": "mmdet.ExpMomentumEMA", "momentum": 0.0002, "interval": 4}
    assert cfg.custom_hooks == [{"type": "A"}, {"type": "EMAHook", **average}]
    assert applied(["--sync-bn"], config(sync_bn="mmcv")).sync_bn == "mmcv"
    assert applied(["--compile"], config(compile={"dynamic": True})).compile == {"dynamic": True}
    hook = {"type": "EMAHook", "ema_type": "StochasticWeightAverage"}
    assert applied(["--ema", "0.1"], config(custom_hooks=[hook])).custom_hooks == [
        {**hook, "momentum": 0.1}
    ]
    assert applied(["--checkpoint-activations"]).activation_checkpointing == ["backbone"]
    cfg = applied(["--checkpoint-activations", "backbone.layer1", "neck"])
    assert cfg.activation_checkpointing == ["backbone.layer1", "neck"]


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        (["--amp", "float16"], "'float16' is not auto, bf16 or fp16"),
        (["--amp", "a.py"], "'a.py' is not auto, bf16 or fp16; the config comes before"),
        (["--ema", "a.py"], "is not a number between 0 and 1; the config comes before"),
        (["--ema", "1"], "'1' is not a number between 0 and 1"),
        (["--accumulate", "0"], "'0' is not an integer above 0"),
        (["--accumulate", "2.5"], "'2.5' is not an integer above 0"),
    ],
)
def test_invalid_values(argv, expected, capsys):
    with pytest.raises(SystemExit):
        applied(argv)
    assert expected in capsys.readouterr().err


def test_requirements_of_options():
    with pytest.raises(ConfigError, match="base_batch_size"):
        applied(["--auto-scale-lr"])
    several = Config({"optim_wrapper": {"generator": {}, "discriminator": {}}})
    with pytest.raises(ConfigError, match=r"optimizers \(generator, discriminator\)"):
        applied(["--accumulate", "2"], several)


@pytest.mark.parametrize(
    ("top_level", "expected"),
    [
        ({"sync_bn": True}, "sync_bn is True; it must be one of 'torch', 'mmcv' or None"),
        ({"compile": "inductor"}, "compile is 'inductor'; it must be True"),
        ({"compile": True, "activation_checkpointing": "neck"}, "cannot be combined"),
        ({"compile": True, "model_wrapper_cfg": SHARDED, "launcher": "none"}, None),
        ({"compile": {}, "model_wrapper_cfg": SHARDED}, None),  # an empty dict compiles nothing
        ({"compile": True, "model_wrapper_cfg": SHARDED}, "leave out --compile, or model_wrapper"),
        ({"custom_hooks": [{"type": "EMAHook"}], "model_wrapper_cfg": SHARDED}, "EMAHook keeps a"),
        ({"custom_hooks": [{"type": "EMAHook"}], "sync_bn": "mmcv", "compile": True}, None),
    ],
)
def test_combinations(top_level, expected):
    cfg = config(**{"launcher": "pytorch", **top_level})
    if expected is None:
        check_training_options(cfg)
    else:
        with pytest.raises(ConfigError, match=expected.replace("(", r"\(")):
            check_training_options(cfg)


def test_float16_in_the_config_needs_a_gpu(cuda):
    cfg = config(optim_wrapper={"type": "AmpOptimWrapper"})
    if cuda:
        check_training_options(cfg)
    else:
        with pytest.raises(ConfigError, match=r"on a CPU use 'negvision\.BF16OptimWrapper'"):
            check_training_options(cfg)
