"""Test the checkpoint of a work dir, and collect what the run's page shows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.registry import DATASETS
from torch import nn

from negvision.compat.patches import captured_pycocotools
from negvision.engine.config.data_files import check_data
from negvision.engine.prepare import build_runner
from negvision.errors import ConfigError, MissingDataError, OODDataError
from negvision.ood.records import OODRecords
from negvision.report.assignment_section import assignment_section
from negvision.report.detection_sections import DetectionCollector
from negvision.report.face_sections import PairCollector
from negvision.report.label_sections import LabelCollector, LabelMapCollector
from negvision.report.page_parts import Section

Progress = Callable[[list], object]


@dataclass(frozen=True)
class Evaluated:
    """The results of a test.

    Attributes:
        sections: Of the task.
        records: Scored samples if the evaluator is an OOD metric, else None.
        ood_problem: Why an OOD metric gave no records, or "".
    """

    sections: list[Section]
    records: OODRecords | None
    ood_problem: str


class _CollectingHook(Hook):
    """Passes predictions to the collector of their task."""

    # After the metrics, which need the outputs as the model left them.
    priority = "LOW"

    def __init__(self) -> None:
        self.collector: Any = None

    def after_test_iter(
        self, runner, batch_idx, data_batch: Any = None, outputs: Any = None
    ) -> None:
        if self.collector is None:
            self.collector = _collector(runner, outputs[0])
        self.collector.add(data_batch["inputs"], outputs)


def evaluate_run(cfg: Config, checkpoint: Path, folder: Path, progress: Progress) -> Evaluated:
    """Test a checkpoint on the test set of its config.

    Writes into ``folder`` only; hooks that draw are removed.

    Args:
        cfg: As returned by :func:`negvision.engine.prepare.prepare_config`; changed in place.
        checkpoint: Of the run.
        folder: For logs and the files of metrics.
        progress: Wraps the indices of the train images whose assignment is inspected.

    Raises:
        ConfigError: The config has no test set, or its task has no page.
        UserError: As in ``negvision test``.
    """
    if not cfg.get("test_dataloader"):
        raise ConfigError(f"config {cfg.filename} has no test_dataloader, so it has no test set")
    cfg.load_from, cfg.resume, cfg.work_dir = str(checkpoint), False, str(folder)
    # Runners and visualizers with the same name in one process would share their files.
    cfg.experiment_name = f"report_{folder.name}"
    if cfg.get("visualizer"):
        cfg.visualizer.update(name=cfg.experiment_name, vis_backends=None)
    hooks = cfg.get("custom_hooks") or []
    cfg.custom_hooks = [hook for hook in hooks if not str(hook.get("type")).endswith("SheetHook")]
    (cfg.get("default_hooks") or {}).pop("visualization", None)
    hook, problem = _CollectingHook(), ""
    with captured_pycocotools():
        runner = build_runner(cfg, ("test",))
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
    return Evaluated(sections, records, problem)


def _collector(runner, sample):
    model, evaluator = runner.model, _evaluator(runner.cfg)
    meta = runner.test_evaluator.metrics[0].dataset_meta or {}
    classes = meta.get("classes", ())
    if "pred_instances" in sample:
        return DetectionCollector(model, classes, evaluator)
    if "pred_sem_seg" in sample:
        return LabelMapCollector(classes, meta.get("palette") or ())
    if "embedding" in sample:
        return PairCollector(model, meta, evaluator)
    if "pred_label" in sample:
        return LabelCollector(classes)
    raise ConfigError(
        f"{type(model).__name__} predicts no boxes, label maps, embeddings, or classes of images "
        f"(its samples have {sorted(sample.keys())}), so there is no page for it"
    )


def _evaluator(cfg: Config) -> Mapping:
    """The arguments of the test evaluator, preferably of one with an ``ann_file``."""
    given = cfg.test_evaluator
    evaluators = list(given) if isinstance(given, list | tuple) else [given]
    return next((one for one in evaluators if "ann_file" in one), evaluators[0])


def _assignment(cfg: Config, model: nn.Module, progress: Progress) -> Section:
    name, title = "assignment", "Assignment of positives"
    if not (cfg.get("train_dataloader") or {}).get("dataset"):
        return Section(name, title, missing="The config has no train set.")
    try:
        check_data(cfg, ("train",))
    except MissingDataError as error:
        return Section(name, title, missing=f"The train set is missing: {error}")
    dataset = DATASETS.build(cfg.train_dataloader.dataset)
    return assignment_section(model, dataset, progress=progress)
