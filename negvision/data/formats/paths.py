"""Keep the paths in annotation files inside the data root."""

import os
import posixpath
import re

# The kind of problem that datasets count.
LEAVES_ROOT = "path that leaves the data root"

# Anything that can lead elsewhere; nearly every path passes this first check.
_SUSPECT = re.compile(r"^/|\.\.|[\0\\]|^[A-Za-z]:")
_DRIVE = re.compile(r"[A-Za-z]:")


def leaves_root(name: str, folder: str, root: str | None = None) -> bool:
    """Whether a path in an annotation file leads out of the data.

    Paths are compared as text: a symbolic link inside the data is the user's own and may lead
    anywhere. ``..`` and absolute paths are allowed if they stay inside. As on Windows, backslashes
    are separators and drive letters absolute. A path with a NUL byte leaves: the operating system
    would see only its beginning.

    Args:
        name: The path as written in the file, relative to ``folder``.
        folder: The image folder of the config; "" is the current folder. Always inside.
        root: The data root of the config; by default ``folder``.

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
