"""What a training left in its work dir: config, checkpoint, log."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from negvision.errors import CheckpointError, UserError

_CHECKPOINTS = (".pth", ".safetensors")


@dataclass(frozen=True)
class WorkDir:
    """The files of a run.

    Attributes:
        path: The folder.
        config: The copy of the config that the run wrote.
        checkpoint: The last one.
    """

    path: Path
    config: Path
    checkpoint: Path


def find_run(path: str | Path, checkpoint: str | Path | None = None) -> WorkDir:
    """The files of the run in ``path``; of several configs the newest.

    Args:
        path: A work dir.
        checkpoint: Another one than the last.

    Raises:
        UserError: There is no such folder, or no config in it.
        CheckpointError: There is no checkpoint.

    Example:
        >>> find_run("work_dirs/atss_digits").config.name  # doctest: +SKIP
        'atss_digits.py'
    """
    path = Path(path)
    if not path.is_dir():
        raise UserError(
            f"work dir {str(path)!r}: there is no such folder; name the folder that a training "
            "wrote its checkpoints into, e.g. work_dirs/atss_digits"
        )
    configs = list(path.glob("*.py")) or list(path.glob("*/vis_data/config.py"))
    if not configs:
        inside = sorted({found.parents[0] for found in path.glob("*/*.py")})
        hint = f"; did you mean {str(inside[0])!r}?" if inside else ""
        raise UserError(
            f"{str(path)!r} is no work dir: it has no config (*.py), a copy of which every "
            f"training writes there{hint}"
        )
    config = max(configs, key=lambda file: (file.stat().st_mtime, file))
    if checkpoint is not None:
        if not Path(checkpoint).is_file():
            raise CheckpointError(f"--checkpoint {str(checkpoint)!r}: there is no such file")
        return WorkDir(path, config, Path(checkpoint))
    return WorkDir(path, config, _last_checkpoint(path))


def _last_checkpoint(path: Path) -> Path:
    marker = path / "last_checkpoint"
    if marker.is_file():
        named = Path(marker.read_text(errors="replace").strip())
        # The folder may have been moved or copied since; then the file is in it.
        for candidate in (path / named.name, named):
            if candidate.is_file() and candidate.suffix in _CHECKPOINTS:
                return candidate
    files = [file for file in path.iterdir() if file.suffix in _CHECKPOINTS]
    if not files:
        raise CheckpointError(
            f"there is no checkpoint in {str(path)!r} (.pth or .safetensors), so nothing can be "
            "evaluated; train longer, or name one with --checkpoint FILE"
        )
    return max(files, key=lambda file: (file.stat().st_mtime, file))
