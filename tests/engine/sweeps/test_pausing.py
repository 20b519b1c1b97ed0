"""A training that is paused at an evaluation goes on to the same bits."""

import pytest
from helpers.tiny_training import assert_same, make_runner, outcome
from mmengine.hooks import Hook

from negvision.engine.checkpoints.finding import find_resume_checkpoint
from negvision.engine.sweeps.pausing import PauseHook, TrainingPaused, record_of

pytestmark = pytest.mark.filterwarnings("ignore")


class Evaluations(Hook):
    """Calls a function with the iterations after which there was an evaluation."""

    def __init__(self, add):
        self.add = add

    def after_val_epoch(self, runner, metrics=None):
        self.add(runner.iter)


@pytest.mark.parametrize("by_epoch", [True, False])
def test_bit_identical_after_pauses(by_epoch, tmp_path):
    whole = make_runner(tmp_path / "whole", by_epoch, ema=True)
    whole.train()
    expected = outcome(whole)
    folder, places = tmp_path / "parts", []
    for share in (0.3, 0.3, 0.7, 1.0):
        start = find_resume_checkpoint(folder) if folder.exists() else None
        hook = PauseHook("sum", share)
        runner = make_runner(
            folder, by_epoch, ema=True, custom_hooks=[Evaluations(places.append)],
            resume=start is not None, load_from=start and str(start),
        )  # fmt: skip
        runner.register_hook(hook)
        if share < 1:
            with pytest.raises(TrainingPaused):
                runner.train()
        else:
            runner.train()
        assert hook.reached.place == (runner.epoch if by_epoch else runner.iter)
        assert record_of(folder, share).is_file()
    assert_same(outcome(runner), expected)
    # The second attempt at a part that is done trains and evaluates nothing.
    assert places == ([6, 12, 18] if by_epoch else [5, 10, 15, 18])
