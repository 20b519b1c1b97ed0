"""Save and stop a run on SIGTERM or SIGUSR1, with an exit code of its own."""

import contextlib
import signal
import threading
from pathlib import Path

import torch
import torch.distributed as dist
from mmengine.dist import get_dist_info
from mmengine.hooks import EMAHook, Hook

from negvision.engine.checkpoints.saving import INTERRUPTED
from negvision.registry import HOOKS

# EX_TEMPFAIL of sysexits.h, "try again later", which schedulers can tell from a failure.
EXIT_INTERRUPTED = 75
_SIGNALS = (signal.SIGTERM, signal.SIGUSR1)


class TrainingInterrupted(Exception):
    """A signal ended the training; its state is in a checkpoint for ``--resume``."""

    def __init__(self, signal_name: str, checkpoint: str) -> None:
        super().__init__(
            f"{signal_name}: the training was interrupted. To continue from {checkpoint}, run the "
            "same command with --resume"
        )


@HOOKS.register_module()
class InterruptionHook(Hook):
    """On SIGTERM or SIGUSR1 finish the iteration, save ``interrupted.pth`` and end the run.

    SLURM sends SIGUSR1 before the time limit if asked to (``--signal=USR1@120``), schedulers and
    Kubernetes send SIGTERM. ``negvision train`` then exits with :data:`EXIT_INTERRUPTED`. During an
    evaluation the state before it is saved, and a resumed run evaluates first. In a distributed
    run all ranks stop after the same iteration, whichever of them got the signal.

    The runner adds this hook to any config; ``default_hooks=dict(interruption=None)`` removes it.
    """

    # After all others, so that the saved state includes their work.
    priority = "LOWEST"

    def __init__(self) -> None:
        self._received: signal.Signals | None = None
        self._before: dict[signal.Signals, object] = {}
        self._group = None

    def before_train(self, runner) -> None:
        self._received = None
        if get_dist_info()[1] > 1 and dist.get_backend() != "gloo":
            # A flag on the CPU does not wait for the GPU.
            self._group = dist.new_group(backend="gloo")
        if threading.current_thread() is not threading.main_thread():
            return
        for number in _SIGNALS:
            self._before[number] = signal.signal(number, self._receive)

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        received = self._agree()
        if received is not None:
            self._leave(runner, received, runner.iter + 1)

    def after_val_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        # Ranks cannot agree here, since their numbers of batches may differ. Schedulers send the
        # signal to all of them.
        if self._received is None or not runner.evaluating_in_training:
            return
        for hook in runner.hooks:
            if isinstance(hook, EMAHook):
                # Restores the weights of the training.
                hook.after_val_epoch(runner)
        self._leave(runner, self._received, runner.iter)

    def after_train(self, runner) -> None:
        self._restore()

    def _receive(self, number: int, frame: object) -> None:
        self._received = signal.Signals(number)

    def _agree(self) -> signal.Signals | None:
        if get_dist_info()[1] == 1:
            return self._received
        flag = torch.tensor([self._received or 0], dtype=torch.int64)
        dist.all_reduce(flag, op=dist.ReduceOp.MAX, group=self._group)
        return signal.Signals(int(flag)) if flag else None

    def _leave(self, runner, received: signal.Signals, iteration: int) -> None:
        meta = {"epoch": runner.epoch, "iter": iteration}
        runner.save_checkpoint(runner.work_dir, INTERRUPTED, meta=meta, by_epoch=False)
        self._restore()
        raise TrainingInterrupted(received.name, str(Path(runner.work_dir) / INTERRUPTED))

    def _restore(self) -> None:
        for number, handler in self._before.items():
            with contextlib.suppress(TypeError):  # a handler that was not set from Python
                signal.signal(number, handler)
        self._before = {}
