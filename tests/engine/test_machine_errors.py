import errno
import os
import signal

import pytest
import torch
from helpers.tiny_training import At, Noisy, loader, make_runner
from torch.utils.data import DataLoader

from negvision.engine.machine_errors import MachineError, machine_errors_explained


class Deadly(Noisy):
    """Its worker process is killed at a sample, as the system does where memory is spent."""

    def __getitem__(self, index):
        if index == 7:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__getitem__(index)


def test_dead_data_worker(tmp_path):
    runner = make_runner(tmp_path, train_dataloader=loader(Deadly(), workers=1))
    with pytest.raises(MachineError) as error, machine_errors_explained(tmp_path):
        runner.train()
    message = str(error.value)
    assert "worker process of the dataloader (pid " in message
    assert "num_workers" in message and "--resume" in message


class Parting:
    """Sent to another process, it kills the process that sent it as it is received."""

    def __reduce__(self):
        return _kill, (os.getpid(),)


def _kill(pid):
    os.kill(pid, signal.SIGKILL)
    raise EOFError


class DyingAsItSends(Noisy):
    def __getitem__(self, index):
        return super().__getitem__(index) | ({"late": Parting()} if index == 7 else {})


def keep(samples):
    return samples


def test_data_worker_that_dies_as_it_hands_over_a_batch():
    batches = DataLoader(DyingAsItSends(), batch_size=4, num_workers=2, collate_fn=keep)
    with (
        pytest.raises(MachineError, match=r"pid \d+\) died: .*--resume"),
        machine_errors_explained("work"),
    ):
        list(batches)


class OnLostMount(Noisy):
    def __getitem__(self, index):
        if index == 7:
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE), "/mnt/data/7.jpg")
        return super().__getitem__(index)


@pytest.mark.parametrize("workers", [0, 1])
def test_lost_mount(tmp_path, workers):
    runner = make_runner(tmp_path, train_dataloader=loader(OnLostMount(), workers=workers))
    with pytest.raises((MachineError, OSError)) as error, machine_errors_explained(tmp_path):
        runner.train()
    assert isinstance(error.value, MachineError)
    assert "/mnt/data/7.jpg: Stale file handle" in str(error.value)


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        (errno.ENOSPC, "the disk is full"),
        (errno.EDQUOT, "the disk is full"),
        (errno.EROFS, "Read-only file system"),
        (errno.EIO, "a file system is gone"),
    ],
)
def test_write_errors_of_the_run(tmp_path, number, expected):
    def fail():
        raise OSError(number, os.strerror(number))

    runner = make_runner(tmp_path, custom_hooks=[At(2, fail)])
    with pytest.raises(MachineError, match=expected) as error, machine_errors_explained(tmp_path):
        runner.train()
    assert str(tmp_path) in str(error.value) and "--resume" in str(error.value)


def test_gpu_out_of_memory():
    expected = r"tried to allocate.*\n.*batch_size.*--accumulate"
    with pytest.raises(MachineError, match=expected), machine_errors_explained("work"):
        raise torch.OutOfMemoryError("CUDA out of memory: tried to allocate 20 GiB\ndetails")


@pytest.mark.parametrize(
    "error",
    [RuntimeError("shapes"), FileNotFoundError(2, "No such file", "a"), KeyError(1), EOFError(),
     ConnectionResetError()],
)  # fmt: skip
def test_other_errors_pass(error):
    with pytest.raises(type(error)) as caught, machine_errors_explained("work"):
        raise error
    assert caught.value is error
