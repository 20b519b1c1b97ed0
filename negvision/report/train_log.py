"""Read the JSON-lines log of scalars that a training run leaves."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from pathlib import Path

from negvision.errors import UserError

Curve = tuple[list[int], list[float]]

# A run's own bookkeeping, beside losses, learning rate and metrics.
_COUNTERS = {"epoch", "iter", "step", "time", "data_time", "memory"}


class LogError(UserError):
    """A log is missing, empty, or not what a training run writes."""


@dataclass
class TrainLog:
    """Curves of one run over its iterations.

    Attributes:
        name: To show in a legend.
        files: The files read, oldest first.
        train: Scalars of training by key (``loss``, ``loss_cls``, ``lr``, ...).
        evaluations: Metrics by key (``coco/bbox_mAP``, ...).
    """

    name: str
    files: list[Path]
    train: dict[str, Curve] = field(default_factory=dict)
    evaluations: dict[str, Curve] = field(default_factory=dict)


def read_train_log(path: str | Path) -> TrainLog:
    """Read a run.

    Args:
        path: A ``scalars.json``, or a folder that has some below it, such as a work dir. Of a
            folder's runs the newest is taken, together with those it was resumed from.

    Raises:
        LogError: see the class.

    Example:
        >>> log = read_train_log("work_dirs/atss_digits")  # doctest: +SKIP
        >>> steps, values = log.train["loss"]  # doctest: +SKIP
    """
    path = Path(path)
    files = [path] if path.is_file() else _files_of_newest_run(path)
    entries: list[dict] = []
    for file in files:
        new = _entries(file)
        # A resumed run starts from a checkpoint: what the one before did after it is void.
        first = next((_iteration(entry) for entry in new if _is_training(entry)), None)
        if first is not None:
            entries = _before(entries, first)
        entries += new
    if not any(_is_training(entry) for entry in entries):
        named = ", ".join(str(file) for file in files)
        raise LogError(
            f"{named}: no line has a loss; training writes one after each logging interval"
        )
    # The folder of a run is work_dir/<time>/vis_data; its work dir is what tells runs apart.
    name = path.resolve().name if path.is_dir() else _name_of_file(path)
    log = TrainLog(name, files)
    _fill(log, entries)
    return log


def _files_of_newest_run(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise LogError(f"{folder} does not exist; name a work dir or its scalars.json")
    files = sorted(folder.rglob("scalars.json"), key=lambda file: (file.stat().st_mtime, file))
    files = [file for file in files if file.stat().st_size]
    if not files:
        raise LogError(
            f"no scalars.json with a line in it below {folder}: nothing was logged there yet, or "
            "the config's visualizer has no LocalVisBackend"
        )
    run = [files.pop()]
    while files and _was_resumed(run[0]):
        before = [file for file in files if file.parents[2:3] == run[0].parents[2:3]]
        # Test runs leave logs in the same work dir.
        before = [file for file in before if any(map(_is_training, _entries(file)))]
        if not before:
            break
        run.insert(0, before[-1])
        files = files[: files.index(before[-1])]
    return run


def _was_resumed(file: Path) -> bool:
    config = file.parent / "config.py"
    return config.is_file() and bool(re.search(r"^resume\s*=\s*True", config.read_text(), re.M))


def _name_of_file(file: Path) -> str:
    parents = file.resolve().parents
    if parents[0].name == "vis_data" and len(parents) > 2:
        return f"{parents[2].name}/{parents[1].name}"
    return str(file)


def _entries(file: Path) -> list[dict]:
    entries = []
    lines = file.read_text(errors="replace").splitlines()
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            entry = json.loads(line)
        except ValueError as error:
            # A run that is going on, or was killed, may leave half a line at the end.
            if number == len(lines) and entries:
                continue
            raise LogError(
                f"{file}:{number} is not JSON ({error}); a log has one object a line, as in "
                "vis_data/scalars.json"
            ) from error
        if not isinstance(entry, dict):
            raise LogError(f"{file}:{number} is {line.strip()[:40]!r}, not a JSON object")
        entries.append(entry)
    if not entries:
        raise LogError(f"{file} is empty: the run has logged nothing yet")
    return entries


def _is_training(entry: dict) -> bool:
    return "loss" in entry and "step" in entry


def _iteration(entry: dict) -> int:
    return int(entry["step"])


def _before(entries: list[dict], iteration: int) -> list[dict]:
    """Entries up to the first training line at or after ``iteration``."""
    for index, entry in enumerate(entries):
        if _is_training(entry) and _iteration(entry) >= iteration:
            return entries[:index]
    return entries


def _fill(log: TrainLog, entries: list[dict]) -> None:
    epoch_length = _epoch_length(entries)
    last = 0
    for entry in entries:
        if _is_training(entry):
            target, step = log.train, _iteration(entry)
            last = step
        else:
            target, step = log.evaluations, _evaluated_at(entry, last, epoch_length)
        for key, value in entry.items():
            if key not in _COUNTERS and isinstance(value, int | float):
                steps, values = target.setdefault(key, ([], []))
                steps.append(step)
                values.append(float(value))


def _epoch_length(entries: list[dict]) -> int | None:
    """Iterations of an epoch: lines come at the same place of each."""
    first: dict[int, int] = {}
    for entry in entries:
        if _is_training(entry) and "epoch" in entry:
            first.setdefault(int(entry["epoch"]), _iteration(entry))
    epochs = sorted(first)
    if len(epochs) < 2 or epochs[-1] == epochs[0]:
        return None
    return round((first[epochs[-1]] - first[epochs[0]]) / (epochs[-1] - epochs[0]))


def _evaluated_at(entry: dict, last: int, epoch_length: int | None) -> int:
    """The iteration of an evaluation, whose ``step`` counts epochs where the run does."""
    step = int(entry.get("step", 0))
    if step >= last:
        return step
    if epoch_length is not None and last <= step * epoch_length:
        return step * epoch_length
    return last
