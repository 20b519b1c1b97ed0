"""The check of a config's data from the command line: splits, exit status, JSON, Ctrl-C."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.commands import command

run = command("check-dataset")

ROOT = Path(__file__).parents[2]


def test_clean_split_is_status_0(tiny_config, capsys):
    assert run(tiny_config, "--split", "train", "--workers", 1) == 0
    printed = capsys.readouterr()
    assert "train: CocoDataset" in printed.out and "annotations/all.json" in printed.out
    assert "8 of 8 read, 0 of them unusable" in printed.out
    assert "no problem in 8 images" in printed.out
    # No bar where the output is no terminal.
    assert "it/s" not in printed.err and "img/s" not in printed.err


def test_problems_are_status_1_and_all_splits_are_read(tiny_config, tmp_path, capsys):
    """The set is trained and evaluated on at once, which is the problem; val and test are one."""
    out = tmp_path / "found.json"
    assert run(tiny_config, "--workers", 0, "--json", out) == 1
    printed = capsys.readouterr().out
    assert "val, test: CocoDataset" in printed
    assert "8 x image of train that is in test and val too" in printed
    assert "8 problems in 16 images" in printed
    data = json.loads(out.read_text())
    assert data["config"] == str(tiny_config) and data["complete"] is True
    assert data["number_of_problems"] == data["across"]["problems"][0]["count"] == 8
    assert [scan["splits"] for scan in data["datasets"]] == [["train"], ["val", "test"]]


def test_wrapped_sets_are_taken_apart(tiny_config, capsys):
    text = tiny_config.read_text()
    tiny_config.write_text(
        text
        + "one = train_dataloader['dataset']\n"
        + "train_dataloader['dataset'] = dict(type='RepeatDataset', times=3, dataset=dict(\n"
        + "    type='ConcatDataset', datasets=[one, dict(one, ann_file='annotations/no.json')]))\n"
    )
    # One of the two is missing; the other is read.
    assert run(tiny_config, "--split", "train", "val", "--workers", 0) == 1
    printed = capsys.readouterr().out
    assert printed.count("train: CocoDataset") == 2 and "none could be loaded" in printed
    assert "annotations/no.json" in printed and "8 of 8 read" in printed


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--workers", "-1"], "--workers: '-1' is not 0 or a positive integer"),
        (["--data-root", "nowhere"], "nowhere/annotations/all.json does not exist"),
        (["--cfg-options", "train_dataloader=None", "--split", "train"], "no train_dataloader"),
        (["--cfg-options", "model.bakbone=1"], "bakbone"),
        (["--json", "/proc/none/out.json"], "/proc/none/out.json cannot be written"),
    ],
)
def test_user_errors_are_status_2(tiny_config, capsys, argv, message):
    assert run(tiny_config, *argv) == 2
    error = capsys.readouterr().err
    assert message in error and "Traceback" not in error


SLOW = """
import os, signal, threading, time
from negvision.cli.main import main
from negvision.data.check import sample

# A job in the background of a shell starts with the signal ignored.
signal.signal(signal.SIGINT, signal.default_int_handler)

load = sample.SampleCheck.__call__

def slowly(self, index):
    if index == 5:
        # A terminal sends Ctrl-C to the workers as well.
        os.killpg(os.getpgid(0), signal.SIGINT)
        time.sleep(600)
    return load(self, index)

sample.SampleCheck.__call__ = slowly
import sys
sys.exit(main(["check-dataset", *sys.argv[1:]]))
"""


def test_ctrl_c_of_a_terminal_is_status_130(tiny_config):
    process = subprocess.Popen(
        [sys.executable, "-c", SLOW, str(tiny_config), "--split", "train", "--workers", "2"],
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    out, error = process.communicate(timeout=900)
    assert process.returncode == 130, error
    assert "interrupted: no problem in" in out and "of 8 images" in out
    assert "Traceback" not in error
    # No worker is left in the group.
    with pytest.raises(ProcessLookupError):
        os.killpg(process.pid, signal.SIGCONT)
