"""Save and stop a run on a signal, with an exit status of its own."""

import contextlib
import os
import signal
import threading
import time
from pathlib import Path

import torch
import torch.distributed as dist
from mmengine.dist import get_dist_info
from mmengine.hooks import Hook

from negvision.registry import HOOKS

# EX_TEMPFAIL of sysexits.h, "try again later", which schedulers can tell from a failure.
EXIT_INTERRUPTED = 75
# Windows lacks two of these.
_SIGNALS = [
    signal.Signals[name]
    for name in ("SIGTERM", "SIGUSR1", "SIGHUP", "SIGINT")
    if name in signal.Signals.__members__
]
# A launcher passes Ctrl-C on to ranks that the terminal reached too.
_TWICE_AT_ONCE = 1.0


class TrainingInterrupted(Exception):
    """A signal ended the training; its state is in a checkpoint for ``--resume``.

    Attributes:
        status: The exit status of the command: 130 after Ctrl-C, otherwise
            :data:`EXIT_INTERRUPTED`.
    """

    def __init__(self, received: signal.Signals, checkpoint: Path) -> None:
        super().__init__(
            f"{received.name}: the training was interrupted. To continue from {checkpoint}, run "
            "the same command with --resume"
        )
        by_hand = received is signal.SIGINT
        self.status = 128 + received if by_hand else EXIT_INTERRUPTED


@HOOKS.register_module()
class InterruptionHook(Hook):
    """On a signal finish the iteration, save ``interrupted.pth`` and end the run.

    The signals are SIGTERM, SIGUSR1, SIGHUP and SIGINT (Ctrl-C); a second Ctrl-C ends the run at
    once. SLURM sends SIGUSR1 before the time limit if asked to (``--signal=USR1@120``), schedulers
    and Kubernetes send SIGTERM, and a terminal that closes sends SIGHUP. ``negvision train`` then
    exits with the status of :class:`TrainingInterrupted`. During an evaluation the state before it
    is saved, and a resumed run evaluates first. In a distributed run all ranks stop after the same
    iteration, whichever of them got the signal.

    The runner adds this hook to any config; ``default_hooks=dict(interruption=None)`` removes it.
    """

    # After all others, so that the saved state includes their work.
    priority = "LOWEST"

    def __init__(self) -> None:
        self._received: signal.Signals | None = None
        self._since = 0.0
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
            # nohup has SIGHUP ignored, and shells SIGINT in the background.
            if signal.getsignal(number) is not signal.SIG_IGN:
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
        runner.leave_evaluation()
        self._leave(runner, self._received, runner.iter)

    def after_train(self, runner) -> None:
        self.restore_handlers()

    def _receive(self, number: int, frame: object) -> None:
        if number == signal.SIGINT:
            now = time.monotonic()
            if self._received is signal.SIGINT and now - self._since > _TWICE_AT_ONCE:
                raise KeyboardInterrupt
            if self._received is None and os.environ.get("RANK", "0") == "0":
                # Not by print, which the signal may have interrupted.
                os.write(2, b"\nCtrl-C: saving after this iteration; again: end at once\n")
            self._since = now
        self._received = self._received or signal.Signals(number)

    def _agree(self) -> signal.Signals | None:
        if get_dist_info()[1] == 1:
            return self._received
        flag = torch.tensor([self._received or 0], dtype=torch.int64)
        dist.all_reduce(flag, op=dist.ReduceOp.MAX, group=self._group)
        return signal.Signals(int(flag)) if flag else None

    def _leave(self, runner, received: signal.Signals, iteration: int) -> None:
        checkpoint = runner.save_interrupted(runner.epoch, iteration)
        self.restore_handlers()
        raise TrainingInterrupted(received, checkpoint)

    def restore_handlers(self) -> None:
        """Give the signals back to whoever handled them before the training."""
        for number, handler in self._before.items():
            with contextlib.suppress(TypeError):  # a handler that was not set from Python
                signal.signal(number, handler)
        self._before = {}
