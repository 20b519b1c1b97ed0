"""A config's hook, for trainings in processes of their own: once, something happens to rank 1."""

import os
import signal
import time
from pathlib import Path

from mmengine.hooks import Hook
from mmengine.registry import HOOKS

from negvision.engine.interruption import InterruptionHook

SECONDS = 300  # for a signal to arrive, on a busy machine


@HOOKS.register_module()
class Event(Hook):
    """Before the fourth iteration: the process is killed, or waits until a signal reached it.

    ``mark`` is a file that says that it has happened.
    """

    def __init__(self, what: str, mark: str) -> None:
        self.what, self.mark = what, Path(mark)

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        if runner.iter != 3 or self.mark.exists() or os.environ["RANK"] != "1":
            return
        self.mark.touch()
        if self.what == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        [interruption] = [hook for hook in runner.hooks if isinstance(hook, InterruptionHook)]
        end = time.monotonic() + SECONDS
        while interruption._received is None and time.monotonic() < end:
            time.sleep(0.01)


def with_event(text: str, what: str, mark: Path) -> str:
    """The text of ``tiny_config``, with three epochs of which the second has the event."""
    return (
        text.replace("max_epochs=1", "max_epochs=3")
        + "randomness = dict(seed=3)\n"
        + 'custom_imports = dict(imports=["helpers.event_hook"])\n'
        + f'custom_hooks = [dict(type="Event", what="{what}", mark="{mark}")]\n'
    )


def wait_for(mark: Path, process) -> None:
    """Until the event has happened in a training that ``process`` started."""
    while not mark.exists():
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.05)
