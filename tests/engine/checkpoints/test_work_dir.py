"""A folder of checkpoints belongs to one run, which may be killed at any time."""

import subprocess
import sys

import pytest
import torch
from helpers.gloo import run_on_ranks
from helpers.tiny_training import make_runner
from helpers.work_dir_on_ranks import check_refusal

from negvision.engine.checkpoints.finding import find_resume_checkpoint
from negvision.engine.checkpoints.work_dir import LOCK, claimed
from negvision.errors import CheckpointError

# Holds the lock until it is killed, and has a child process that lives on.
HOLDER = """
import os, sys, time
from pathlib import Path
from negvision.engine.checkpoints.work_dir import claimed
with claimed([Path(sys.argv[1])], None):
    if not os.fork():
        time.sleep(30)
        os._exit(0)
    print("claimed", flush=True)
    time.sleep(600)
"""


def files_in(folder):
    files = {file.name: file for file in folder.iterdir() if file.is_file()}
    return {name: file.read_bytes() for name, file in files.items() if name != LOCK}


def test_another_run_may_not_overwrite_checkpoints(tmp_path):
    work = tmp_path / "run"
    make_runner(work).train()
    before = files_in(work)
    with pytest.raises(CheckpointError, match=r"epoch_3\.pth and 1 more.*--resume.*--work-dir"):
        make_runner(work).train()
    # Nor one that continues another run.
    elsewhere = make_runner(tmp_path / "other")
    elsewhere.train()
    start = str(tmp_path / "other" / "epoch_2.pth")
    with pytest.raises(CheckpointError, match=r"other/epoch_2\.pth is none of them"):
        make_runner(work, resume=True, load_from=start).train()
    assert {name: text for name, text in files_in(work).items() if name in before} == before
    # From any of its own it may continue.
    make_runner(work, resume=True, load_from=str(work / "epoch_2.pth")).train()
    make_runner(work, resume=True).train()


def test_files_of_others_are_no_checkpoints_of_a_run(tmp_path):
    torch.save({"state_dict": {}}, tmp_path / "pretrained.pth")
    (tmp_path / "last_checkpoint").write_text(str(tmp_path / "gone.pth"))
    make_runner(tmp_path).train()
    assert (tmp_path / "epoch_3.pth").exists()


@pytest.mark.parametrize("name", ["iter_7.pth", "best_sum_epoch_1.pth", "interrupted.pth"])
def test_any_checkpoint_of_a_run_counts(tmp_path, name):
    (tmp_path / name).touch()
    with pytest.raises(CheckpointError, match=name), claimed([tmp_path], None):
        pass
    with claimed([tmp_path], ""), claimed([tmp_path], str(tmp_path / name)):
        pass


def test_runs_with_one_folder_of_checkpoints(tmp_path):
    hook = {"type": "CheckpointHook", "interval": 1, "out_dir": str(tmp_path / "out")}
    options = {"default_hooks": {"checkpoint": hook}}
    make_runner(tmp_path / "a" / "run", **options).train()
    with pytest.raises(CheckpointError, match="out/run' has checkpoints"):
        make_runner(tmp_path / "b" / "run", **options).train()
    start = str(find_resume_checkpoint(tmp_path / "a" / "run"))
    assert start == str(tmp_path / "out" / "run" / "epoch_3.pth")
    make_runner(tmp_path / "a" / "run", resume=True, load_from=start, **options).train()


def test_two_runs_at_once(tmp_path):
    command = [sys.executable, "-c", HOLDER, str(tmp_path)]
    holder = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout.readline() == "claimed\n"
        for resumed in (None, ""):
            with (
                pytest.raises(CheckpointError, match=rf"(?s)process {holder.pid} on .*--work-dir"),
                claimed([tmp_path], resumed),
            ):
                pass
    finally:
        holder.kill()
        holder.wait()
    # Nothing is left of a run that was killed but the file, although its child still runs.
    assert (tmp_path / LOCK).exists()
    with claimed([tmp_path], None):
        pass


def test_a_folder_without_locks_is_used(tmp_path, monkeypatch):
    def no_locks(*_):
        raise OSError(37, "No locks available")

    monkeypatch.setattr("fcntl.lockf", no_locks)
    with claimed([tmp_path], None):
        pass


def test_all_ranks_learn_that_a_folder_is_in_use(tmp_path):
    (tmp_path / "iter_7.pth").touch()
    run_on_ranks(check_refusal, 2, tmp_path, tmp_path)


def test_a_finished_run_writes_nothing(tmp_path):
    make_runner(tmp_path, by_epoch=False).train()
    before = (tmp_path / "iter_18.pth").stat().st_mtime_ns
    make_runner(tmp_path, resume=True, by_epoch=False).train()
    assert (tmp_path / "iter_18.pth").stat().st_mtime_ns == before


def test_a_test_keeps_the_config_of_the_training(tmp_path):
    from mmengine.config import Config

    config = tmp_path / "a.py"
    for text in ("x = 1\n", "x = 2\n"):
        config.write_text(text)
        runner = make_runner(tmp_path / "run", cfg=Config.fromfile(str(config)))
    assert runner.cfg.x == 2
    assert (tmp_path / "run" / "a.py").read_text() == "x = 1\n"
    runner.train()
    assert (tmp_path / "run" / "a.py").read_text() == "x = 2\n"
