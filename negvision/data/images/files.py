"""Read files, and check which of many exist without asking for each one."""

import os

from mmengine import fileio


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
