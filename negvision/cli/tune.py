"""``negvision tune CONFIG|DATA --space lr=1e-4..1e-2``: find settings by successive halving."""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import re
import shutil
import tempfile
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from negvision.cli import train
from negvision.cli.arguments import CommandParser, announce, checked, positive_int
from negvision.cli.data_options import with_config
from negvision.errors import ConfigError, UserError, is_user_error
from negvision.unexpected import describe

if TYPE_CHECKING:
    from mmengine.config import Config

    from negvision.engine.sweeps.pausing import Reached
    from negvision.engine.sweeps.space import Setting, Space
    from negvision.engine.sweeps.sweep import Plan

HELP = "try settings of a training by successive halving"
DESCRIPTION = (
    "Train with other settings: many for a part of the training, the best of them on, to the bit "
    "as if they had never stopped. The table at the end says which settings differ by more than "
    "noise, and best.py is the config of the best. The same command continues a sweep that was "
    "interrupted, and more processes that run it, also on other machines, share the work."
)
# Names of settings that have no option of their own, and of those that only DATA has.
_KEYS = {
    "weight_decay": "optim_wrapper.optimizer.weight_decay",
    "momentum": "optim_wrapper.optimizer.momentum",
}
_KEYS_OF_CONFIGS = {
    **_KEYS,
    "lr": "optim_wrapper.optimizer.lr",
    "batch": "train_dataloader.batch_size",
}
# What a sweep sets itself, or what would make its trainings no equals.
_FIXED = (
    "config", "resume", "work_dir", "cfg_options", "launcher", "minutes", "seed", "data_root",
    "trust_checkpoint", "debug", "help", "run", "device", "format", "task",
)  # fmt: skip


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    train.add_source(parser)
    space = (
        "what to try: KEY=LOW..HIGH or KEY=[A,B,...], separated by commas; a KEY is an option of "
        "negvision train without its dashes, weight_decay, momentum, or a key of the config. "
        "Ranges over a factor of 10 are logarithmic; LOW..HIGH:log and LOW..HIGH:linear say it"
    )
    add("--space", action="append", required=True, metavar="KEY=VALUES,...", help=space)
    add("--trials", type=positive_int, default=9, metavar="N", help="settings in a round")
    add("--rounds", type=positive_int, default=2, metavar="N", help="later ones learn from earlier")
    factor = checked(int, "an integer from 2 up", lambda value: value > 1)
    add("--factor", type=factor, default=3, metavar="N", help="one of N settings goes on")
    objective = "figure of the evaluation (default: that of save_best, or the first)"
    add("--objective", metavar="NAME", help=objective)
    add("--minimize", action="store_true", help="less of the objective is better")
    storage = "of Optuna: URL of a database, or FILE.log (default: study.db in the work dir)"
    add("--storage", metavar="URL|FILE.log", help=storage)
    train.add_options(parser)
    parser.set_defaults(resume=None)


def run(args: argparse.Namespace) -> int:
    """Tune.

    Returns:
        0; as :func:`negvision.cli.train.run` if a signal ended it.
    """
    if find_spec("optuna") is None:
        raise UserError(
            "negvision tune needs Optuna, which is not installed:\n"
            "  pip install -r requirements/tune.txt -c requirements/constraints.txt"
        )
    if args.launcher != "none":
        raise ConfigError(
            f"--launcher {args.launcher}: a sweep trains in one process. Run the command several "
            "times, with one GPU each (CUDA_VISIBLE_DEVICES), to share the work"
        )
    is_config = args.config.endswith(".py")
    if not is_config and (args.minutes is not None or args.batch == "auto"):
        option = "--batch auto" if args.minutes is None else "--minutes"
        raise ConfigError(
            f"{option} measures this machine, so that trainings would differ; give --iters or "
            "--epochs, and a batch"
        )
    announce(args.config)
    from negvision.engine.interruption import TrainingInterrupted
    from negvision.engine.recipes.training import default_work_dir
    from negvision.engine.sweeps.space import parse_space
    from negvision.engine.sweeps.sweep import Sweep

    space = parse_space(args.space)
    own = default_work_dir(args.config)
    if is_config:
        own = own.with_name(Path(args.config).stem)
    folder = Path(args.work_dir or own.with_name(f"{own.name}_tune")).absolute()
    plan = _checked_plan(args, space)
    sweep = Sweep(folder, plan, args.storage)
    print(plan, flush=True)
    try:
        sweep.run(
            args.rounds,
            lambda setting, work_dir, share: _trained(
                _of_trial(args, setting, work_dir), plan.objective, share, plan.seed
            ),
            lambda line: print(line, flush=True),
        )
    except TrainingInterrupted as interruption:
        print("interrupted: the same command goes on")
        return interruption.status
    ranked = sweep.ranked()
    if not ranked:
        raise UserError("no setting was trained to a value")
    best = ranked[0]
    work_dir = sweep.folder_of(best)
    with _console(work_dir):
        cfg = _seeded(train.training_config(_of_trial(args, best.setting, work_dir)), plan.seed)
    cfg.pop("work_dir")
    cfg.dump(folder / "best.py")
    print(f"\n{sweep.table()}\n")
    print(f"best    {'  '.join(f'{key}={text}' for key, text in best.setting.items())}")
    print(f"config  {folder / 'best.py'}\nrun     {work_dir}")
    return 0


def _checked_plan(args: argparse.Namespace, space: Space) -> Plan:
    """The plan of the sweep.

    Raises:
        UserError: A setting cannot be trained, or the evaluation has no such objective.
    """
    from negvision.compat.patches import captured_pycocotools
    from negvision.engine.config.check import check_config
    from negvision.engine.metric_names_hook import name_patterns, require_name
    from negvision.engine.prepare import build_runner
    from negvision.engine.sweeps.pausing import evaluation_points
    from negvision.engine.sweeps.sweep import Plan

    with tempfile.TemporaryDirectory(prefix="negvision_tune_") as name:
        base = _of_trial(args, {}, Path(name))
        cfg = _seeded(train.training_config(base), args.seed or 0)
        for key, one in space.items():
            for text in one.ends:
                own = _of_trial(args, {key: text}, Path(name))
                try:
                    if own.config != base.config:
                        own = with_config(own, base.config)
                    check_config(train.training_config(own))
                except UserError as error:
                    raise ConfigError(f"--space {key}={text}: {_reworded(error)}") from None
        content = repr(cfg.to_dict()).replace(name, "")
        digest = hashlib.sha256(content.encode()).hexdigest()[:12]
        _rename(cfg, Path(name).name)
        with captured_pycocotools():
            runner = build_runner(cfg, ("train", "val"))
            points = evaluation_points(runner.train_loop)
            if runner.val_loop is None or not points:
                raise ConfigError(
                    f"{args.config} has no evaluation (val_dataloader), so there is nothing to "
                    "compare settings by"
                )
            patterns = [
                pattern
                for metric in runner.val_loop.evaluator.metrics
                for pattern in name_patterns(metric)
            ]
    hook = (cfg.get("default_hooks") or {}).get("checkpoint") or {}
    saved = [one for one in _as_list(hook.get("save_best")) if one != "auto"]
    objective = args.objective or next(iter([*saved, *patterns]), "*")
    if "*" in objective or "[" in objective:
        raise ConfigError("the evaluation does not tell its figures: name one with --objective")
    require_name("--objective", objective, patterns)
    minimize = args.minimize or (objective in saved and hook.get("rule") == "less")
    source = f"{Path(args.config).absolute()}, content {digest}"
    return Plan(
        source,
        space,
        objective,
        not minimize,
        args.trials,
        args.factor,
        len(points),
        args.seed or 0,
    )


def _of_trial(args: argparse.Namespace, setting: Setting, work_dir: Path) -> argparse.Namespace:
    """The arguments of ``negvision train`` for a setting."""
    is_config = args.config.endswith(".py")
    keys = _KEYS_OF_CONFIGS if is_config else _KEYS
    options: list[str] = list(args.cfg_options or ())
    flags: list[str] = []
    names: list[str] = []
    if is_config and args.seed is not None:
        options.append(f"randomness.seed={args.seed}")
    for key, text in setting.items():
        action = None if key in keys else _action(key)
        if action is None:
            options.append(f"{keys.get(key, key)}={text}")
            continue
        names.append(action.dest)
        if action.nargs == 0:
            if text.lower() not in ("true", "false"):
                raise ConfigError(f"--space {key}={text}: it is True or False")
            flags += [action.option_strings[0]] * (text.lower() == "true")
        else:
            flags += [action.option_strings[0], text]
    given = _PARSER.parse_args(["-", *flags])
    changed = {
        "cfg_options": options or None,
        "work_dir": str(work_dir),
        "resume": "auto",
        "seed": None if is_config else args.seed,
        **{name: getattr(given, name) for name in names},
    }
    return argparse.Namespace(**{**vars(args), **changed})


class _Parser(CommandParser):
    """Of the options of a training, with errors for settings."""

    def error(self, message: str):
        raise ConfigError(f"--space: {message}")


_PARSER = _Parser(add_help=False)
train.add_arguments(_PARSER)


def _action(key: str) -> argparse.Action | None:
    """The option of ``negvision train`` with this name, if a sweep may set it."""
    name = f"--{key.replace('_', '-')}"
    action = _PARSER._option_string_actions.get(name)
    if action is None and "." in key:
        return None
    if action is not None and action.dest in _FIXED:
        raise ConfigError(f"--space {key}: a sweep cannot vary it")
    return action


def _reworded(error: Exception) -> str:
    """The message without the options by which settings are passed on."""
    return re.sub(r"^--(cfg-options|space)\s+\S+\s+", "", str(error))


def _trained(own: argparse.Namespace, objective: str, share: float, seed: int) -> Reached:
    """Train one part; what ends it, if it is the setting, is a :class:`SettingFailed`."""
    import torch

    from negvision.compat.patches import captured_pycocotools
    from negvision.engine.checkpoints.finding import find_resume_checkpoint
    from negvision.engine.loss_guard import DivergedError
    from negvision.engine.machine_errors import machine_errors_explained
    from negvision.engine.prepare import build_runner
    from negvision.engine.sweeps.pausing import PauseHook, TrainingPaused
    from negvision.engine.sweeps.sweep import SettingFailed
    from negvision.engine.training_steps import TrainingError

    folder = Path(own.work_dir)
    if folder.exists() and find_resume_checkpoint(folder) is None:
        shutil.rmtree(folder)  # of a process that was killed before it had begun
    folder.mkdir(parents=True, exist_ok=True)
    hook = PauseHook(objective, share)
    try:
        with _console(folder), captured_pycocotools(), machine_errors_explained(folder):
            cfg = _seeded(train.training_config(own), seed)
            train.set_resume(cfg, "auto", own.trust_checkpoint)
            _rename(cfg, f"{folder.parent.name}_{folder.name}_{share:.4f}")
            runner = build_runner(cfg, ("train", "val"))
            runner.may_start_anew = True
            runner.register_hook(hook)
            with contextlib.suppress(TrainingPaused):
                runner.train()
    except (UserError, OSError) as error:
        memory = isinstance(error.__context__, torch.OutOfMemoryError)
        if not memory and not isinstance(error, DivergedError | TrainingError):
            raise
        raise SettingFailed(str(error).splitlines()[0]) from error
    except Exception as error:
        if is_user_error(error):
            raise
        raise SettingFailed(describe(error).splitlines()[0]) from error
    if hook.reached is None:
        raise SettingFailed("it ended without an evaluation")
    return hook.reached


def _seeded(cfg: Config, seed: int) -> Config:
    """The config, with a seed if it has none: MMEngine would draw another one each time."""
    randomness = cfg.get("randomness") or {}
    if randomness.get("seed") is None:
        cfg.randomness = {**randomness, "seed": seed}
    return cfg


def _rename(cfg: Config, name: str) -> None:
    """Runners and visualizers with the same name in one process would share their files."""
    cfg.experiment_name = name
    if cfg.get("visualizer"):
        cfg.visualizer.name = name


def _as_list(names: Any) -> list[str]:
    return [names] if isinstance(names, str) else list(names or ())


@contextlib.contextmanager
def _console(folder: Path) -> Iterator[None]:
    """Inside the block, what would be printed goes to ``console.txt`` in the folder."""
    with (
        (folder / "console.txt").open("a", encoding="utf-8") as file,
        contextlib.redirect_stdout(file),
        contextlib.redirect_stderr(file),
    ):
        yield
