"""Read the JSON-lines log of scalars that a training run writes."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from negvision.errors import UserError

Curve = tuple[list[int], list[float]]

# Counters and timings, which are not curves.
_COUNTERS = {"epoch", "iter", "step", "time", "data_time", "memory"}
_MAIN_METRICS = re.compile(
    r"(?:\w+/)?(?:\w+_)?"
    r"(mAP(_50|_75)?|mIoU|mAcc|aAcc|accuracy|auroc|ap_out|fpr95_(ood|id)|id_ap|auc|eer|rank1)"
)
_MOST_PANELS = 24


class LogError(UserError):
    """A log is missing, empty, or not written by a training run."""


@dataclass
class TrainLog:
    """Curves of one run over its iterations, from ``files``, oldest first.

    ``train`` has scalars by key (``loss``, ``loss_cls``, ``lr``, ...), ``evaluations`` metrics
    (``coco/bbox_mAP``, ...).
    """

    name: str
    files: list[Path]
    train: dict[str, Curve] = field(default_factory=dict)
    evaluations: dict[str, Curve] = field(default_factory=dict)


def read_train_log(path: str | Path) -> TrainLog:
    """Read a run.

    Args:
        path: A ``scalars.json``, or a folder with some below it, such as a work dir. The newest
            run in a folder is read, together with the runs it was resumed from.

    Raises:
        LogError: See the class.

    Example::

        log = read_train_log("work_dirs/atss_lite0_digits")
        steps, values = log.train["loss"]
    """
    path = Path(path)
    files = [path] if path.is_file() else _files_of_newest_run(path)
    entries: list[dict] = []
    for file in files:
        new = _entries(file)
        # A run resumes from a checkpoint: what was logged after that checkpoint is void.
        first = next((entry["step"] for entry in new if _is_training(entry)), None)
        if first is not None:
            entries = _before(entries, first)
        entries += new
    if not any(map(_is_training, entries)):
        names = ", ".join(map(str, files))
        raise LogError(
            f"{names}: no line has a loss; training writes one after each logging interval"
        )
    # The folder of a run is work_dir/<time>/vis_data.
    name = path.resolve().name if path.is_dir() else _name_of_file(path)
    log = TrainLog(name, files)
    _fill(log, entries)
    return log


def main_curves(
    logs: Sequence[TrainLog],
) -> tuple[dict[str, dict[str, Curve]], dict[str, dict[str, Curve]]]:
    """Losses and learning rate, then the main metrics: for each key, the curve of each run."""
    return (
        _panels({log.name: log.train for log in logs}, _is_of_training),
        _panels({log.name: log.evaluations for log in logs}, _MAIN_METRICS.fullmatch),
    )


def _panels(runs: Mapping[str, Mapping[str, Curve]], is_shown) -> dict[str, dict[str, Curve]]:
    keys = dict.fromkeys(key for curves in runs.values() for key in curves if is_shown(key))
    return {
        key: {name: curves[key] for name, curves in runs.items() if key in curves}
        for key in list(keys)[:_MOST_PANELS]
    }


def _is_of_training(key: str) -> bool:
    known = key == "lr" or key.endswith("/gap") or key == "boxes/without"
    return known or "loss" in key.rpartition(".")[2]


def _files_of_newest_run(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise LogError(f"{folder} does not exist; name a work dir or its scalars.json")
    files = sorted(folder.rglob("scalars.json"), key=lambda file: (file.stat().st_mtime, file))
    files = [file for file in files if file.stat().st_size]
    if not files:
        raise LogError(
            f"no scalars.json with content below {folder}: nothing has been logged yet, or the "
            "config's visualizer has no LocalVisBackend"
        )
    run = [files.pop()]
    while files and _was_resumed(run[0]):
        # Tests leave logs without training in the same work dir.
        earlier = [
            file
            for file in files
            if file.parents[2:3] == run[0].parents[2:3] and any(map(_is_training, _entries(file)))
        ]
        if not earlier:
            break
        run.insert(0, earlier[-1])
        files = files[: files.index(earlier[-1])]
    return run


def _was_resumed(file: Path) -> bool:
    config = file.parent / "config.py"
    return config.is_file() and bool(
        re.search(r"^resume\s*=\s*True", config.read_text("utf-8"), re.M)
    )


def _name_of_file(file: Path) -> str:
    parents = file.resolve().parents
    if parents[0].name == "vis_data" and len(parents) > 2:
        return f"{parents[2].name}/{parents[1].name}"
    return str(file)


def _entries(file: Path) -> list[dict]:
    entries = []
    lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            entry = json.loads(line)
        except ValueError as error:
            # A running or killed run may leave an incomplete last line.
            if number == len(lines) and entries:
                continue
            raise LogError(
                f"{file}:{number} is not JSON ({error}); a log has one object per line, like "
                "vis_data/scalars.json"
            ) from error
        if not isinstance(entry, dict):
            raise LogError(f"{file}:{number} is {line.strip()[:40]!r}, not a JSON object")
        entries.append(entry)
    if not entries:
        raise LogError(f"{file} is empty: the run has not logged anything yet")
    return entries


def _is_training(entry: dict) -> bool:
    return "loss" in entry and "step" in entry


def _before(entries: list[dict], step: int) -> list[dict]:
    """Entries up to the first training line at or after ``step``."""
    for index, entry in enumerate(entries):
        if _is_training(entry) and entry["step"] >= step:
            return entries[:index]
    return entries


def _fill(log: TrainLog, entries: list[dict]) -> None:
    epoch_length = _epoch_length(entries)
    last = 0
    for entry in entries:
        if _is_training(entry):
            target, step = log.train, entry["step"]
            last = step
        else:
            target, step = log.evaluations, _evaluated_at(entry, last, epoch_length)
        for key, value in entry.items():
            if key not in _COUNTERS and isinstance(value, int | float):
                steps, values = target.setdefault(key, ([], []))
                steps.append(step)
                values.append(float(value))


def _epoch_length(entries: list[dict]) -> int:
    """Iterations of an epoch, from the first line of each; 0 if unknown."""
    first: dict[int, int] = {}
    for entry in entries:
        if _is_training(entry) and "epoch" in entry:
            first.setdefault(entry["epoch"], entry["step"])
    if len(first) < 2:
        return 0
    start, end = min(first), max(first)
    return round((first[end] - first[start]) / (end - start))


def _evaluated_at(entry: dict, last: int, epoch_length: int) -> int:
    """The iteration of an evaluation, whose ``step`` may count epochs."""
    step = entry.get("step", 0)
    return max(step if step >= last else step * epoch_length, last)
