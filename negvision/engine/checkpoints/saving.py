"""Write checkpoints atomically, and remove old ones only after that."""

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

import torch.distributed as dist
from mmengine.dist import get_dist_info, is_main_process
from mmengine.hooks import CheckpointHook as MMEngineCheckpointHook
from mmengine.runner import IterBasedTrainLoop

from negvision.data.score_threshold import ScoreThreshold
from negvision.errors import CheckpointError
from negvision.files import atomic_write, is_write_error, remove_partial_files, write_reason
from negvision.registry import HOOKS

INTERRUPTED = "interrupted.pth"


@contextlib.contextmanager
def write_checkpoint(path: Path) -> Iterator[Path]:
    """:func:`negvision.files.atomic_write` with an error that names the last good checkpoint.

    Raises:
        CheckpointError: The disk is full, or the folder cannot be written.
    """
    try:
        with atomic_write(path, error=None) as partial:
            yield partial
    except Exception as error:
        if not is_write_error(error):
            raise
        raise CheckpointError(_write_failure(path, error)) from None


def _write_failure(path: Path, error: Exception) -> str:
    # torch.save does not report why it failed.
    full = getattr(error, "errno", None) is None and _is_full(path.parent)
    reason = "the disk is full" if full else write_reason(error)
    remedy = "free some space" if "full" in reason else "make the folder writable"
    others = sorted(path.parent.glob("*.pth"), key=lambda file: file.stat().st_mtime)
    kept = f"The last good one is {others[-1]}" if others else "There is none yet"
    return (
        f"checkpoint {path} cannot be written: {reason}. {kept}; {remedy} or choose another "
        "--work-dir, then continue with --resume"
    )


def _is_full(folder: Path) -> bool:
    with contextlib.suppress(OSError):
        return shutil.disk_usage(folder).free < 1 << 20
    return False


def raise_on_all_ranks(error: CheckpointError | None) -> None:
    """Raise on every rank the error of the first one, so that no rank waits for another."""
    if get_dist_info()[1] > 1:
        found = [error]
        dist.broadcast_object_list(found, src=0)
        error = found[0]
    if error is not None:
        raise error


@HOOKS.register_module()
class CheckpointHook(MMEngineCheckpointHook):
    """mmengine's ``CheckpointHook``, which never costs the last state of a run.

    Old checkpoints are removed after the new one is written; mmengine removes them first, so a full
    disk costs the last good one as well. With ``save_last`` the end of a run that stops early is
    saved too. The runner replaces mmengine's hook by this one in any config.
    """

    _written_with: ScoreThreshold | None = None

    def before_train(self, runner) -> None:
        super().before_train(runner)
        if isinstance(self.file_backend, _LateRemoval):
            return
        self.file_backend = _LateRemoval(self.file_backend)
        if is_main_process():
            remove_partial_files(Path(self.out_dir))
        if self.by_epoch and isinstance(runner.train_loop, IterBasedTrainLoop):
            runner.logger.warning(
                "CheckpointHook counts epochs, and the run counts iterations: nothing is saved "
                "before its end. Set by_epoch=False in default_hooks.checkpoint"
            )

    def after_train(self, runner) -> None:
        if self.save_last and runner.saved_iteration != runner.iter:
            step = runner.epoch if self.by_epoch else runner.iter
            meta = {"epoch": runner.epoch, "iter": runner.iter}
            self._save_checkpoint_with_step(runner, step, meta)
        super().after_train(runner)

    def after_val_epoch(self, runner, metrics) -> None:
        super().after_val_epoch(runner, metrics)
        # The checkpoint of this iteration was written before its evaluation.
        written = runner.evaluating_in_training and runner.saved_iteration == runner.iter
        if written and self._written_with is not runner.score_threshold:
            step = runner.epoch if self.by_epoch else runner.iter
            meta = {"epoch": runner.epoch, "iter": runner.iter}
            self._save_checkpoint_with_step(runner, step, meta)

    def _save_checkpoint_with_step(self, runner, step, meta) -> None:
        super()._save_checkpoint_with_step(runner, step, meta)
        self._written_with = runner.score_threshold
        self.file_backend.finish(self.last_ckpt)
        interrupted = Path(runner.work_dir) / INTERRUPTED
        if is_main_process():
            interrupted.unlink(missing_ok=True)

    def _save_best_checkpoint(self, runner, metrics) -> None:
        super()._save_best_checkpoint(runner, metrics)
        written = [self.best_ckpt_path] if hasattr(self, "best_ckpt_path") else []
        written += getattr(self, "best_ckpt_path_dict", {}).values()
        if hasattr(self, "file_backend"):  # only in a training
            self.file_backend.finish(*written)


class _LateRemoval:
    """A file backend that removes files only when ``finish`` is called."""

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
