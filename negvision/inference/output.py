"""A folder whose files have their names once they are whole."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from negvision.errors import UserError


class OutputFolder:
    """Write files into a folder; those of their names from before are replaced.

    Args:
        path: Is made.

    Raises:
        UserError: It cannot be written; so do all methods.

    Example:
        >>> folder = OutputFolder("out")
        >>> folder.write("labels/street.png", content)
        PosixPath('out/labels/street.png')
    """

    def __init__(self, path: str | os.PathLike) -> None:
        self.path = Path(path)
        # Before a model is loaded and hours are spent.
        self.begin("probe").drop()

    def write(self, name: str, content: bytes) -> Path:
        """Write a file, and folders above it."""
        partial = self.begin(name)
        with partial.explained():
            partial.path.write_bytes(content)
        return partial.keep()

    def begin(self, name: str) -> Partial:
        """A file that is written bit by bit."""
        return Partial(self.path / name)


class Partial:
    """A file under another name beside its own.

    Args:
        target: The file that it will be.

    Attributes:
        path: To write to; it ends as ``target`` does.

    Raises:
        UserError: It cannot be made.
    """

    def __init__(self, target: Path) -> None:
        self.target = target
        self.path = target.with_name(f".{os.getpid()}.{target.name}")
        with self.explained():
            target.parent.mkdir(parents=True, exist_ok=True)
            self.path.touch()

    def keep(self) -> Path:
        """Give it its own name, which is returned."""
        with self.explained():
            os.replace(self.path, self.target)
        return self.target

    def drop(self) -> None:
        """Remove it."""
        with contextlib.suppress(OSError):
            self.path.unlink(missing_ok=True)

    @contextlib.contextmanager
    def explained(self):
        """What the system refuses inside is a user error, and the file is removed."""
        try:
            yield
        except OSError as error:
            self.drop()
            raise UserError(
                f"--out: {self.target} cannot be written: {error.strerror or error}. Choose "
                "another folder"
            ) from None
