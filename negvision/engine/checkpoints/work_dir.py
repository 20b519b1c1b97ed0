"""A folder of checkpoints belongs to one run: another one would overwrite them."""

import contextlib
import os
import re
import socket
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from mmengine.dist import is_main_process

from negvision.engine.checkpoints.finding import marked_checkpoint
from negvision.engine.checkpoints.saving import INTERRUPTED, raise_on_all_ranks
from negvision.errors import CheckpointError

fcntl = None
with contextlib.suppress(ModuleNotFoundError):  # Windows
    import fcntl

LOCK = "run.lock"
_WRITTEN = re.compile(rf"(epoch|iter)_\d+\.pth|best_.*\.pth|{re.escape(INTERRUPTED)}")


class FolderInUse(CheckpointError):
    """Another process works in a folder."""


@contextlib.contextmanager
def claimed(folders: Iterable[Path], resumed: str | None) -> Iterator[None]:
    """Inside the block the folders belong to this run. All ranks must enter.

    The first rank holds a lock of the system on a file in each folder, so nothing remains of a run
    that was killed. Windows and a file system without locks are used without.

    Args:
        folders: They exist; what one process claims twice is its own.
        resumed: The checkpoint with which the run continues; "" for the newest, None for none.

    Raises:
        CheckpointError: On all ranks: another run uses a folder, or one has checkpoints that the
            run does not continue.
    """
    folders = list(dict.fromkeys(folder.resolve() for folder in folders))
    error = None
    with contextlib.ExitStack() as locks:
        if is_main_process():
            try:
                for folder in folders:
                    locks.enter_context(locked(folder))
                require_own(folders, resumed)
            except CheckpointError as found:
                error = found
        raise_on_all_ranks(error)
        yield


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Inside the block no other process is in a block for ``folder``.

    Raises:
        FolderInUse: Another process is.
    """
    with (folder / LOCK).open("a+") as file:
        try:
            # Not flock, which worker processes would inherit and hold after a kill.
            if fcntl is not None:
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            file.seek(0)
            raise FolderInUse(
                f"work dir {str(folder)!r} is in use by another run ({file.read().strip()}). Wait "
                "for its end, or train in another folder: --work-dir DIR"
            ) from None
        except OSError:
            pass
        file.truncate(0)
        file.write(
            f"process {os.getpid()} on {socket.gethostname()} since {time.strftime('%F %T')}\n"
        )
        file.flush()
        yield


def require_own(folders: list[Path], resumed: str | None) -> None:
    """Raise CheckpointError if one of ``folders`` has checkpoints that would be overwritten.

    Arguments are as in :func:`claimed`, folders resolved.
    """
    start = None if resumed is None else Path(resumed).resolve()
    if resumed == "" or (start is not None and start.parent in folders):
        return
    for folder in folders:
        files = {file.resolve() for file in folder.glob("*.pth") if _WRITTEN.fullmatch(file.name)}
        last = marked_checkpoint(folder)
        files |= {last.resolve()} if last is not None else set()
        if files and start not in files:
            newest = max(files, key=lambda file: file.stat().st_mtime)
            more = f" and {len(files) - 1} more" if len(files) > 1 else ""
            how = "" if resumed is None else f", and {resumed} is none of them"
            raise CheckpointError(
                f"work dir {str(folder)!r} has checkpoints of a run ({newest.name}{more}){how}. "
                "They would be overwritten. Continue that run with --resume, or train in another "
                "folder: --work-dir DIR"
            )
