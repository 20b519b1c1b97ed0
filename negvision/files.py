"""Files and folders that are written completely or not at all."""

import contextlib
import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from negvision.errors import UserError

_PARTIAL = ".partial"


@contextlib.contextmanager
def atomic_write(path: str | Path, error: type[Exception] | None = UserError) -> Iterator[Path]:
    """Yield a path to write to; at the end of the block that file replaces ``path`` at once.

    After an exception in the block, or if the process or the machine dies, ``path`` is unchanged.

    Args:
        path: In a folder that exists.
        error: Raised with a message instead of an error of the system; None: raise that error.

    Raises:
        UserError: Or ``error``: the file cannot be written.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp(), "a.txt")
        >>> with atomic_write(path) as partial:
        ...     _ = partial.write_text("complete")
        >>> path.read_text()
        'complete'
    """
    path = Path(path)
    # With another suffix, so that no glob for checkpoints finds it.
    partial = path.with_name(f".{path.name}{_PARTIAL}")
    try:
        yield partial
        with partial.open("r+b") as file:  # Windows syncs only what may be written
            os.fsync(file.fileno())
        os.replace(partial, path)
        _sync(path.parent)
    except BaseException as failure:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
        if error is None or not is_write_error(failure):
            raise
        raise error(f"{path} cannot be written: {write_reason(failure)}") from None


def remove_partial_files(folder: Path) -> None:
    """Remove what killed processes left of :func:`atomic_write` in ``folder``."""
    for file in folder.glob(f".*{_PARTIAL}"):
        file.unlink(missing_ok=True)


def is_write_error(error: BaseException) -> bool:
    """Whether ``error`` says that the system could not write a file."""
    # torch.save reports a failed write as a RuntimeError of its zip writer.
    return isinstance(error, OSError) or "PytorchStreamWriter" in str(error)


def write_reason(error: BaseException) -> str:
    """Why a file could not be written, in a few words."""
    number = getattr(error, "errno", None)
    if number in (errno.ENOSPC, errno.EDQUOT):
        return "the disk is full"
    return os.strerror(number) if number else str(error).splitlines()[0]


def check_writable(target: Path) -> None:
    """Raise UserError if ``target`` cannot be written; folders above it are created."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{target} cannot be written: {error}") from None
    if target.is_dir() or not os.access(target.parent, os.W_OK):
        raise UserError(f"{target} cannot be written: choose another file")


@contextlib.contextmanager
def staged(folder: Path) -> Iterator[Path]:
    """Yield a temporary folder in ``folder``; at the end of the block its entries are moved there.

    Entries replace those of the same name; everything else in ``folder`` stays. After an exception
    nothing is moved.

    Args:
        folder: Is created where it is missing.
    """
    folder.mkdir(parents=True, exist_ok=True)
    # In the same folder: a rename is atomic only within one file system.
    staging = Path(tempfile.mkdtemp(prefix=".staged.", dir=folder))
    try:
        new, old = staging / "new", staging / "old"
        new.mkdir()
        old.mkdir()
        yield new
        for entry in sorted(new.iterdir()):
            target = folder / entry.name
            if target.is_dir():
                target.rename(old / entry.name)
            entry.replace(target)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _sync(folder: Path) -> None:
    if os.name == "nt":  # which does not open folders
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
