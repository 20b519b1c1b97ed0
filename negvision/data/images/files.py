"""Read files, and check which of many exist without asking for each one."""

import os
import unicodedata
from collections.abc import Iterator
from urllib.parse import unquote

from mmengine import fileio

# The kind of note that datasets count.
SPELLED_OTHERWISE = "file name with other slashes, percent signs or accents than on the disk"


def read_bytes(path: str | os.PathLike, backend_args: dict | None = None) -> bytes:
    """The content of a file.

    Args:
        path: A file, or an address that a file backend of MMEngine knows.
        backend_args: For ``mmengine.fileio``; default: a local file.

    Raises:
        OSError: The file is missing or unreadable.
    """
    if backend_args is None and "://" not in os.fspath(path):
        # MMEngine takes as long to recognize a local file as this takes to read it.
        with open(path, "rb", buffering=0) as file:
            return file.readall()
    return fileio.get(path, backend_args=backend_args)


class FileListing:
    """``path in listing`` is whether a file or folder exists; each folder is listed once.

    That is fast even for the 118,287 images of COCO, where one query per file takes minutes on a
    network drive.

    Example:
        >>> import negvision.data.images.files as module
        >>> module.__file__ in FileListing(), "/no/such/image.jpg" in FileListing()
        (True, False)
    """

    def __init__(self) -> None:
        self._names: dict[str, set[str]] = {}

    def __contains__(self, path: str) -> bool:
        folder, name = os.path.split(path)
        if folder not in self._names:
            try:
                self._names[folder] = set(os.listdir(folder or "."))
            except (FileNotFoundError, NotADirectoryError):
                self._names[folder] = set()
        return name in self._names[folder]

    def find(self, folder: str, name: str, root: str | None = None) -> str | None:
        """``name`` as the disk spells it; None if ``folder`` has no such file.

        Tools write backslashes, percent signs for special characters, or accents as characters of
        their own (NFD) where the disk has one (NFC), or the reverse.

        Args:
            folder: That ``name`` is relative to.
            name: As an annotation file has it.
            root: As in :func:`negvision.data.formats.paths.leaves_root`; another spelling that
                leaves it is not found.
        """
        # The readers of formats import this module.
        from negvision.data.formats.paths import leaves_root

        if os.path.join(folder, name) in self:
            return name
        for other in spellings(name):
            if os.path.join(folder, other) in self and not leaves_root(other, folder, root):
                return other
        return None


def spellings(name: str) -> Iterator[str]:
    """``name`` and other ways to write it; see :meth:`FileListing.find`."""
    for decoded in (name, unquote(name)):
        for text in (decoded, decoded.replace("\\", "/")):
            yield text
            yield unicodedata.normalize("NFC", text)
            yield unicodedata.normalize("NFD", text)
