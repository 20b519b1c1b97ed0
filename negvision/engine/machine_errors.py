"""Errors of the machine, such as a full disk, with messages that say what to do."""

import contextlib
import errno
import os
import re
import traceback
from collections.abc import Iterator
from multiprocessing.connection import wait
from pathlib import Path

import torch

from negvision.errors import UserError, is_user_error

_FULL = (errno.ENOSPC, errno.EDQUOT)
_LOST = (errno.EIO, errno.ESTALE, errno.ENOTCONN, errno.ENODEV, errno.ENXIO)
_REFUSED = (errno.EROFS, errno.EACCES, errno.EPERM)
_GO_ON = "Continue with --resume"


class MachineError(UserError):
    """The disk, a mount, a worker process or the memory of the machine failed."""


def require_writable(work_dir: str | Path) -> None:
    """Check the work dir before hours are spent.

    Raises:
        MachineError: It cannot be created, or no file can be written to it.
    """
    folder = Path(work_dir)
    probe = folder / f".probe-{os.getpid()}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # Not empty: an empty file can be created on a full disk.
        probe.write_bytes(bytes(4096))
        probe.unlink()
    except OSError as error:
        with contextlib.suppress(OSError):
            probe.unlink(missing_ok=True)
        reason = "the disk is full" if error.errno in _FULL else error.strerror
        raise MachineError(
            f"work dir {str(folder)!r} cannot be written: {reason}. Name another one: "
            "--work-dir DIR"
        ) from None


@contextlib.contextmanager
def machine_errors_explained(work_dir: str | Path) -> Iterator[None]:
    """Inside the block, errors of the machine become a :class:`MachineError` that says what to do.

    Args:
        work_dir: Named if the system does not say which file cannot be written.

    Raises:
        MachineError: A full disk, a lost or read-only file system, a dead worker process of a data
            loader, a GPU out of memory.
    """
    try:
        yield
    except (OSError, EOFError, RuntimeError) as error:
        try:
            message = None if is_user_error(error) else _explanation(error, work_dir)
        except RuntimeError as late:  # of torch's signal handler, which may come at any time
            message = _of_worker(str(late))
        if message is None:
            raise
        raise MachineError(message) from error


def _explanation(error: Exception, work_dir: str | Path) -> str | None:
    if isinstance(error, torch.OutOfMemoryError):
        return (
            f"{str(error).splitlines()[0]}\nLower train_dataloader.batch_size (--accumulate N "
            "keeps the number of images per step), or use --amp or --checkpoint-activations"
        )
    if isinstance(error, ConnectionError | EOFError):
        return _of_broken_pipe(error)
    if isinstance(error, OSError):
        return _of_file(error, work_dir)
    return _of_worker(str(error))


def _of_file(error: OSError, work_dir: str | Path) -> str | None:
    # From a worker process only the text of the error arrives.
    found = re.search(r"^OSError: \[Errno (\d+)\] [^:\n]*(?:: '(.*)')?$", str(error), re.MULTILINE)
    if error.errno is None and found:
        error = OSError(int(found[1]), os.strerror(int(found[1])), found[2])
    named = f"{error.filename}: " if error.filename else f"in the run of work dir {work_dir}: "
    if error.errno in _FULL:
        return f"{named}the disk is full. Free some space. {_GO_ON}"
    if error.errno in _LOST:
        return f"{named}{error.strerror}: a file system is gone. {_GO_ON} when it is back"
    if error.errno in _REFUSED:
        return f"{named}{error.strerror}. Make it accessible, or name another --work-dir. {_GO_ON}"
    return None


def _of_broken_pipe(error: BaseException, patience: float = 5.0) -> str | None:
    """The message if the death of a worker process broke a connection.

    A worker that dies while it hands over a batch closes its connection before the system counts
    it as dead, so torch raises the error of the connection. This waits up to ``patience`` seconds
    for the worker's end: otherwise torch's signal handler raises another error later.
    """
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    receiving = [frame for frame in frames if frame.f_code.co_name == "_try_get_data"]
    if not receiving:
        return None
    workers = receiving[0].f_locals["self"]._workers
    ended = wait([worker.sentinel for worker in workers], patience)
    for worker in workers:
        worker.join(patience if worker.sentinel in ended else 0)
    dead = [worker for worker in workers if worker.exitcode is not None]
    pids = ", ".join(str(worker.pid) for worker in dead) or "unknown"
    return _worker_died(pids, f"{type(error).__name__} while a batch was received")


def _of_worker(text: str) -> str | None:
    found = re.search(r"DataLoader worker \(pid\(?s?\)?\.? ?([\d, ]+)\) (.*)", text)
    if found is None:
        return None
    pids, end = found.groups()
    return _worker_died(pids.strip(), end.strip(" ."))


def _worker_died(pids: str, end: str) -> str:
    return (
        f"a worker process of the dataloader (pid {pids}) died: {end}. The usual cause is a lack "
        "of memory, or of space in /dev/shm: lower train_dataloader.num_workers, or give the "
        f"container more. {_GO_ON}"
    )
