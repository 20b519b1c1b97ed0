"""Sets that are generated at first use: complete or absent, and built by one process only."""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

import cv2
from filelock import FileLock

STAMP = "dataset.json"


def default_root(name: str) -> Path:
    """Folder ``name`` in the one that NEGVISION_DATA names, else in ``data``."""
    return Path(os.environ.get("NEGVISION_DATA", "data")) / name


def ensure_set(root: Path, kind: str, parameters: Mapping, write: Callable[[Path], None]) -> Path:
    """Generate a set at ``root`` unless it stands there already.

    A set of the same kind with other parameters, or damaged, is replaced. The set is built beside
    ``root`` and moved there when it is complete; of several processes that ask at once, one builds
    and the others wait.

    Args:
        root: Folder of the set.
        kind: Its name; a folder that holds something else is left alone.
        parameters: What decides its bytes, as it reads in JSON.
        write: Writes the set into the folder that it is given, which does not exist yet, and
            ends with :func:`write_stamp`.

    Returns:
        ``root``.

    Raises:
        FileExistsError: ``root`` holds something that is not a set of this kind.
    """
    if _stands(root, kind, parameters):
        return root
    root.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(root.parent / f".{root.name}.lock"):
        if not _stands(root, kind, parameters):
            _refuse_foreign(root, kind)
            _build(root, write)
    return root


def write_stamp(
    root: Path,
    kind: str,
    parameters: Mapping,
    files: list[str],
    pictures: Mapping[str, int],
    picture_sha256: Mapping[str, str],
) -> None:
    """Write ``dataset.json``, by which a set is recognized as complete.

    Args:
        root: Folder of the set.
        kind, parameters: As of :func:`ensure_set`.
        files: The single files of the set, with annotations or with many images in one; a set in
            which one of them changed is damaged.
        pictures: How many files there are in each folder of pictures.
        picture_sha256: SHA-256 of the pictures of each folder in order, for the record.
    """
    stamp = {
        "set": kind,
        "parameters": dict(parameters),
        "annotations": {name: _sha256(root / name) for name in files},
        "pictures": dict(pictures),
        "picture_sha256": dict(picture_sha256),
        "opencv": cv2.__version__,
    }
    (root / STAMP).write_text(json.dumps(stamp, indent=2) + "\n")


def read_stamp(root: Path) -> dict:
    """What :func:`write_stamp` wrote."""
    return json.loads((root / STAMP).read_text())


def _stands(root: Path, kind: str, parameters: Mapping) -> bool:
    try:
        stamp = read_stamp(root)
        return (
            _kind(stamp) == kind
            and stamp["parameters"] == parameters
            and all(_sha256(root / name) == sha for name, sha in stamp["annotations"].items())
            and all(len(os.listdir(root / name)) == n for name, n in stamp["pictures"].items())
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


def _kind(stamp: Mapping) -> str:
    # The first set there was has been written without its name.
    return stamp.get("set", "digits")


def _refuse_foreign(root: Path, kind: str) -> None:
    """Raise rather than delete a folder that is not a set of this kind."""
    if not root.exists() or (root.is_dir() and not any(root.iterdir())):
        return
    reason = f"it has no {STAMP}"
    if (root / STAMP).is_file():
        try:
            found = _kind(read_stamp(root))
        except (ValueError, AttributeError):
            return  # a damaged stamp
        if found == kind:
            return
        reason = f"it is a {found} set"
    raise FileExistsError(
        f"{root} exists and is not a {kind} set ({reason}); name another folder, or move it away"
    )


def _build(root: Path, write: Callable[[Path], None]) -> None:
    staging = Path(tempfile.mkdtemp(prefix=f".{root.name}.", dir=root.parent))
    try:
        new = staging / "new"
        write(new)
        if root.exists():
            root.rename(staging / "old")
        new.rename(root)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
