"""Find the checkpoint that a run goes on from."""

import os
import sys
import zipfile
import zlib
from pathlib import Path

from negvision.engine.checkpoints.loading import load_checkpoint_file
from negvision.errors import CheckpointError


def find_resume_checkpoint(work_dir: str | Path, trust: bool = False) -> Path | None:
    """The checkpoint of a work dir that is furthest in its training and whole.

    Files that are damaged are passed over with a warning that names them; so are, in silence,
    those without an optimizer's state, such as the best ones.

    Args:
        work_dir: Where the run writes its checkpoints.
        trust: As in :func:`negvision.engine.checkpoints.loading.load_checkpoint_file`.

    Returns:
        None where there is no checkpoint.

    Raises:
        CheckpointError: There are checkpoints, and not one of them is whole.
    """
    work_dir = Path(work_dir)
    files = set(work_dir.glob("*.pth"))
    marker = work_dir / "last_checkpoint"
    if marker.is_file():
        # Elsewhere where CheckpointHook has an out_dir.
        last = Path(marker.read_text().strip())
        files |= {last} if last.suffix == ".pth" and last.is_file() else set()
    damaged = []
    found = []
    for file in sorted(files):
        if not zipfile.is_zipfile(file):
            damaged.append((file, "it is cut short, or no checkpoint of torch.save"))
            continue
        try:
            found.append((_progress(file, trust), file))
        except CheckpointError as error:
            damaged.append((file, str(error).splitlines()[0]))
    found = [(progress, file) for progress, file in found if progress is not None]
    for _, file in sorted(found, key=lambda item: (item[0], item[1].stat().st_mtime), reverse=True):
        fault = find_damage(file)
        if fault is None:
            _warn(damaged)
            return file
        damaged.append((file, fault))
    if damaged:
        named = "\n  ".join(f"{file}: {reason}" for file, reason in damaged)
        raise CheckpointError(
            f"--resume: no checkpoint in {str(work_dir)!r} is whole:\n  {named}\nName another file "
            "(--resume FILE), or train without --resume"
        )
    return None


def find_damage(file: Path) -> str | None:
    """Say what is wrong with a checkpoint's bytes, all of which are read; None if nothing is."""
    try:
        with zipfile.ZipFile(file) as archive:
            part = archive.testzip()
    except (OSError, ValueError, zipfile.BadZipFile, zlib.error) as error:
        return str(error) or type(error).__name__
    return None if part is None else f"it is damaged: {part} does not match its checksum"


def _warn(damaged: list[tuple[Path, str]]) -> None:
    # No log file is open yet; of the ranks of a distributed run one says it.
    if os.environ.get("RANK", "0") == "0":
        for file, reason in damaged:
            print(f"warning: --resume passes over {file}: {reason}", file=sys.stderr)


def _progress(file: Path, trust: bool) -> tuple[int, int] | None:
    """Epochs and iterations that were trained; None for weights without a training's state."""
    # The tensors stay on the disk: a checkpoint may be of many gigabytes.
    checkpoint = load_checkpoint_file(file, "cpu", trust, mapped=True)
    meta = checkpoint.get("meta") if isinstance(checkpoint, dict) else None
    if not isinstance(meta, dict) or "optimizer" not in checkpoint:
        return None
    return int(meta.get("epoch", 0)), int(meta.get("iter", 0))
