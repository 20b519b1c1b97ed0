"""Stop a training after a share of its evaluations, so that it can be resumed to the bit."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.hooks import EarlyStoppingHook, Hook
from mmengine.runner import EpochBasedTrainLoop

from negvision.bootstrap import RESAMPLES
from negvision.engine.interruption import TrainingInterrupted
from negvision.errors import ConfigError
from negvision.files import atomic_write


class TrainingPaused(TrainingInterrupted):
    """A training has reached the evaluation at which it was to stop; its state is saved."""

    def __init__(self) -> None:
        Exception.__init__(self, "the training is paused")


@dataclass(frozen=True)
class Reached:
    """The last evaluation of a training.

    Attributes:
        value: The objective; NaN if it is undefined.
        place: Epochs or iterations done.
        draws: (R,), the objective of resampled validation sets; None if its metric has none.
        units: Number of images, or of whatever was drawn.
    """

    value: float
    place: int
    draws: np.ndarray | None
    units: int

    def save(self, file: Path) -> None:
        """Write it; :meth:`load` reads it."""
        draws = np.zeros(0) if self.draws is None else self.draws
        with atomic_write(file) as partial, partial.open("wb") as to:
            np.savez(to, value=self.value, place=self.place, draws=draws, units=self.units)

    @classmethod
    def load(cls, file: Path) -> Reached:
        """What :meth:`save` wrote."""
        with np.load(file) as stored:
            draws = stored["draws"] if len(stored["draws"]) else None
            return cls(float(stored["value"]), int(stored["place"]), draws, int(stored["units"]))


def record_of(work_dir: Path, share: float) -> Path:
    """The file with what a training reached after a share of its evaluations."""
    return work_dir / f"reached_{share:.4f}.npz"


def evaluation_points(loop: Any) -> list[int]:
    """After how many epochs or iterations a training is evaluated; empty without an evaluation.

    Args:
        loop: Of the training, built.
    """
    by_epoch = isinstance(loop, EpochBasedTrainLoop)
    total = loop.max_epochs if by_epoch else loop.max_iters
    interval, first = loop.val_interval, loop.val_begin
    points = [place for place in range(interval, total + 1, interval) if place >= first]
    # The end is evaluated too.
    return points if points[-1:] == [total] or total < first else [*points, total]


class PauseHook(Hook):
    """Pauses a training at the evaluation after ``share`` of all of them, the first at least.

    The state of the training after this evaluation is saved, and :class:`TrainingPaused` raised; a
    training that is done by then ends as usual. Metrics that can resample do it there.

    Args:
        objective: Name of a figure of the evaluation.
        share: In (0, 1].

    Attributes:
        reached: The last evaluation; None before it.
    """

    priority = "LOWEST"

    def __init__(self, objective: str, share: float) -> None:
        self.objective, self.share = objective, share
        self.reached: Reached | None = None
        self._target = self._end = 0
        self._may_stop = False

    def before_train(self, runner) -> None:
        points = evaluation_points(runner.train_loop)
        self._end = points[-1]
        self._target = points[max(1, round(len(points) * self.share)) - 1]
        # It may stop at any evaluation.
        self._may_stop = any(isinstance(hook, EarlyStoppingHook) for hook in runner.hooks)
        record = self._record(runner)
        if record.is_file() and self._place(runner) >= self._target:
            self.reached = Reached.load(record)
            raise TrainingPaused

    def before_val_epoch(self, runner) -> None:
        if self._may_stop or self._place(runner) >= self._target:
            for metric in runner.val_loop.evaluator.metrics:
                if getattr(metric, "resamples", 0) is None:
                    metric.resamples = RESAMPLES

    def after_val_epoch(self, runner, metrics: dict | None = None) -> None:
        metrics = metrics or {}
        if self.objective not in metrics:
            raise ConfigError(
                f"the evaluation does not return {self.objective!r}; it returns "
                f"{', '.join(sorted(metrics)) or 'nothing'}"
            )
        draws, units = None, 0
        for metric in runner.val_loop.evaluator.metrics:
            prefix = f"{metric.prefix}/" if metric.prefix else ""
            own = getattr(metric, "draws", {}).get(self.objective.removeprefix(prefix))
            if own is not None and self.objective.startswith(prefix):
                draws, units = own, metric.units
        value = float(metrics[self.objective])
        self.reached = Reached(value, self._place(runner), draws, units)
        if self._place(runner) >= self._target:
            self.reached.save(self._record(runner))

    def after_evaluation(self, runner) -> None:
        """Pause, or go on."""
        if self._target <= self._place(runner) < self._end:
            runner.save_interrupted(runner.epoch, runner.iter, evaluated=True)
            raise TrainingPaused

    def after_train(self, runner) -> None:
        # One that another hook has stopped before.
        if self.reached is not None:
            self.reached.save(self._record(runner))

    def _record(self, runner) -> Path:
        return record_of(Path(runner.work_dir), self.share)

    def _place(self, runner) -> int:
        return runner.epoch if isinstance(runner.train_loop, EpochBasedTrainLoop) else runner.iter
