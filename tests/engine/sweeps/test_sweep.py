"""Successive halving: what is tried, and that neither kills nor other processes change it."""

import math
import os
import signal
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from negvision.engine.sweeps.pausing import Reached, record_of
from negvision.engine.sweeps.space import parse_space, spread_settings
from negvision.errors import ConfigError, UserError

pytest.importorskip("optuna", reason="needs requirements/tune.txt")

from negvision.engine.sweeps.sweep import Plan, SettingFailed, Sweep


def plan_of(*space: str, **changes) -> Plan:
    settings = {
        "source": "", "space": parse_space(space or ["lr=1e-4..1,size=[4,8]"]),
        "objective": "score", "maximize": True, "trials": 9, "factor": 3, "evaluations": 9,
        "seed": 0,
    }  # fmt: skip
    return Plan(**settings | changes)


class Trained:
    """Trains nothing: the score is best at lr 0.01 and size 8, and rises with the share."""

    def __init__(self, dies_at: int | None = None, noise: float = 0.0):
        self.jobs: Counter = Counter()
        self.dies_at, self.noise = dies_at, noise

    def __call__(self, setting, folder: Path, share: float) -> Reached:
        if self.jobs.total() == self.dies_at:
            os.kill(os.getpid(), signal.SIGKILL)
        self.jobs[folder.name, round(share, 3)] += 1
        if setting.get("size") == "0":
            raise SettingFailed("too small")
        folder.mkdir(parents=True, exist_ok=True)
        value = share - abs(math.log10(float(setting["lr"])) + 2) / 10
        value += 0.05 * (setting.get("size") == "8")
        of_images = np.random.default_rng(0).normal(0, 0.2, 1000)
        own = np.random.default_rng(int(folder.name[-3:])).normal(0, self.noise, 1000)
        reached = Reached(value, round(9 * share), value + of_images + own, 100)
        reached.save(record_of(folder, share))
        return reached


def quiet(line: str) -> None:
    """Print nothing."""


def finished(folder: Path, plan: Plan, trained, rounds: int = 2) -> list:
    sweep = Sweep(folder, plan)
    sweep.run(rounds, trained, quiet)
    return sweep.trials()


def test_halving(tmp_path):
    plan, trained = plan_of(), Trained()
    trials = finished(tmp_path, plan, trained)
    assert plan.shares == pytest.approx([1 / 9, 1 / 3, 1])
    assert max(trained.jobs.values()) == 1
    assert Counter(share for _, share in trained.jobs) == {0.111: 18, 0.333: 6, 1.0: 2}
    for first in (0, 9):
        members = trials[first : first + 9]
        for part, left in ((0, 3), (1, 1)):
            alive = [one for one in members if len(one.values) > part]
            ranked = sorted(alive, key=lambda one: -one.values[part])
            assert {one.number for one in alive if len(one.values) > part + 1} == {
                one.number for one in ranked[:left]
            }
    # The first round covers the logarithmic range evenly, the second looks where scores were high.
    rates = [math.log10(float(one.setting["lr"])) for one in trials]
    parts = sorted(int((rate + 4) / 4 * 9) for rate in rates[:9])
    assert parts == list(range(9))
    assert np.abs(np.array(rates[9:]) + 2).mean() < np.abs(np.array(rates[:9]) + 2).mean()
    # Three rounds go on from two.
    assert finished(tmp_path, plan, Trained(), rounds=3)[:18] == trials


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_neither_kills_nor_several_processes_change_the_result(tmp_path):
    expected = finished(tmp_path / "one", plan_of(), Trained())

    def start(folder: Path, dies_at: int | None) -> int:
        child = os.fork()
        if child == 0:
            try:
                finished(folder, plan_of(), Trained(dies_at))
                os._exit(0)
            finally:
                os._exit(1)
        return child

    for name, attempts in (("killed", [0, 4, 9, 3, 5]), ("several", [None, None, 6])):
        children = []
        for dies_at in attempts:
            children.append(start(tmp_path / name, dies_at))
            if name == "killed":
                status = os.waitstatus_to_exitcode(os.waitpid(children.pop(), 0)[1])
                assert status == -signal.SIGKILL
        for child in children:
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) in (0, -signal.SIGKILL)
        found = finished(tmp_path / name, plan_of(), Trained())
        assert found == expected


def test_a_list_is_tried_once_and_completely(tmp_path):
    trained = Trained()
    trials = finished(tmp_path, plan_of("lr=[0.1,0.01],size=[4,8]"), trained, rounds=5)
    assert [one.setting for one in trials] == [
        {"lr": lr, "size": size} for lr in ("0.1", "0.01") for size in ("4", "8")
    ]
    sweep = Sweep(tmp_path, plan_of("lr=[0.1,0.01],size=[4,8]"))
    assert sweep.ranked()[0].setting == {"lr": "0.01", "size": "8"}


@pytest.mark.parametrize(("noise", "verdict"), [(0.001, "worse"), (2.0, "within noise")])
def test_the_table_knows_noise(noise, verdict, tmp_path):
    sweep = Sweep(tmp_path, plan_of("lr=[0.1,0.01,0.001]", trials=3))
    sweep.run(1, Trained(noise=noise), quiet)
    first, second, third, *text = sweep.table().splitlines()[1:]
    assert first.split()[0] == "1" and first.endswith("best")
    assert second.endswith(verdict) and third.endswith(verdict)
    told = "cannot tell trial 1 from 0 and 2" in "\n".join(text)
    assert told == (verdict != "worse")


def test_settings_that_fail(tmp_path):
    plan = plan_of("lr=1e-4..1,size=[0,8]")
    trials = finished(tmp_path / "some", plan, Trained(), rounds=1)
    assert all((one.setting["size"] == "0") == (one.error == "too small") for one in trials)
    assert "failed: too small" in Sweep(tmp_path / "some", plan).table()


def test_a_sweep_of_failures_is_an_error(tmp_path):
    def fails(*_):
        raise SettingFailed("no")

    with pytest.raises(UserError, match="all settings failed; the last: no"):
        finished(tmp_path, plan_of(), fails)


def test_settings_of_a_first_round_stay_within_their_ranges():
    space = parse_space(["a=0.001..1,b=1..5,c=0..1.0:linear,d=2..64,e=[x,(1,2)]"])
    settings = spread_settings(space, 5, seed=1)
    assert sorted(one["b"] for one in settings) == ["1", "2", "3", "4", "5"]
    for one in settings:
        assert 0.001 <= float(one["a"]) <= 1 and 0 <= float(one["c"]) <= 1
        assert 2 <= int(one["d"]) <= 64 and one["e"] in ("x", "(1,2)")


def test_a_storage_of_another_sweep_is_refused(tmp_path):
    Sweep(tmp_path, plan_of())
    with pytest.raises(ConfigError, match="objective: score, now loss"):
        Sweep(tmp_path, plan_of(objective="loss"))
