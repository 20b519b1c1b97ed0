"""Write checkpoints: whole or not at all, and with all that a run needs to go on."""

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path

import torch.distributed as dist
from mmengine.dist import get_dist_info, is_main_process
from mmengine.hooks import CheckpointHook as MMEngineCheckpointHook

from negvision.errors import CheckpointError
from negvision.registry import HOOKS

INTERRUPTED = "interrupted.pth"
_PARTIAL = ".partial"


@contextlib.contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """Yields a path to write to; in the end the file takes the place of ``path`` at once.

    Where the block raises, or the process or the machine dies, ``path`` is what it was before.

    Raises:
        CheckpointError: The disk is full, or the folder cannot be written.
    """
    partial = path.with_name(f".{path.name}{_PARTIAL}")
    try:
        yield partial
        with partial.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(partial, path)
        _sync_folder(path.parent)
    except BaseException as error:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
        if _cannot_write(error):
            raise CheckpointError(_write_failure(path, error)) from None
        raise


def _cannot_write(error: BaseException) -> bool:
    # torch.save to a file reports a failed write as a RuntimeError of its zip writer.
    return isinstance(error, OSError) or "PytorchStreamWriter" in str(error)


def _write_failure(path: Path, error: BaseException) -> str:
    number = getattr(error, "errno", None)
    reason = os.strerror(number) if number else str(error).splitlines()[0]
    full = number in (errno.ENOSPC, errno.EDQUOT) or _is_full(path.parent)
    remedy = "free some space" if full else "make the folder writable"
    others = sorted(path.parent.glob("*.pth"), key=lambda file: file.stat().st_mtime)
    kept = f"The last whole one is {others[-1]}" if others else "There is none yet"
    return (
        f"checkpoint {path} cannot be written: {'the disk is full' if full else reason}. {kept}; "
        f"{remedy} or choose another --work-dir, then go on with --resume"
    )


def _is_full(folder: Path) -> bool:
    with contextlib.suppress(OSError):
        status = os.statvfs(folder)
        return status.f_bavail * status.f_frsize < 1 << 20
    return False


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_partial_files(folder: Path) -> None:
    """Remove what processes that were killed while writing have left."""
    for file in folder.glob(f".*{_PARTIAL}"):
        file.unlink(missing_ok=True)


def raise_on_all_ranks(error: CheckpointError | None) -> None:
    """Raise on every rank what the first one met, so that none waits for another."""
    if get_dist_info()[1] > 1:
        found = [error]
        dist.broadcast_object_list(found, src=0)
        error = found[0]
    if error is not None:
        raise error


def save_interrupted(runner, epoch: int, iteration: int) -> str:
    """Save the state of a run that a signal ends. All ranks must call this; the file's path."""
    meta = {"epoch": epoch, "iter": iteration}
    runner.save_checkpoint(runner.work_dir, INTERRUPTED, meta=meta, by_epoch=False)
    return str(Path(runner.work_dir) / INTERRUPTED)


@HOOKS.register_module()
class CheckpointHook(MMEngineCheckpointHook):
    """mmengine's ``CheckpointHook``, which removes old checkpoints after the new one is there.

    mmengine removes them before, so that a full disk takes the last good one as well. It stands
    in for mmengine's in any config.
    """

    def before_train(self, runner) -> None:
        super().before_train(runner)
        if isinstance(self.file_backend, _LateRemoval):
            return
        self.file_backend = _LateRemoval(self.file_backend)
        if is_main_process():
            remove_partial_files(Path(self.out_dir))

    def _save_checkpoint_with_step(self, runner, step, meta) -> None:
        super()._save_checkpoint_with_step(runner, step, meta)
        self.file_backend.finish(self.last_ckpt)
        interrupted = Path(runner.work_dir) / INTERRUPTED
        if is_main_process():
            interrupted.unlink(missing_ok=True)

    def _save_best_checkpoint(self, runner, metrics) -> None:
        super()._save_best_checkpoint(runner, metrics)
        written = [self.best_ckpt_path] if hasattr(self, "best_ckpt_path") else []
        written += getattr(self, "best_ckpt_path_dict", {}).values()
        if hasattr(self, "file_backend"):  # nothing is saved outside of a training
            self.file_backend.finish(*written)


class _LateRemoval:
    """A file backend that removes files when it is told to finish."""

    def __init__(self, backend) -> None:
        self._backend, self._outdated = backend, []

    def remove(self, path: str) -> None:
        self._outdated.append(path)

    def finish(self, *written: str) -> None:
        for path in self._outdated:
            if path not in written and self._backend.isfile(path):
                self._backend.remove(path)
        self._outdated = []

    def __getattr__(self, name: str):
        return getattr(self._backend, name)
