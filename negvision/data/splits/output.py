"""Write the files of a split so that they are complete or absent."""

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from negvision.errors import DatasetError


@contextmanager
def staged_outputs(folder: Path, names: Sequence[str], overwrite: bool) -> Iterator[Path]:
    """A folder to write into, from which files are moved to their place at the end.

    Args:
        folder: Where they shall be; it is made where it is missing. Whatever else is in it stays.
        names: Files or folders that will be written; a folder replaces the old one as a whole.
        overwrite: Replace those that are there already.

    Yields:
        The folder to write ``names`` into. After an error nothing of it is left.

    Raises:
        DatasetError: One of ``names`` is in ``folder`` and is not to be replaced, or ``folder`` is
            a file.
    """
    if folder.exists() and not folder.is_dir():
        raise DatasetError(f"--out {folder} is a file; name a folder")
    standing = [name for name in names if (folder / name).exists()]
    if standing and not overwrite:
        raise DatasetError(
            f"{folder} has {', '.join(standing)} already; name another folder with --out, or "
            "replace them with --overwrite"
        )
    folder.mkdir(parents=True, exist_ok=True)
    # In the same folder: moving is at once only within one file system.
    staging = Path(tempfile.mkdtemp(prefix=".split.", dir=folder))
    try:
        new, old = staging / "new", staging / "old"
        new.mkdir()
        old.mkdir()
        yield new
        for name in names:
            if (folder / name).is_dir():
                (folder / name).rename(old / name)
            (new / name).replace(folder / name)
    finally:
        shutil.rmtree(staging)
