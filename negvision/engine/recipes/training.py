"""Train on a folder of data: read it, plan, write the config, measure a step where asked to."""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import time
from argparse import Namespace
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.registry import DefaultScope

from negvision.compat.patches import captured_pycocotools
from negvision.compat.quiet import quiet_imports
from negvision.data.formats.contents import FolderData
from negvision.data.formats.folder import read_folder, with_negatives
from negvision.data.splits.content import SPLIT_FILE, complete_splits, write_split
from negvision.engine.checkpoints.finding import find_model, find_resume_checkpoint
from negvision.engine.checkpoints.loading import install_loaders, read_source
from negvision.engine.checkpoints.taking import load_weights
from negvision.engine.checkpoints.work_dir import require_own
from negvision.engine.config.options import use_suspects
from negvision.engine.machine_errors import machine_errors_explained
from negvision.engine.prepare import build_runner, prepare_config
from negvision.engine.quiet import silence_idle_warnings
from negvision.engine.recipes.planning import EVALUATIONS, Plan, TrainOptions, plan, set_length
from negvision.engine.recipes.trial import fitting_batch, seconds_per_step
from negvision.errors import ConfigError, counted, did_you_mean
from negvision.registry import MODELS
from negvision.visualization import shown_path

CONFIG = "config.py"
_OPTIONS, _DIGEST = "data/options.json", "config_sha256"
# Most of the time that evaluations may take.
_EVALUATING = 0.2


def default_work_dir(source: str | os.PathLike) -> Path:
    """``work_dirs/NAME`` for a folder or file NAME."""
    path = Path(source).resolve()
    return Path("work_dirs") / (path.name if path.is_dir() else path.parent.name)


def write_config(
    source: str | os.PathLike,
    work_dir: str | os.PathLike,
    options: TrainOptions,
    format: str | None = None,
    task: str | None = None,
    skip_bad: bool = False,
    trust: bool = False,
) -> Path:
    """Read a folder of data and write the config to train on it; prints what was chosen.

    Args:
        source: As :func:`negvision.data.formats.folder.read_folder` takes it.
        work_dir: Where the config and its annotation files are written.
        options: What is given; the rest is chosen.
        format: As in ``read_folder``.
        task: As in ``read_folder``.
        skip_bad: As in ``read_folder``.
        trust: Unpickle any object in the weights to start from.

    Returns:
        The config file.

    Raises:
        CheckpointError: The work dir has the checkpoints of a training, or the weights to start
            from are of another network.
        ConfigError: It has a config that was not written here, or was changed since.
        UserError: Nothing can be trained on this folder, or with these options.
    """
    began = time.monotonic()
    require_own([Path(work_dir).resolve()], None)
    _require_unchanged(Path(work_dir))
    own = data = complete_splits(read_folder(source, format, task, skip_bad=skip_bad))
    if options.negatives is not None:
        data = with_negatives(own, options.negatives)
    print(_data_table(data), flush=True)
    folder = Path(work_dir).absolute()
    made = plan(data, folder / "data", options)
    if options.batch == "auto":
        batch, reason = fitting_batch(made.cfg)
        made = plan(data, folder / "data", replace(options, batch=batch))
        made.explain("batch", reason)
    made.cfg.work_dir = str(folder)
    # The run writes its config again: the same bytes, if nothing is changed by options.
    made.cfg.launcher = "none"
    if skip_bad:
        # What only decoding shows.
        made.cfg.train_dataloader.dataset.on_bad_sample = "skip"
    print(made.table(), flush=True)
    if options.weights is not None:
        _require_weights(made.cfg, options.weights, data.classes, trust)
    if options.minutes is not None:
        print(_set_minutes(made, data, options.minutes, began), flush=True)
    path = folder / CONFIG
    write_split(own, folder / "data" / SPLIT_FILE)
    made.cfg.dump(path)
    written = {**_given(options, format, task, skip_bad), _DIGEST: _digest(path)}
    (folder / _OPTIONS).write_text(json.dumps(written))
    print(f"config: {shown_path(path)}\n", flush=True)
    return path


def _require_weights(cfg: Config, source: str, classes: Sequence[str], trust: bool) -> None:
    """Check that a file has the weights of the model, but for its classes.

    Raises:
        UserError: It cannot be read, or is of another network.
    """
    install_loaders(trust)
    silence_idle_warnings()
    content = read_source(source)
    with quiet_imports(), DefaultScope.overwrite_default_scope(cfg.default_scope):
        model = MODELS.build(cfg.model.copy())
    load_weights(model, content, source, classes).require_parts()


def config_to_resume(
    work_dir: str | os.PathLike,
    options: TrainOptions,
    format: str | None = None,
    task: str | None = None,
    skip_bad: bool = False,
) -> Path | None:
    """The config of the run in a work dir; None if there is none.

    Raises:
        ConfigError: An option is given with which the run did not begin.
    """
    path = Path(work_dir) / CONFIG
    if not path.is_file():
        return None
    began = _written(Path(work_dir))
    for name, value in _given(options, format, task, skip_bad).items():
        if began.get(name) != value:
            was = f"--{name} {began[name]}" if name in began else f"without --{name}"
            raise ConfigError(
                f"--{name} {value}: the run in {str(work_dir)!r} began {was}, and goes on like "
                f"that. Leave the option out, or change {path} and continue with that config"
            )
    return path


def _written(work_dir: Path) -> dict:
    """The options with which the config of a work dir was written, and its digest."""
    file = work_dir / _OPTIONS
    return json.loads(file.read_text()) if file.is_file() else {}


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _require_unchanged(work_dir: Path) -> None:
    """Raise ConfigError if writing the config would destroy what somebody wrote into it."""
    path = work_dir / CONFIG
    if path.is_file() and _written(work_dir).get(_DIGEST) != _digest(path):
        raise ConfigError(
            f"{path} is not as it was written here: it was changed, and would be overwritten. "
            f"Train it as it is with `negvision train {path}`, write to another folder with "
            "--work-dir DIR, or remove it"
        )


def _given(options: TrainOptions, format: str | None, task: str | None, skip_bad: bool) -> dict:
    everything = {**asdict(options), "format": format, "task": task, "skip-bad": skip_bad or None}
    given = {name: value for name, value in everything.items() if value is not None}
    return {name.replace("_", "-"): value for name, value in given.items()}


@dataclass(frozen=True)
class TrainedRun:
    """A finished training.

    Attributes:
        work_dir: With the config, the logs and the checkpoints.
        checkpoint: The best one, or the last.
        metrics: Of the last evaluation.
    """

    work_dir: Path
    checkpoint: Path
    metrics: dict[str, float]

    def __fspath__(self) -> str:
        return str(self.checkpoint)

    __str__ = __fspath__


def train(
    data: str | os.PathLike,
    *,
    work_dir: str | os.PathLike | None = None,
    resume: bool = False,
    hooks: Sequence[Hook] = (),
    suspects: str | None = None,
    **options: Any,
) -> TrainedRun:
    """Train on a folder of annotated images, as ``negvision train DATA`` does.

    Args:
        data: Folder, or its ``data.yaml``, JSON or CSV file.
        work_dir: Where everything is written; ``work_dirs/NAME`` by default.
        resume: Continue the training of this work dir.
        hooks: MMEngine's hooks to add: callbacks of the training.
        suspects: File of ``negvision audit`` whose suspects are not believed.
        **options: Fields of :class:`negvision.engine.recipes.planning.TrainOptions`; also
            ``format``,
            ``task`` and ``skip_bad`` of :func:`negvision.data.formats.folder.read_folder`.

    Raises:
        UserError: Nothing can be trained on this folder, or with these options.

    Example::

        run = negvision.train("data/raccoon", model="atss-lite0", minutes=5)
        model = negvision.load(run)
    """
    folder = Path(work_dir or default_work_dir(data))
    reading = {key: options.pop(key) for key in ("format", "task", "skip_bad") if key in options}
    known = {one.name for one in fields(TrainOptions)}
    for name in options:
        if name not in known:
            raise ConfigError(f"negvision.train has no option {name!r}{did_you_mean(name, known)}")
    chosen = TrainOptions(**options)
    path = config_to_resume(folder, chosen, **reading) if resume else None
    path = path or write_config(data, folder, chosen, **reading)
    given = {"config": str(path), "work_dir": str(folder.absolute()), "cfg_options": None}
    cfg = prepare_config(
        Namespace(**given, data_root=None, launcher="none", trust_checkpoint=False)
    )
    if suspects is not None:
        use_suspects(cfg, suspects)
    if resume and (newest := find_resume_checkpoint(folder)) is not None:
        cfg.resume, cfg.load_from = True, str(newest)
    with captured_pycocotools(), machine_errors_explained(cfg.work_dir):
        runner = build_runner(cfg, ("train", "val"))
        runner.may_start_anew = resume
        for hook in hooks:
            runner.register_hook(hook)
        runner.train()
    scores = runner.message_hub.log_scalars.items()
    # Beside the metrics there are times, whose names have no prefix of their own.
    metrics = {k[4:]: float(v.current()) for k, v in scores if re.match("val/.+/", k)}
    return TrainedRun(folder, Path(find_model(folder)), metrics)


def _data_table(data: FolderData) -> str:
    """What was read: classes, one line per split, and what was left out or changed."""
    shown = ", ".join(data.classes[:10]) + ", ..." * (len(data.classes) > 10)
    classes = counted(len(data.classes), "class", "classes")
    lines = [f"{data.root}: {data.format}, {classes}: {shown}"]
    for split, images, empty, objects, ignored in data.counts():
        line = f"  {split or 'all':<5}  {counted(images, 'image')}"
        if data.task == "detection":
            line += f", {counted(objects, 'object')}" + f", {ignored:,} ignored" * bool(ignored)
            line += f", {counted(empty, 'image')} without an object" * bool(empty)
        lines.append(line)
    lines += [f"  {sentence}" for sentence in data.assumptions]
    if data.notes:
        lines.append(data.notes.report())
    return "\n".join(lines)


def _set_minutes(made: Plan, data: FolderData, minutes: float, began: float) -> str:
    """Set the length that fits into ``minutes`` since ``began``; the sentence that says so."""
    cfg = made.cfg
    step = seconds_per_step(cfg)
    images = len(data.splits["val"])
    # Without gradients and with the same batch size, an image takes about half of the time.
    evaluation = step / 2 * math.ceil(images / cfg.val_dataloader.batch_size)
    left = minutes * 60 - (time.monotonic() - began)
    evaluations = int(min(EVALUATIONS, max(1, _EVALUATING * left // max(evaluation, 1e-3))))
    iters = int((left - evaluations * evaluation) / step)
    if iters < 1:
        raise ConfigError(
            f"--minutes {minutes:g}: {max(left, 0):.0f} s are left for training, and an iteration "
            f"takes {step:.2f} s here; give more minutes, or set --iters"
        )
    set_length(cfg, iters, evaluations, made.hold)
    return (
        f"  {iters:,} iterations of {step:.2f} s, measured just now, and {evaluations} evaluations "
        f"take {minutes:g} minutes"
    )
