"""Training loops that resume exactly, also in the middle of an epoch.

:class:`Runner <negvision.engine.runner.Runner>` replaces mmengine's loops by them in any config.
The differences:

- A resumed run starts with the next batch and the random states of the checkpoint, so its weights
  are those of a run that was never interrupted.
- An evaluation does not change the random state of the training, and an evaluation that was due
  when the checkpoint was written is run first.
"""

from collections.abc import Iterator

from mmengine.runner import BaseLoop, EpochBasedTrainLoop, IterBasedTrainLoop

from negvision.engine.data_order import SeededBatches
from negvision.registry import LOOPS


class _Resumable(BaseLoop):
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
    """mmengine's ``EpochBasedTrainLoop``, resumable within an epoch."""

    def run(self):
        """Train to the last epoch; returns the model."""
        self._start()
        while self._epoch < self._max_epochs and not self.stop_training:
            self.run_epoch()
            if self._evaluation_is_due():
                self._evaluate()
        self.runner.call_hook("after_train")
        return self.runner.model

    def run_epoch(self) -> None:
        """Train on the rest of an epoch."""
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
    """mmengine's ``IterBasedTrainLoop``, resumable at any iteration."""

    def run(self):
        """Train to the last iteration; returns the model."""
        self._start()
        # For the hooks the training is one epoch.
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
