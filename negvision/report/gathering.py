"""All that the page tells of one run, gathered from its work dir."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config

from negvision.engine.checkpoints.loading import load_checkpoint_file
from negvision.ood import ood_metrics
from negvision.ood.records import OODRecords
from negvision.report.config_diff import changes_of, config_lines
from negvision.report.figures import columns
from negvision.report.ood_page import ood_sections
from negvision.report.run_evaluation import Evaluated, Progress, evaluate_run
from negvision.report.run_parts import FigureRow, FigureTable, Html, RunReport, Section
from negvision.report.train_log import LogError, TrainLog, read_train_log
from negvision.report.work_dir import WorkDir
from negvision.visualization import shown_path


def gather(
    run: WorkDir,
    name: str,
    cfg: Config,
    folder: Path,
    progress: Progress = iter,
    trust: bool = False,
) -> RunReport:
    """Read the log, compare the config, and test the checkpoint.

    Args:
        run: The files.
        name: Of the run on the page.
        cfg: Its config, with the options of the command line.
        folder: For what the test writes.
        progress: As of :func:`negvision.report.run_evaluation.evaluate_run`.
        trust: As of :func:`negvision.engine.checkpoints.loading.load_checkpoint_file`.

    Raises:
        CheckpointError: The checkpoint cannot be read.
        UserError: As of :func:`negvision.report.run_evaluation.evaluate_run`.
    """
    meta = load_checkpoint_file(run.checkpoint, "cpu", trust, mapped=True).get("meta") or {}
    lines, changes = config_lines(cfg), changes_of(run.config, cfg)
    log, problem = _log(run.path, name)
    evaluated = evaluate_run(cfg, run.checkpoint, folder, progress)
    sections = [*evaluated.sections, _ood(evaluated)]
    return RunReport(name, _facts(run, meta), changes, lines, log, problem, sections)


def _ood(evaluated: Evaluated) -> Section:
    name, title = "ood", "Out of distribution"
    if evaluated.records is None:
        missing = "The config's test evaluator is no OOD metric."
        if evaluated.ood_problem:
            missing = f"OOD scores cannot be evaluated: {evaluated.ood_problem}"
        return Section(name, title, missing=missing)
    page = Html(ood_sections(evaluated.records, prefix="ood-"))
    return Section(name, title, [_own_score(evaluated.records), page])


def _own_score(records: OODRecords) -> FigureTable:
    """The figures of the model's own score, by which runs are compared."""
    own = torch.from_numpy(next(iter(records.scores.values())))
    weights = None if records.weights is None else torch.from_numpy(records.weights)
    metrics = ood_metrics(own, torch.from_numpy(records.is_ood), weights=weights)
    rows = [
        FigureRow(column.head, [column.value(metrics)], column.meaning, column.better)
        for column in columns(records.task, metrics.prevalence)
    ]
    return FigureTable(f"OOD of {records.task}", "figure", ["value"], rows, hidden=True)


def _log(path: Path, name: str) -> tuple[TrainLog | None, str]:
    try:
        log = read_train_log(path)
    except LogError as error:
        return None, str(error)
    log.name = name
    return log, ""


def _facts(run: WorkDir, meta: Mapping[str, Any]) -> dict[str, str]:
    facts = {
        "work dir": shown_path(run.path),
        "config": run.config.name,
        "checkpoint": shown_path(run.checkpoint),
    }
    # A run of iterations has no epoch.
    for key, words in (("iter", "iterations"), ("epoch", "epochs")):
        if meta.get(key):
            facts[words] = f"{meta[key]:,}"
    if meta.get("seed") is not None:
        facts["seed"] = str(meta["seed"])
    if meta.get("time"):
        facts["written"] = str(meta["time"])
    versions = meta.get("versions") or {}
    if versions:
        facts["versions"] = ", ".join(f"{one} {version}" for one, version in versions.items())
    # A published checkpoint has neither; then this is not known.
    facts["commit of negvision"] = str(meta.get("git") or "not in the checkpoint")
    return facts
