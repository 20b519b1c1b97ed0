import contextlib
import os
import subprocess

import pytest
import torch
from helpers.tiny_training import make_runner
from mmengine.hooks import Hook

from negvision.engine.checkpoints.finding import find_damage, find_resume_checkpoint
from negvision.engine.checkpoints.saving import write_checkpoint
from negvision.engine.machine_errors import MachineError, require_writable
from negvision.errors import CheckpointError


@contextlib.contextmanager
def mounted(folder, options):
    """A file system in memory at ``folder``."""
    folder.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], capture_output=True
    )
    if made.returncode:
        pytest.skip("a small file system cannot be mounted: not root, or a container without it")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


class Fill(Hook):
    """Leave no room on the disk after an iteration."""

    def __init__(self, iteration, folder):
        self.iteration, self.folder = iteration, folder

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        if runner.iter + 1 == self.iteration:
            with contextlib.suppress(OSError), (self.folder / "others").open("wb") as file:
                while True:
                    file.write(bytes(4096))
                    file.flush()


@pytest.mark.parametrize("keep", [1, 2])
def test_full_disk_keeps_the_last_good_checkpoint(tmp_path, keep):
    with mounted(tmp_path / "disk", "size=2m") as disk:
        hook = Fill(8, disk)
        checkpoint = {"type": "CheckpointHook", "interval": 1, "max_keep_ckpts": keep}
        runner = make_runner(
            disk / "run",
            custom_hooks=[hook],
            default_hooks={"checkpoint": checkpoint, "logger": {"type": "LoggerHook"}},
            visualizer={"type": "Visualizer", "vis_backends": []},
        )
        with pytest.raises(CheckpointError) as error:
            runner.train()
        message = str(error.value)
        assert "epoch_2.pth" in message and "the disk is full" in message
        assert "The last good one is" in message and "epoch_1.pth" in message
        kept = find_resume_checkpoint(disk / "run")
        assert kept.name == "epoch_1.pth" and find_damage(kept) is None
        assert not list((disk / "run").glob(".*"))


def test_old_checkpoints_are_removed_after_the_new_one_is_written(tmp_path):
    seen = []

    class See(Hook):
        def before_save_checkpoint(self, runner, checkpoint):
            seen.append(sorted(file.name for file in tmp_path.glob("*.pth")))

    checkpoint = {"type": "CheckpointHook", "interval": 1, "max_keep_ckpts": 1}
    make_runner(tmp_path, custom_hooks=[See()], default_hooks={"checkpoint": checkpoint}).train()
    assert seen == [[], ["epoch_1.pth"], ["epoch_2.pth"]]
    assert [file.name for file in tmp_path.glob("*.pth")] == ["epoch_3.pth"]


def test_best_checkpoint_is_removed_after_the_better_one_is_written(tmp_path):
    checkpoint = {"type": "CheckpointHook", "interval": 1, "save_best": "sum", "rule": "greater"}
    make_runner(tmp_path, default_hooks={"checkpoint": checkpoint}).train()
    best = list(tmp_path.glob("best_*.pth"))
    assert len(best) == 1
    content = torch.load(best[0], weights_only=False)
    assert "optimizer" not in content and "random_states" not in content["meta"]
    # It is saved anew with the name of the best, so that a resumed run can replace that.
    assert find_resume_checkpoint(tmp_path).name == "epoch_3.pth"


def test_read_only_folder(tmp_path):
    with mounted(tmp_path / "disk", "size=1m,ro") as disk:
        expected = pytest.raises(CheckpointError, match=r"a\.pth cannot be written: Read-only file")
        with expected, write_checkpoint(disk / "a.pth") as partial:
            partial.write_text("new")
        assert os.listdir(disk) == []
        # Before a training.
        with pytest.raises(MachineError, match=r"Read-only file system.*--work-dir"):
            require_writable(disk)
        with pytest.raises(MachineError, match=r"run' cannot be written"):
            require_writable(disk / "run")


def test_full_work_dir_is_reported_before_training(tmp_path):
    with mounted(tmp_path / "disk", "size=64k") as disk:
        with contextlib.suppress(OSError):
            (disk / "others").write_bytes(bytes(1 << 20))
        with pytest.raises(MachineError, match="the disk is full"):
            require_writable(disk)


def test_work_dir_that_is_a_file_or_new(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(MachineError, match=r"'.*file/run' cannot be written.*--work-dir"):
        require_writable(tmp_path / "file" / "run")
    require_writable(tmp_path / "a" / "b")
    assert list((tmp_path / "a" / "b").iterdir()) == []
