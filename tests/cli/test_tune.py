"""`negvision tune`: a sweep that goes on, and what is refused before any training."""

import pytest
from helpers.commands import command

from negvision.engine.config.reading import load_config

pytest.importorskip("optuna", reason="needs requirements/tune.txt")

tune = command("tune")
pytestmark = pytest.mark.filterwarnings("ignore")

CHANGES = [
    "val_evaluator.type=negvision.CocoMetric",
    "train_cfg.max_epochs=2",
    "param_scheduler=[]",
    "default_hooks.checkpoint={'type':'CheckpointHook','interval':1,'max_keep_ckpts':1}",
]
ARGUMENTS = [
    "--space",
    "lr=1e-4..1e-1",
    "--trials",
    "3",
    "--rounds",
    "1",
    "--cfg-options",
    *CHANGES,
]


def test_a_sweep_of_a_config(tiny_config, tmp_path, capsys):
    folder = tmp_path / "sweep"
    assert tune(tiny_config, "--work-dir", folder, *ARGUMENTS) == 0
    printed = capsys.readouterr().out
    assert "lr: 0.0001 to 0.1, logarithmic" in printed and "3 for 50 %, 1 for 100 %" in printed
    assert printed.count("coco/bbox_mAP 0.") == 4 and "  best\n" in printed
    best = load_config(folder / "best.py")
    rate = best.optim_wrapper.optimizer.lr
    assert f"best    lr={rate}" in printed and best.train_cfg.max_epochs == 2
    # Again: nothing is left to do, and the result is the same.
    assert tune(tiny_config, "--work-dir", folder, *ARGUMENTS) == 0
    again = capsys.readouterr().out
    assert "coco/bbox_mAP 0." not in again
    assert again[again.index("trial  trained") :] == printed[printed.index("trial  trained") :]
    # Another sweep in the same folder.
    assert tune(tiny_config, "--work-dir", folder, *ARGUMENTS, "--factor", "2") == 2
    assert "factor: 3, now 2" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--space", "optim_wrapper.optimizer.lrr=1..2"], "nearest: 'lr'"),
        (["--space", "modle=1..2"], "no 'modle' at the top level"),
        (["--space", "lr=1e-2..1e-3"], "from a lower to a higher"),
        (["--space", "lr=1..x"], "write a range of numbers"),
        (["--space", "batch=[4]"], "a list needs two values"),
        (["--space", "lr=[1,2],lr=1..2"], "named twice"),
        (["--space", ","], "--space is empty"),
        (["--space", "amp=[bf16,fp8]"], "auto, bf16 or fp16"),
        (["--space", "seed=1..2"], "a sweep cannot vary it"),
        (["--space", "lr=1..2", "--objective", "coco/bbox_map"], "nearest: 'coco/bbox_mAP'"),
        (["--space", "lr=1..2", "--launcher", "pytorch"], "trains in one process"),
        (["--space", "lr=1..2", "--cfg-options", "val_dataloader=None"], "has no evaluation"),
        (["--space", "lr=1..2", "--storage", "sqlite:////no/such/folder/a.db"], "cannot be used"),
    ],
)
def test_refused_before_any_training(arguments, message, tiny_config, tmp_path, capsys):
    folder = tmp_path / "sweep"
    assert tune(tiny_config, "--work-dir", folder, *arguments) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.rglob("*.pth")) and not list(folder.glob("trial_*"))
