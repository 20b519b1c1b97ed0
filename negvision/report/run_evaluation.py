"""Test the checkpoint of a work dir, and collect what the run's page shows."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.registry import DATASETS
from mmengine.runner import Runner
from torch import nn

from negvision.compat.patches import captured_pycocotools
from negvision.data.images.loading import reader_of
from negvision.data.score_threshold import shown_from
from negvision.detection.assignment_view import AssignmentView, anchor_sizes, assignment_views
from negvision.engine.config.data_files import check_data
from negvision.engine.prepare import build_runner
from negvision.errors import ConfigError, MissingDataError, OODDataError
from negvision.inference.exported_network import put_in_place
from negvision.ood import ood_metrics
from negvision.ood.records import OODRecords
from negvision.report.detection_sections import DetectionCollector
from negvision.report.face_sections import PairCollector
from negvision.report.label_sections import LabelCollector, LabelMapCollector
from negvision.report.ood_page import columns, ood_sections
from negvision.report.page_parts import Html, MetricRow, MetricTable, Part, Plots, Section
from negvision.report.plots import count_bars
from negvision.visualization.looking import evenly_spaced, seeded

Progress = Callable[[list], Iterable]

# Of which the assignment is shown.
_TRAIN_IMAGES = 200
_SIZES, _LIMITS = ("small", "medium", "large"), (32.0**2, 96.0**2)


class _CollectingHook(Hook):
    """Passes predictions to the collector of their task."""

    # After the metrics, which need the outputs as the model left them.
    priority = "LOW"

    def __init__(self, score_threshold: float | None) -> None:
        self.score_threshold = score_threshold
        self.collector: Any = None

    def after_test_iter(
        self, runner, batch_idx, data_batch: Any = None, outputs: Any = None
    ) -> None:
        if self.collector is None:
            self.collector = _collector(runner, outputs[0], self.score_threshold)
        self.collector.add(data_batch["inputs"], outputs)


def evaluate_run(
    cfg: Config,
    checkpoint: Path,
    folder: Path,
    progress: Progress,
    score_threshold: float | None = None,
) -> list[Section]:
    """Test a checkpoint on the test set of its config, and return the sections of its task.

    Writes into ``folder`` only; hooks that draw are removed.

    Args:
        cfg: As returned by :func:`negvision.engine.prepare.prepare_config`; changed in place.
        checkpoint, folder: Of the run, and for logs and the files of metrics.
        progress: Wraps the indices of the train images whose assignment is inspected.
        score_threshold: Boxes with a lower score are neither drawn nor counted as confused; None
            for the threshold of the checkpoint, or 0.3.

    Raises:
        ConfigError: The config has no test set, or its task has no page.
        UserError: As in ``negvision test``.
    """
    hook, problem = _CollectingHook(score_threshold), ""
    with captured_pycocotools():
        runner = runner_of_test(cfg, checkpoint, folder)
        runner.register_hook(hook)
        try:
            runner.test()
        except OODDataError as error:
            problem = str(error)
        if hook.collector is None:
            raise ConfigError(f"the test set of {cfg.filename} has no images")
        sections = hook.collector.sections()
        if isinstance(hook.collector, DetectionCollector):
            sections.append(_assignment(cfg, runner.model, progress))
    files = sorted(folder.rglob("ood_scores.npz"))
    records = OODRecords.load(files[-1]) if files else None
    return [*sections, _ood_section(records, problem)]


def runner_of_test(cfg: Config, checkpoint: str | Path, folder: Path) -> Runner:
    """What tests a checkpoint and writes into ``folder`` only; hooks that draw are removed.

    Arguments and errors are those of :func:`evaluate_run`.
    """
    if not cfg.get("test_dataloader"):
        raise ConfigError(f"config {cfg.filename} has no test_dataloader, so it has no test set")
    exported = str(checkpoint).endswith(".onnx")
    if exported:
        put_in_place(cfg, checkpoint)
    else:
        cfg.load_from = str(checkpoint)
    cfg.resume, cfg.work_dir = False, str(folder)
    # Runners and visualizers with the same name in one process would share their files.
    cfg.experiment_name = f"report_{folder.name}"
    if cfg.get("visualizer"):
        cfg.visualizer.update(name=cfg.experiment_name, vis_backends=None)
    hooks = cfg.get("custom_hooks") or []
    cfg.custom_hooks = [hook for hook in hooks if not str(hook.get("type")).endswith("SheetHook")]
    (cfg.get("default_hooks") or {}).pop("visualization", None)
    runner = build_runner(cfg, ("test",))
    if exported:
        runner.score_threshold = runner.model.exported.score_threshold
    return runner


def _ood_section(records: OODRecords | None, problem: str) -> Section:
    name, title = "ood", "Out of distribution"
    if records is None:
        missing = "The config's test evaluator is not an OOD metric."
        if problem:
            missing = f"OOD scores cannot be evaluated: {problem}"
        return Section(name, title, missing=missing)
    # Metrics of the model's own score, used to compare runs.
    own = torch.from_numpy(next(iter(records.scores.values())))
    weights = None if records.weights is None else torch.from_numpy(records.weights)
    values = ood_metrics(own, torch.from_numpy(records.is_ood), weights=weights)
    rows = [
        MetricRow(column.head, [column.value(values)], column.meaning, column.better)
        for column in columns(records.task, values.prevalence)
    ]
    table = MetricTable(f"OOD of {records.task}", "metric", ["value"], rows, hidden=True)
    return Section(name, title, [table, Html(ood_sections(records, prefix="ood-"))])


def _collector(runner, sample, score_threshold: float | None):
    model, evaluator = runner.model, evaluator_of(runner.cfg)
    meta = runner.test_evaluator.metrics[0].dataset_meta or {}
    classes = meta.get("classes", ())
    read = reader_of(runner.test_dataloader.dataset)
    if "pred_instances" in sample:
        shown = shown_from(score_threshold, runner.score_threshold)
        return DetectionCollector(model, classes, evaluator, shown, read)
    if "pred_sem_seg" in sample:
        return LabelMapCollector(classes, meta.get("palette") or (), read)
    if "embedding" in sample:
        return PairCollector(meta, evaluator, read)
    if "pred_label" in sample:
        return LabelCollector(classes)
    raise ConfigError(
        f"{type(model).__name__} predicts no boxes, label maps, embeddings, or classes of images "
        f"(its samples have {sorted(sample.keys())}), so there is no page for it"
    )


def evaluator_of(cfg: Config) -> Mapping:
    """The arguments of the test evaluator, preferably of one with an ``ann_file``."""
    given = cfg.test_evaluator
    evaluators = list(given) if isinstance(given, list | tuple) else [given]
    return next((one for one in evaluators if "ann_file" in one), evaluators[0])


def _assignment(cfg: Config, model: nn.Module, progress: Progress) -> Section:
    """Positives per box in some train images, assigned as in training."""
    name, title = "assignment", "Assignment of positives"
    if not (cfg.get("train_dataloader") or {}).get("dataset"):
        return Section(name, title, missing="The config has no train set.")
    try:
        check_data(cfg, ("train",))
        dataset = DATASETS.build(cfg.train_dataloader.dataset)
        with seeded(0):
            chosen = progress(evenly_spaced(len(dataset), _TRAIN_IMAGES))
            views = list(assignment_views(model, dataset, chosen))
    except MissingDataError as error:
        return Section(name, title, missing=f"The train set is missing: {error}")
    except ConfigError as error:
        return Section(name, title, missing=f"Not available: {error}.")
    if not any(len(view.boxes) for view in views):
        return Section(name, title, missing="The train images have no boxes.")
    return Section(name, title, _assignment_parts(views, len(dataset)))


def _assignment_parts(views: Sequence[AssignmentView], total: int) -> list[Part]:
    counts = torch.cat([view.positives_per_box for view in views]).numpy()
    boxes = torch.cat([view.boxes for view in views])
    sizes = np.digitize((boxes[:, 2:] - boxes[:, :2]).prod(1).numpy(), _LIMITS)
    rows = [_positives("all", counts)]
    rows += [_positives(size, counts[sizes == code]) for code, size in enumerate(_SIZES)]
    by_size = MetricTable(
        "Positives by box size",
        "boxes",
        ("without a positive", "share", "boxes", "fewest", "median", "mean", "most"),
        rows,
        f"Positives per box in {len(views):,} of {total:,} train images, after the pipeline. Small "
        "boxes are below 32², medium ones below 96² pixels of the network's image. The network "
        "never learns from a box without a positive.",
        compared=1,
    )
    bars = count_bars(counts, "positives per box", "boxes", "Positives per box")
    return [by_size, Plots("Boxes by number of positives", [bars]), _positives_by_level(views)]


def _positives(name: str, counts: np.ndarray) -> MetricRow:
    without = int((counts == 0).sum())
    if not len(counts):
        return MetricRow(name, [0, None, 0, None, None, None, None], better="lower")
    spread = [int(counts.min()), float(np.median(counts)), float(counts.mean()), int(counts.max())]
    return MetricRow(name, [without, without / len(counts), len(counts), *spread], better="lower")


def _positives_by_level(views: Sequence[AssignmentView]) -> MetricTable:
    positives = torch.stack([view.counts.by_level for view in views]).sum(0).tolist()
    total = max(sum(positives), 1)
    rows = []
    for level, (size, count) in enumerate(zip(anchor_sizes(views), positives, strict=True)):
        anchors = sum(len(view.priors[level]) for view in views)
        values = [size or "\N{EN DASH}", anchors, count, count / total]
        rows.append(MetricRow(f"level {level}", values, better=""))
    columns = ("anchors, px", "anchors", "positives", "share of positives")
    return MetricTable("Positives by level", "level", columns, rows, compared=3)
