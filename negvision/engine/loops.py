"""Training loops that resume exactly, also in the middle of an epoch.

:class:`Runner <negvision.engine.runner.Runner>` replaces mmengine's loops by them in any config.
The differences:

- A resumed run starts with the next batch and the random states of the checkpoint, so its weights
  are those of a run that was never interrupted.
- An evaluation does not change the random state of the training, and an evaluation that was due
  when the checkpoint was written is run first.
- A training that cannot learn, or made fewer steps than announced, is an error:
  :mod:`negvision.engine.training_check` and :mod:`negvision.engine.training_steps`.
"""

from collections.abc import Iterator

from mmengine.runner import BaseLoop, EpochBasedTrainLoop, IterBasedTrainLoop

from negvision.engine.data_order import SeededBatches, is_endless
from negvision.engine.training_check import check_training, single_values_explained
from negvision.engine.training_steps import Steps, TrainingError
from negvision.registry import LOOPS


class _Resumable(BaseLoop):
    def _start(self) -> None:
        check_training(self)
        self._steps = Steps(self)
        self.runner.weigh_classes()
        self.runner.call_hook("before_train")
        self.runner.restore_components()
        resumed = self._iter > 0
        evaluated = resumed and self.runner.resumed_after_evaluation
        if resumed and not evaluated and self._at_boundary() and self._evaluation_is_due():
            self._evaluate()
        self.runner.restore_random_state()

    def _finish(self) -> None:
        self.runner.call_hook("after_train")
        self._steps.finish()

    def _at_boundary(self) -> bool:
        """Whether an evaluation may be due where the run resumes."""
        return True

    def run_iter(self, *args) -> None:
        """Train on one batch, the last of ``args``."""
        self._steps.look_at(args[-1])
        with single_values_explained(self._iter + 1):
            super().run_iter(*args)

    def _evaluate(self) -> None:
        if self.runner.val_loop is None:
            return
        with self.runner.evaluation_in_training():
            self.runner.val_loop.run()
        # With the random state of the training again: not one of MMEngine's points.
        self.runner.call_hook("after_evaluation")

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
        first = self._place()
        while self._epoch < self._max_epochs and not self.stop_training:
            self.run_epoch(first)
            first = 0
            if self._evaluation_is_due():
                self._evaluate()
        self._finish()
        return self.runner.model

    def restart_epoch(self, meta: dict) -> str:
        """Go to the start of an epoch, the next one if this is complete; returns where that is."""
        batches = meta.get("batches_per_epoch")
        self._epoch += batches is not None and self._iter - self._epoch * batches >= batches
        self._iter = self._epoch * len(self.dataloader)
        return f"the start of epoch {self._epoch + 1} of {self._max_epochs}"

    def is_lost(self) -> bool:
        """Whether the iteration lies outside the epoch, as after a change of the data."""
        return not 0 <= self._place() <= len(self.dataloader)

    def _place(self) -> int:
        """Batches of the epoch that are done."""
        return self._iter - self._epoch * len(self.dataloader)

    def run_epoch(self, first: int = 0) -> None:
        """Train on an epoch from batch ``first`` on."""
        self.runner.call_hook("before_train_epoch")
        self.runner.model.train()
        if first < len(self.dataloader):
            self._begin(self._epoch, first)
            for number, batch in enumerate(self.dataloader, first):
                self.run_iter(number, batch)
        self.runner.call_hook("after_train_epoch")
        self._epoch += 1

    def _at_boundary(self) -> bool:
        return self._place() == 0

    def _evaluation_is_due(self) -> bool:
        self._decide_current_val_interval()
        due = self._epoch % self.val_interval == 0 or self._epoch == self._max_epochs
        return due and self._epoch >= self.val_begin


@LOOPS.register_module()
class IterTrainLoop(_Resumable, IterBasedTrainLoop):
    """mmengine's ``IterBasedTrainLoop``, resumable at any iteration.

    Attributes:
        data_start: Iteration and pass over the data where the present data set begins; other than
            (0, 0) if it was changed between two parts of a run.
    """

    data_start = (0, 0)

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
        self._finish()
        return self.runner.model

    def restart_epoch(self, meta: dict) -> str:
        """Begin a pass over the data at this iteration; returns where that is."""
        begun, passes = self.data_start
        passes += (self._iter - begun) // max(meta.get("batches_per_epoch", 1), 1) + 1
        self.data_start = (self._iter, passes)
        return f"iteration {self._iter + 1} of {self._max_iters}, with a new pass over the data"

    def is_lost(self) -> bool:
        """Never: an iteration is its own place."""
        return False

    def _batches(self) -> Iterator:
        begun, epoch = self.data_start
        first = self._iter - begun
        if not is_endless(self.dataloader):
            passes, first = divmod(first, len(self.dataloader))
            epoch += passes
        while True:
            self._begin(epoch, first)
            before = self._iter
            yield from self.dataloader
            if self._iter == before and not first:
                raise TrainingError("the dataloader of the training set yields no batch")
            epoch, first = epoch + 1, 0

    def _evaluation_is_due(self) -> bool:
        self._decide_current_val_interval()
        due = self._iter % self.val_interval == 0 or self._iter == self._max_iters
        return due and self._iter >= self.val_begin
