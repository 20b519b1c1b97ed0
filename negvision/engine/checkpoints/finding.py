"""Find the checkpoint to resume from, and the one to use a work dir's model by."""

import os
import sys
import zipfile
import zlib
from pathlib import Path

from negvision.engine.checkpoints.loading import beside, load_checkpoint_file
from negvision.errors import CheckpointError


def find_resume_checkpoint(work_dir: str | Path, trust: bool = False) -> Path | None:
    """The intact checkpoint of a work dir that was saved last.

    Not the one with the most training: the folder may hold what was trained beyond the checkpoint
    from which the run started again. The time is that of saving, not of the file, which a copy
    changes; among checkpoints without it, the most training counts. Damaged files are skipped with
    a warning. Files without an optimizer state, such as the best checkpoints, are skipped silently.

    Args:
        work_dir: The run's folder of checkpoints.
        trust: As in :func:`negvision.engine.checkpoints.loading.load_checkpoint_file`.

    Returns:
        None if there is no checkpoint.

    Raises:
        CheckpointError: All checkpoints are damaged.
    """
    work_dir = Path(work_dir)
    files = set(work_dir.glob("*.pth"))
    last = marked_checkpoint(work_dir)
    files |= {last} if last is not None and last.suffix == ".pth" else set()
    damaged: list[tuple[Path, str]] = []
    found = []
    for file in sorted(files):
        try:
            progress = _progress(file, trust)
            if progress is not None:
                found.append((progress, file.stat().st_mtime, file))
        except CheckpointError as error:
            damaged.append((file, str(error).splitlines()[0]))
    for *_, file in sorted(found, reverse=True):
        damage = find_damage(file)
        if damage is None:
            _warn(damaged)
            return file
        damaged.append((file, damage))
    if damaged:
        named = "\n  ".join(f"{file}: {reason}" for file, reason in damaged)
        raise CheckpointError(
            f"--resume: all checkpoints in {str(work_dir)!r} are damaged:\n  {named}\nName another "
            "file (--resume FILE), or train without --resume"
        )
    return None


def find_model(path: str | Path) -> str:
    """The file of a model: ``path`` itself or, in a work dir, its best checkpoint or its last.

    Raises:
        CheckpointError: There is no such file, or the work dir has no checkpoint.
    """
    folder = Path(path)
    if not folder.is_dir():
        if not folder.is_file():
            raise CheckpointError(f"checkpoint {str(path)!r} does not exist{beside(folder)}")
        return str(path)
    best = sorted(folder.glob("best_*.pth"), key=lambda file: file.stat().st_mtime)
    last = best[-1] if best else find_resume_checkpoint(folder)
    if last is None:
        raise CheckpointError(
            f"{path} is a folder without a checkpoint (*.pth): name the work dir of a training, or "
            "a file"
        )
    return str(last)


def marked_checkpoint(work_dir: Path) -> Path | None:
    """The file that ``last_checkpoint`` names: in another folder if the hook has an ``out_dir``."""
    marker = work_dir / "last_checkpoint"
    last = Path(marker.read_text("utf-8").strip()) if marker.is_file() else None
    return last if last is not None and last.is_file() else None


def find_damage(file: Path) -> str | None:
    """The problem of a damaged checkpoint, whose bytes are all read; None if it is intact."""
    try:
        with zipfile.ZipFile(file) as archive:
            part = archive.testzip()
    except (OSError, ValueError, zipfile.BadZipFile, zlib.error) as error:
        return str(error) or type(error).__name__
    return None if part is None else f"it is damaged: {part} does not match its checksum"


def _warn(damaged: list[tuple[Path, str]]) -> None:
    # No log file is open yet. Only the first rank prints.
    if os.environ.get("RANK", "0") == "0":
        for file, reason in damaged:
            print(f"warning: --resume skips {file}: {reason}", file=sys.stderr)


def _progress(file: Path, trust: bool) -> tuple[float, int, int] | None:
    """The time of saving, trained epochs and iterations; None without a training state."""
    if not zipfile.is_zipfile(file):
        raise CheckpointError("it is truncated, or not a checkpoint of torch.save")
    # Tensors stay on the disk: a checkpoint may have many gigabytes.
    checkpoint = load_checkpoint_file(file, "cpu", trust, mapped=True)
    meta = checkpoint.get("meta") if isinstance(checkpoint, dict) else None
    if not isinstance(meta, dict) or "optimizer" not in checkpoint:
        return None
    return float(meta.get("saved", 0)), int(meta.get("epoch", 0)), int(meta.get("iter", 0))
