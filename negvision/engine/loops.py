"""Training loops that go on where a run was interrupted, in the middle of an epoch too.

They take the place of mmengine's loops of the same names in any config (:class:`Runner
<negvision.engine.runner.Runner>`), and differ in what an interruption would change:

- A resumed run begins with the batch after the last one that was trained on, and with the random
  states of that moment, so its weights are those of a run that was never interrupted.
- An evaluation draws no random number of the training's, and one that was due when the checkpoint
  was written is made first.
"""

from collections.abc import Iterator

from mmengine.runner import EpochBasedTrainLoop, IterBasedTrainLoop

from negvision.engine.data_order import SeededBatches
from negvision.registry import LOOPS


class _Resumable:
    """What both loops share."""

    def _start(self) -> None:
        self.runner.call_hook("before_train")
        resumed = self._iter > 0
        if resumed and self._evaluation_is_due():
            self._evaluate()
        self.runner.restore_random_state()

    def _evaluate(self) -> None:
        if self.runner.val_loop is None:
            return
        with self.runner.evaluation_in_training():
            self.runner.val_loop.run()

    def _begin(self, epoch: int, batch: int) -> None:
        batches = self.dataloader.batch_sampler
        if isinstance(batches, SeededBatches):
            batches.begin(epoch, batch, self.runner.seed)


@LOOPS.register_module()
class EpochTrainLoop(_Resumable, EpochBasedTrainLoop):
    """mmengine's ``EpochBasedTrainLoop``, resumable within an epoch; see the module."""

    def run(self):
        """Train to the last epoch; the trained model."""
        self._start()
        while self._epoch < self._max_epochs and not self.stop_training:
            self.run_epoch()
            if self._evaluation_is_due():
                self._evaluate()
        self.runner.call_hook("after_train")
        return self.runner.model

    def run_epoch(self) -> None:
        """Train on what is left of an epoch."""
        first = self._iter - self._epoch * len(self.dataloader)
        self.runner.call_hook("before_train_epoch")
        self.runner.model.train()
        if first < len(self.dataloader):
            self._begin(self._epoch, first)
            for number, batch in enumerate(self.dataloader, first):
                self.run_iter(number, batch)
        self.runner.call_hook("after_train_epoch")
        self._epoch += 1

    def _evaluation_is_due(self) -> bool:
        self._decide_current_val_interval()
        at_end = self._iter == self._epoch * len(self.dataloader)
        due = self._epoch % self.val_interval == 0 or self._epoch == self._max_epochs
        return at_end and due and self._epoch >= self.val_begin


@LOOPS.register_module()
class IterTrainLoop(_Resumable, IterBasedTrainLoop):
    """mmengine's ``IterBasedTrainLoop``, resumable at any iteration; see the module."""

    def run(self):
        """Train to the last iteration; the trained model."""
        self._start()
        # The whole training is one big epoch to the hooks.
        self.runner.call_hook("before_train_epoch")
        batches = self._batches()
        while self._iter < self._max_iters and not self.stop_training:
            self.runner.model.train()
            self.run_iter(next(batches))
            if self._evaluation_is_due():
                self._evaluate()
        self.runner.call_hook("after_train_epoch")
        self.runner.call_hook("after_train")
        return self.runner.model

    def _batches(self) -> Iterator:
        sampler = self.dataloader.batch_sampler
        endless = isinstance(sampler, SeededBatches) and sampler.endless
        epoch, first = (0, self._iter) if endless else divmod(self._iter, len(self.dataloader))
        while True:
            self._begin(epoch, first)
            yield from self.dataloader
            epoch, first = epoch + 1, 0

    def _evaluation_is_due(self) -> bool:
        self._decide_current_val_interval()
        due = self._iter % self.val_interval == 0 or self._iter == self._max_iters
        return due and self._iter >= self.val_begin
