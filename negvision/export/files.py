"""A file that is whole and checked, or not there."""

import contextlib
import errno
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from negvision.errors import ExportError

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextlib.contextmanager
def moved_when_good(target: Path) -> Iterator[Path]:
    """Inside, a path of the same name in a new folder beside ``target``.

    What lies in that folder at the end is moved to the folder of ``target``; after an error nothing
    is, and what stood there before stays.

    Raises:
        ExportError: It cannot be written.

    Example:
        >>> with moved_when_good(Path("out/model.onnx")) as path:
        ...     path.write_bytes(b"")
    """
    folder = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            folder.mkdir()
        except OSError as error:
            raise _not_written(target, error) from None
        try:
            yield folder / target.name
        except OSError as error:
            if error.errno not in _NO_ROOM:
                raise
            raise _not_written(target, error) from None
        try:
            for path in sorted(folder.iterdir()):
                os.replace(path, target.with_name(path.name))
        except OSError as error:
            raise _not_written(target, error) from None
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _not_written(target: Path, error: OSError) -> ExportError:
    reason = error.strerror or error
    return ExportError(f"--out {target}: cannot be written: {reason}. Choose another file")
