"""Run the model of a work dir over its test set, and keep what its page shows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

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
from negvision.report.classification_sections import LabelCollector
from negvision.report.detection_sections import DetectionCollector
from negvision.report.face_sections import PairCollector
from negvision.report.run_parts import Section
from negvision.report.segmentation_sections import LabelMapCollector

Progress = Callable[[list], object]


@dataclass(frozen=True)
class Evaluated:
    """What the test of a run gave.

    Attributes:
        sections: Of its task.
        records: Scored samples, where the evaluator is an OOD metric.
        ood_problem: Why there are none though it is.
    """

    sections: list[Section]
    records: OODRecords | None
    ood_problem: str


class _Collecting(Hook):
    """Hands what is predicted to the collector of its task."""

    # After the metrics: what they take is still as the model left it.
    priority = "LOW"

    def __init__(self) -> None:
        self.collector = None

    def after_test_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        if self.collector is None:
            self.collector = _collector(runner, outputs[0])
        self.collector.add(data_batch["inputs"], outputs)


def evaluate_run(cfg: Config, checkpoint: Path, folder: Path, progress: Progress) -> Evaluated:
    """Test a checkpoint on the test set of its config.

    Nothing is written but into ``folder``, and hooks that draw are left out.

    Args:
        cfg: As :func:`negvision.engine.prepare.prepare_config` returns it; is changed.
        checkpoint: Of the run.
        folder: For logs and what metrics write.
        progress: Wraps the indices of train images whose assignment is looked at.

    Raises:
        ConfigError: The config has no test set, or its model is of no task with a page.
        UserError: As of ``tools/test.py``.
    """
    if not cfg.get("test_dataloader"):
        raise ConfigError(
            f"the config {cfg.filename} has no test_dataloader, so it has no test set"
        )
    cfg.load_from, cfg.resume, cfg.work_dir = str(checkpoint), False, str(folder)
    # Runners of one name and second in one process would share a log file, and visualizers of one
    # name what they write to.
    cfg.experiment_name = f"report_{folder.name}"
    if cfg.get("visualizer"):
        cfg.visualizer.update(name=cfg.experiment_name, vis_backends=None)
    cfg.custom_hooks = [hook for hook in cfg.get("custom_hooks") or [] if not _draws(hook)]
    (cfg.get("default_hooks") or {}).pop("visualization", None)
    collecting, problem = _Collecting(), ""
    with captured_pycocotools():
        runner = build_runner(cfg, ("test",))
        runner.register_hook(collecting)
        try:
            runner.test()
        except OODDataError as error:
            problem = str(error)
        if collecting.collector is None:
            raise ConfigError(f"the test set of {cfg.filename} has no images")
        sections = collecting.collector.sections()
        if isinstance(collecting.collector, DetectionCollector):
            sections.append(_assignment(cfg, runner.model, progress))
    files = sorted(folder.rglob("ood_scores.npz"))
    records = OODRecords.load(files[-1]) if files else None
    return Evaluated(sections, records, problem)


def _draws(hook: Mapping) -> bool:
    return str(hook.get("type")).endswith("SheetHook")


def _collector(runner, sample):
    model, evaluator = runner.model, _evaluator(runner.cfg)
    meta = runner.test_evaluator.metrics[0].dataset_meta or {}
    classes = meta.get("classes", ())
    if "pred_instances" in sample:
        return DetectionCollector(model, classes, evaluator)
    if "pred_sem_seg" in sample:
        return LabelMapCollector(model, classes, meta.get("palette") or ())
    if "embedding" in sample:
        return PairCollector(model, meta, evaluator)
    if "pred_label" in sample:
        return LabelCollector(model, classes)
    raise ConfigError(
        f"{type(model).__name__} predicts no boxes, label maps, embeddings or classes of images "
        f"(its samples have {sorted(sample.keys())}), so there is no page for it"
    )


def _evaluator(cfg: Config) -> Mapping:
    """The arguments of the test evaluator; of several that which names annotations."""
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
        return Section(name, title, missing=f"The train set is not here: {error}")
    return assignment_section(
        model, DATASETS.build(cfg.train_dataloader.dataset), progress=progress
    )
