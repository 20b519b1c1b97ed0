"""Successive halving over settings, in a storage of Optuna that several processes share."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from negvision.bootstrap import Side, holm, paired_difference
from negvision.engine.checkpoints.work_dir import FolderInUse, locked
from negvision.engine.sweeps.pausing import Reached, record_of
from negvision.engine.sweeps.space import Setting, Space, space_size, spread_settings
from negvision.errors import ConfigError, UserError, text_table

_SWEEP, _TEXTS, _ERROR = "negvision", "settings", "error"
_WAIT = 1.0
_LEVEL = 0.05


class SettingFailed(Exception):
    """A setting cannot be trained; the message is one line."""


# Trains one setting in a folder, up to a share of its evaluations; it may have begun there.
Trainer = Callable[[Setting, Path, float], Reached]


@dataclass(frozen=True)
class Plan:
    """What a sweep does, however often it is interrupted and by however many processes.

    Attributes:
        source: Config or data, and options of all trainings.
        space: What is varied.
        objective: Name of the figure.
        maximize: Whether more is better.
        trials: Settings in a round.
        factor: One of so many settings goes on after each part of a training.
        evaluations: Of a whole training.
        seed: Of the settings.
    """

    source: str
    space: Space
    objective: str
    maximize: bool
    trials: int
    factor: int
    evaluations: int
    seed: int

    @property
    def shares(self) -> list[float]:
        """The parts of a training after which settings are compared, the last is 1.

        Each ends with an evaluation of its own, and leaves one setting at least.
        """
        steps = int(math.log(self.count) / math.log(self.factor) + 1e-9)
        shares = [self.factor**-step for step in range(steps + 1)]
        ends = {max(1, round(self.evaluations * share)) for share in shares}
        return [end / self.evaluations for end in sorted(ends)]

    @property
    def count(self) -> int:
        """Settings in a round: fewer than ``trials`` if there are no more."""
        return int(min(self.trials, space_size(self.space)))

    @property
    def is_grid(self) -> bool:
        """Whether one round tries all there is."""
        return space_size(self.space) <= self.trials

    def left(self, part: int) -> int:
        """How many settings are trained in a part, from 0."""
        return max(1, self.count // self.factor**part)

    def identity(self) -> str:
        """A text that two sweeps of one storage must share."""
        space = {key: str(one) for key, one in self.space.items()}
        return json.dumps({**vars(self), "space": space}, sort_keys=True)

    def __str__(self) -> str:
        lines = [f"  {key}: {one}" for key, one in self.space.items()]
        steps = [
            f"{self.left(part)} for {_percent(share)}" for part, share in enumerate(self.shares)
        ]
        better = "highest" if self.maximize else "lowest"
        lines.append(
            f"  wanted: the {better} {self.objective}; settings in a round: {', '.join(steps)} of "
            "a training"
        )
        return "\n".join(lines)


@dataclass(frozen=True)
class Trial:
    """A setting and how far it came.

    Attributes:
        number: From 0.
        setting: Key -> value, as written.
        values: The objective after each part that it was trained for.
        error: Why its training ended, or "".
    """

    number: int
    setting: Setting
    values: list[float]
    error: str


class Sweep:
    """Rounds of successive halving.

    A round tries some settings. All are trained for a part of their length; the best go on, to the
    bit as if they had never stopped, the others end. The settings of the first round are spread
    evenly, those of later ones suggested by Optuna's TPE from the rounds before. What is trained
    depends on the plan and the results alone, not on times or on which process trains what.

    Args:
        folder: Of the sweep. Processes on several machines must share it.
        plan: The same for all processes.
        storage: URL of Optuna's, or a file of its journal (``.log``); None: ``study.db`` in the
            folder.

    Raises:
        ConfigError: The storage holds a sweep of another plan.

    Sources: Jamieson and Talwalkar, "Non-stochastic Best Arm Identification and Hyperparameter
    Optimization", AISTATS 2016; Bergstra et al., "Algorithms for Hyper-Parameter Optimization",
    NeurIPS 2011, for TPE.
    """

    def __init__(self, folder: Path, plan: Plan, storage: str | None = None) -> None:
        import optuna  # an optional dependency, which loads slowly

        self._optuna: Any = optuna
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self.folder, self.plan = folder, plan
        folder.mkdir(parents=True, exist_ok=True)
        if storage is not None and storage.endswith(".log"):
            journal = optuna.storages.journal
            backend: Any = journal.JournalStorage(journal.JournalFileBackend(storage))
        else:
            backend = storage or f"sqlite:///{(folder / 'study.db').absolute()}"
        with self._alone():
            try:
                # It only keeps trials; random suggestions cost nothing.
                self._study = optuna.create_study(
                    storage=backend,
                    study_name=folder.name,
                    sampler=optuna.samplers.RandomSampler(0),
                    direction="maximize" if plan.maximize else "minimize",
                    load_if_exists=True,
                )
            except Exception as error:  # of SQLAlchemy, among others
                reason = str(error).splitlines()[0]
                raise ConfigError(f"the storage {backend} cannot be used: {reason}") from None
            before = self._study.user_attrs.get(_SWEEP)
            if before is None:
                self._study.set_user_attr(_SWEEP, plan.identity())
            elif before != plan.identity():
                raise ConfigError(_differences(before, plan.identity(), folder))

    def run(self, rounds: int, train: Trainer, say: Callable[[str], None] = print) -> None:
        """Train until all rounds are done, or wait for other processes that train.

        Args:
            rounds: Of the sweep; more than before continue it.
            train: Trains one part of a trial.
            say: Takes a line for each.

        Raises:
            UserError: All trainings of the first part failed.
        """
        for number in range(1 if self.plan.is_grid else rounds):
            self._suggest(number)
            for part, share in enumerate(self.plan.shares):
                while rest := self._unfinished(number, part):
                    if not self._train_one(rest, part, share, train, say):
                        time.sleep(_WAIT)
            self._close(number)

    def trials(self) -> list[Trial]:
        """All trials, by number."""
        return [_trial(one) for one in self._frozen()]

    def ranked(self) -> list[Trial]:
        """All trials, those that came farthest first, the best of them first."""
        sign = -1 if self.plan.maximize else 1
        return sorted(
            (trial for trial in self.trials() if trial.values and not trial.error),
            key=lambda one: (-len(one.values), *_order(sign * one.values[-1]), one.number),
        )

    def table(self) -> str:
        """What was tried, best first, and which settings differ by more than noise.

        Each is compared with the best one where it stopped, on the same resampled images; p-values
        are corrected for the number of settings by Holm's procedure.
        """
        ranked = self.ranked()
        best, keys = ranked[0], list(self.plan.space)
        found = [self._difference(best, one) for one in ranked[1:]]
        p_values = holm(np.array([np.nan if one is None else one[3] for one in found]))
        heads = ["trial", "trained", *keys, "value", "- best", "95 % interval", "verdict"]
        rows, same = [], []
        for place, one in enumerate(ranked):
            share = _percent(self.plan.shares[len(one.values) - 1])
            row = [str(one.number), share, *one.setting.values(), f"{one.values[-1]:.4f}"]
            gap = found[place - 1] if place else None
            if not place:
                row += ["", "", "best"]
            elif gap is None:
                change = one.values[-1] - best.values[len(one.values) - 1]
                row += [f"{change:+.4f}", "-", "-"]
            else:
                differs = p_values[place - 1] < _LEVEL
                better = (gap[0] > 0) == self.plan.maximize
                word = ("ahead there" if better else "worse") if differs else "within noise"
                row += [f"{gap[0]:+.4f}", f"{gap[1]:+.4f} to {gap[2]:+.4f}", word]
                same += [] if differs else [one.number]
            rows.append(row)
        failed = [one for one in self.trials() if one.error]
        lines = [text_table(heads, rows)]
        lines += [f"trial {one.number} failed: {one.error}" for one in failed]
        if same:
            lines.append(
                f"The validation set cannot tell trial {best.number} from {_joined(same)}: their "
                "difference is within the noise of the images."
            )
        elif any(one is None for one in found):
            lines.append("-: the metric of the objective has no resamples, so noise is not known.")
        lines.append(
            "Each setting was trained once: another seed may differ by more. Train the best and "
            "another with several seeds, and use negvision compare."
        )
        return "\n".join(lines)

    def folder_of(self, trial: Trial | int) -> Path:
        """The work dir of a trial."""
        number = trial if isinstance(trial, int) else trial.number
        return self.folder / f"trial_{number:03d}"

    def _difference(self, best: Trial, other: Trial) -> np.ndarray | None:
        """Difference to the best where ``other`` stopped, the limits of its interval, p-value."""
        part = len(other.values) - 1
        sides, units = [], 0
        for one in (best, other):
            record = record_of(self.folder_of(one), self.plan.shares[part])
            reached = Reached.load(record) if record.is_file() else None
            if reached is None or reached.draws is None:
                return None
            units = reached.units
            sides.append(Side.of([(np.array([one.values[part]]), reached.draws[:, None])]))
        if units < 2:
            return None
        gap = paired_difference(*sides, units)
        return np.concatenate([gap.difference, gap.low, gap.high, gap.p_value])

    def _frozen(self) -> list[Any]:
        return sorted(self._study.get_trials(deepcopy=False), key=lambda one: one.number)

    def _suggest(self, number: int) -> None:
        """Add the settings of a round, which follow from the rounds before it."""
        count, first = self.plan.count, number * self.plan.count
        with self._alone():
            present = len(self._frozen())
            if present >= first + count:
                return
            settings = self._settings(number, count)
            for setting in settings[present - first :]:
                # At once: a process that is killed leaves no trial without its setting.
                space = self.plan.space.items()
                trial = self._optuna.trial.create_trial(
                    state=self._optuna.trial.TrialState.RUNNING,
                    params={key: one.stored(setting[key]) for key, one in space},
                    distributions={key: one.distribution(self._optuna) for key, one in space},
                    user_attrs={_TEXTS: setting},
                )
                self._study.add_trial(trial)

    def _settings(self, number: int, count: int) -> list[Setting]:
        seed = int(np.random.SeedSequence([self.plan.seed, number]).generate_state(1)[0])
        if not number:
            return spread_settings(self.plan.space, count, seed)
        optuna = self._optuna
        study = optuna.create_study(
            direction=self._study.direction,
            sampler=optuna.samplers.TPESampler(seed=seed, n_startup_trials=1),
        )
        study.add_trials(self._frozen()[: number * count])
        kinds = {key: one.distribution(optuna) for key, one in self.plan.space.items()}
        return [
            {
                key: self.plan.space[key].written(value)
                for key, value in study.ask(kinds).params.items()
            }
            for _ in range(count)
        ]

    def _unfinished(self, number: int, part: int) -> list[Any]:
        """Trials of a round that are to be trained for a part and have not been."""
        first = number * self.plan.count
        members = self._frozen()[first : first + self.plan.count]
        sign = -1 if self.plan.maximize else 1
        for earlier in range(part):
            alive = [one for one in members if earlier + 1 in one.intermediate_values]
            members = sorted(
                alive,
                key=lambda one: (*_order(sign * one.intermediate_values[earlier + 1]), one.number),
            )[: self.plan.left(earlier + 1)]
        return [
            one
            for one in sorted(members, key=lambda one: one.number)
            if part + 1 not in one.intermediate_values and _ERROR not in one.user_attrs
        ]

    def _train_one(
        self, rest: list[Any], part: int, share: float, train: Trainer, say: Callable[[str], None]
    ) -> bool:
        """Train the first trial that no other process trains; whether there was one."""
        for frozen in rest:
            lock = self.folder / "locks" / f"{frozen.number:03d}"
            lock.mkdir(parents=True, exist_ok=True)
            try:
                with locked(lock):
                    # Another process may have been done in between.
                    now = self._frozen()[frozen.number]
                    if part + 1 in now.intermediate_values or _ERROR in now.user_attrs:
                        return True
                    self._train(_trial(now), part, share, train, say)
                    return True
            except FolderInUse:
                continue
        return False

    def _train(
        self, trial: Trial, part: int, share: float, train: Trainer, say: Callable[[str], None]
    ) -> None:
        began = time.monotonic()
        setting = "  ".join(f"{key}={text}" for key, text in trial.setting.items())
        name = f"trial {trial.number:>3}  {_percent(share):>5}  {setting}"
        own = self._optuna.Trial(self._study, self._frozen()[trial.number]._trial_id)
        try:
            reached = train(trial.setting, self.folder_of(trial), share)
        except SettingFailed as failure:
            own.set_user_attr(_ERROR, str(failure))
            say(f"{name}  failed: {failure}")
            failed = [one for one in self.trials() if one.error]
            if not part and len(failed) == len(self.trials()):
                raise UserError(f"the trainings of all settings failed; the last: {failure}") from (
                    failure.__cause__
                )
            return
        except Exception:
            say(f"{name}  ends the sweep:")
            raise
        own.report(reached.value, part + 1)
        say(
            f"{name}  {self.plan.objective} {reached.value:.4f}  ({time.monotonic() - began:.0f} s)"
        )

    def _close(self, number: int) -> None:
        """Tell Optuna how the trials of a round ended."""
        states, first = self._optuna.trial.TrialState, number * self.plan.count
        last = len(self.plan.shares)
        with self._alone():
            for one in self._frozen()[first : first + self.plan.count]:
                if one.state.is_finished():
                    continue
                value = one.intermediate_values.get(last)
                if _ERROR in one.user_attrs or (value is not None and math.isnan(value)):
                    self._study.tell(one.number, state=states.FAIL)
                elif value is None:
                    self._study.tell(one.number, state=states.PRUNED)
                else:
                    self._study.tell(one.number, value)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Inside the block no other process adds or ends trials."""
        lock = self.folder / "locks" / "study"
        lock.mkdir(parents=True, exist_ok=True)
        while True:
            try:
                with locked(lock):
                    yield
                return
            except FolderInUse:
                time.sleep(_WAIT / 10)


def _trial(frozen: Any) -> Trial:
    values = [value for _, value in sorted(frozen.intermediate_values.items())]
    attributes = frozen.user_attrs
    return Trial(frozen.number, dict(attributes[_TEXTS]), values, attributes.get(_ERROR, ""))


def _order(value: float) -> tuple[bool, float]:
    """A key that puts NaN last."""
    return (True, 0.0) if math.isnan(value) else (False, value)


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def _joined(numbers: list[int]) -> str:
    return " and ".join(filter(None, [", ".join(map(str, numbers[:-1])), str(numbers[-1])]))


def _differences(before: str, now: str, folder: Path) -> str:
    pairs = [json.loads(text) for text in (before, now)]
    lines = [
        f"  {key}: {pairs[0].get(key)}, now {pairs[1][key]}"
        for key in pairs[1]
        if pairs[0].get(key) != pairs[1][key]
    ]
    return (
        f"{folder} has a sweep that began with other settings:\n" + "\n".join(lines) + "\n"
        "Continue it with those, or begin another one: --work-dir DIR"
    )
