"""Find the files of a run in its work dir, or take one file, and gather what its page shows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmengine.config import Config

from negvision.data.score_threshold import ScoreThreshold
from negvision.engine.checkpoints.loading import load_checkpoint_file
from negvision.errors import CheckpointError, UserError
from negvision.inference.runtime import ExportedModel
from negvision.report.config_diff import changes_of, config_lines
from negvision.report.page_parts import RunReport
from negvision.report.run_evaluation import Progress, evaluate_run
from negvision.report.train_log import LogError, read_train_log
from negvision.visualization import shown_path

_CHECKPOINTS = (".pth", ".safetensors")
_EXPORTED = ".onnx"


@dataclass(frozen=True)
class Run:
    """The files of a run.

    Attributes:
        path: Its work dir, or the folder of a single file.
        config: Its copy of the config; the model, if that holds the config.
        checkpoint: The model: a checkpoint, published weights or an exported model.
    """

    path: Path
    config: Path
    checkpoint: Path

    @property
    def is_exported(self) -> bool:
        """Whether the model is an exported one."""
        return self.checkpoint.suffix == _EXPORTED


def find_run(path: str | Path, checkpoint: str | Path | None = None) -> Run:
    """The files of the run in work dir ``path``: its newest config, and its best checkpoint, or
    else its last, unless ``checkpoint`` names another. A file stands for itself.

    Raises:
        UserError: The path does not exist, or the folder is no work dir.
        CheckpointError: There is no checkpoint.
    """
    path = Path(path)
    if path.suffix in (*_CHECKPOINTS, _EXPORTED) and path.is_file():
        if checkpoint is not None:
            raise UserError(f"--checkpoint {checkpoint}: {path} is a model already; leave one out")
        return Run(path.parent, path, path)
    if not path.is_dir():
        raise UserError(
            f"{str(path)!r} is neither a work dir nor a model; name the folder of a training run, "
            "e.g. work_dirs/atss_lite0_digits, a checkpoint (.pth), weights (.safetensors) or an "
            "exported model (.onnx)"
        )
    configs = list(path.glob("*.py")) or list(path.glob("*/vis_data/config.py"))
    if not configs and checkpoint is None and not _checkpoints(path):
        inside = sorted({file.parent for file in path.glob("*/*.py")})
        hint = f"; did you mean {str(inside[0])!r}?" if inside else ""
        raise UserError(
            f"{str(path)!r} is not a work dir: it has no config (*.py), which every training run "
            f"copies there, and no checkpoint{hint}"
        )
    if checkpoint is not None and not Path(checkpoint).is_file():
        raise CheckpointError(f"--checkpoint {str(checkpoint)!r}: the file does not exist")
    model = _best_checkpoint(path) if checkpoint is None else Path(checkpoint)
    return Run(path, max(configs, key=_age) if configs else model, model)


def _checkpoints(path: Path) -> list[Path]:
    return [file for file in path.iterdir() if file.suffix in _CHECKPOINTS]


def _best_checkpoint(path: Path) -> Path:
    """The best one, as other commands take it for a work dir, or the last."""
    best = list(path.glob("best_*.pth"))
    return max(best, key=_age) if best else _last_checkpoint(path)


def _last_checkpoint(path: Path) -> Path:
    marker = path / "last_checkpoint"
    if marker.is_file():
        named = Path(marker.read_text(errors="replace").strip())
        # If the folder was moved or copied, the file is next to the marker.
        for candidate in (path / named.name, named):
            if candidate.is_file() and candidate.suffix in _CHECKPOINTS:
                return candidate
    files = _checkpoints(path)
    if not files:
        raise CheckpointError(
            f"no checkpoint (.pth or .safetensors) in {str(path)!r}; train longer, or name one "
            "with --checkpoint FILE"
        )
    return max(files, key=_age)


def _age(file: Path) -> tuple[float, Path]:
    return file.stat().st_mtime, file


def gather(
    run: Run,
    name: str,
    cfg: Config,
    folder: Path,
    progress: Progress = iter,
    trust: bool = False,
    score_threshold: float | None = None,
) -> RunReport:
    """Read the log, compare the config, and test the checkpoint.

    Args:
        run, name: The files, and the name on the page.
        cfg: Its config, with the options of the command line.
        folder, progress, score_threshold: As in
            :func:`negvision.report.run_evaluation.evaluate_run`.
        trust: As in :func:`negvision.engine.checkpoints.loading.load_checkpoint_file`.

    Raises:
        CheckpointError: The checkpoint cannot be read.
        UserError: As in :func:`negvision.report.run_evaluation.evaluate_run`.
    """
    if run.is_exported:
        meta = _exported_meta(run.checkpoint)
    else:
        meta = load_checkpoint_file(run.checkpoint, "cpu", trust, mapped=True).get("meta") or {}
    lines, changes = config_lines(cfg), changes_of(run.config, cfg)
    log, problem = None, ""
    try:
        log = read_train_log(run.path)
        log.name = name
    except LogError as error:
        problem = str(error)
    sections = evaluate_run(cfg, run.checkpoint, folder, progress, score_threshold)
    return RunReport(name, _facts(run, meta), changes, lines, log, problem, sections)


def _exported_meta(file: Path) -> dict[str, Any]:
    """What an exported model says about itself, as a checkpoint says it."""
    model = ExportedModel(file)
    versions = dict(model.metadata.versions)
    meta = {"git": versions.pop("git", None), "versions": versions}
    meta["precision"] = model.metadata.precision
    return meta | (model.score_threshold.as_meta() if model.score_threshold else {})


def _facts(run: Run, meta: Mapping[str, Any]) -> dict[str, str]:
    facts = {
        "work dir": shown_path(run.path),
        "config": run.config.name,
        "checkpoint": shown_path(run.checkpoint),
    }
    if run.config == run.checkpoint:
        facts = {"model": shown_path(run.checkpoint), "config": "stored in the model"}
    for key, words in (("iter", "iterations"), ("epoch", "epochs")):
        if meta.get(key):
            facts[words] = f"{meta[key]:,}"
    for key, word in (("seed", "seed"), ("time", "written"), ("precision", "precision")):
        if meta.get(key) is not None:
            facts[word] = str(meta[key])
    if (best := ScoreThreshold.of_meta(meta, shown_path(run.checkpoint))) is not None:
        facts["score threshold"] = str(best)
    if versions := meta.get("versions"):
        facts["versions"] = ", ".join(f"{one} {version}" for one, version in versions.items())
    # Published checkpoints do not contain the commit.
    facts["commit of negvision"] = str(meta.get("git") or "not in the checkpoint")
    return facts
