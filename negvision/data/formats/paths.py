"""Keep the paths that annotation files name inside of the data root."""

import os
import posixpath
import re

# The kind of fault that datasets count.
LEAVES_ROOT = "path that leaves the data root"

# All that can lead elsewhere; nearly every path is told to be harmless by this alone.
_SUSPECT = re.compile(r"^/|\.\.|[\0\\]|^[A-Za-z]:")
_DRIVE = re.compile(r"[A-Za-z]:")


def leaves_root(name: str, folder: str, root: str | None = None) -> bool:
    """Whether a path that an annotation file names leads out of the data.

    Paths are compared as texts: a symbolic link inside of the data is the user's own and may lead
    anywhere. ``..`` and absolute paths are allowed where they stay inside. Backslashes count as
    separators and drive letters as absolute, as on Windows. A path with a NUL byte leaves, since
    the operating system would see its beginning only.

    Args:
        name: The path as written in the file, relative to ``folder``.
        folder: Where images are looked for, named by the config; "" is the current folder.
        root: The data root that the config names; by default ``folder``. What lies in ``folder``
            is inside, even where that is elsewhere.

    Example:
        >>> leaves_root("a/../b.jpg", "data/img"), leaves_root("../../etc/passwd", "data/img")
        (False, True)
        >>> leaves_root("../val/b.jpg", "data/img", root="data")
        False
    """
    if not _SUSPECT.search(name):
        return False
    if "\0" in name or _DRIVE.match(name):
        return True
    name = name.replace("\\", "/")
    if "://" in folder:  # of a remote file backend
        path = posixpath.normpath(name)
        return path.startswith(("/", "../")) or path == ".."
    path = os.path.abspath(os.path.join(folder, name))
    return not (_lies_in(path, folder) or (root and _lies_in(path, root)))


def _lies_in(path: str, folder: str) -> bool:
    folder = os.path.abspath(folder)
    return path == folder or path.startswith(folder.rstrip("/") + "/")
