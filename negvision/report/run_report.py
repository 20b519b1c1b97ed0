"""Find the files of a run in its work dir, and gather what its page shows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmengine.config import Config

from negvision.data.score_threshold import ScoreThreshold
from negvision.engine.checkpoints.loading import load_checkpoint_file
from negvision.errors import CheckpointError, UserError
from negvision.report.config_diff import changes_of, config_lines
from negvision.report.page_parts import RunReport
from negvision.report.run_evaluation import Progress, evaluate_run
from negvision.report.train_log import LogError, read_train_log
from negvision.visualization import shown_path

_CHECKPOINTS = (".pth", ".safetensors")


@dataclass(frozen=True)
class WorkDir:
    """The files of a run: its folder, its copy of the config, and a checkpoint."""

    path: Path
    config: Path
    checkpoint: Path


def find_run(path: str | Path, checkpoint: str | Path | None = None) -> WorkDir:
    """The files of the run in work dir ``path``: its newest config, and its last checkpoint unless
    ``checkpoint`` names another.

    Raises:
        UserError: The folder does not exist or has no config.
        CheckpointError: There is no checkpoint.
    """
    path = Path(path)
    if not path.is_dir():
        raise UserError(
            f"work dir {str(path)!r} does not exist; name the folder with the checkpoints of a "
            "training run, e.g. work_dirs/atss_digits"
        )
    configs = list(path.glob("*.py")) or list(path.glob("*/vis_data/config.py"))
    if not configs:
        inside = sorted({file.parent for file in path.glob("*/*.py")})
        hint = f"; did you mean {str(inside[0])!r}?" if inside else ""
        raise UserError(
            f"{str(path)!r} is not a work dir: it has no config (*.py), which every training run "
            f"copies there{hint}"
        )
    config = max(configs, key=_age)
    if checkpoint is None:
        return WorkDir(path, config, _last_checkpoint(path))
    if not Path(checkpoint).is_file():
        raise CheckpointError(f"--checkpoint {str(checkpoint)!r}: the file does not exist")
    return WorkDir(path, config, Path(checkpoint))


def _last_checkpoint(path: Path) -> Path:
    marker = path / "last_checkpoint"
    if marker.is_file():
        named = Path(marker.read_text(errors="replace").strip())
        # If the folder was moved or copied, the file is next to the marker.
        for candidate in (path / named.name, named):
            if candidate.is_file() and candidate.suffix in _CHECKPOINTS:
                return candidate
    files = [file for file in path.iterdir() if file.suffix in _CHECKPOINTS]
    if not files:
        raise CheckpointError(
            f"no checkpoint (.pth or .safetensors) in {str(path)!r}; train longer, or name one "
            "with --checkpoint FILE"
        )
    return max(files, key=_age)


def _age(file: Path) -> tuple[float, Path]:
    return file.stat().st_mtime, file


def gather(
    run: WorkDir,
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


def _facts(run: WorkDir, meta: Mapping[str, Any]) -> dict[str, str]:
    facts = {
        "work dir": shown_path(run.path),
        "config": run.config.name,
        "checkpoint": shown_path(run.checkpoint),
    }
    for key, words in (("iter", "iterations"), ("epoch", "epochs")):
        if meta.get(key):
            facts[words] = f"{meta[key]:,}"
    for key, word in (("seed", "seed"), ("time", "written")):
        if meta.get(key) is not None:
            facts[word] = str(meta[key])
    if (best := ScoreThreshold.of_meta(meta, shown_path(run.checkpoint))) is not None:
        facts["score threshold"] = str(best)
    if versions := meta.get("versions"):
        facts["versions"] = ", ".join(f"{one} {version}" for one, version in versions.items())
    # Published checkpoints do not contain the commit.
    facts["commit of negvision"] = str(meta.get("git") or "not in the checkpoint")
    return facts
