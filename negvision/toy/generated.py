"""Datasets generated at first use: complete or absent, and built by one process only."""

import argparse
import hashlib
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path

import cv2
from filelock import FileLock

from negvision.files import staged

STAMP = "dataset.json"


def default_root(name: str) -> Path:
    """Folder ``name`` in the one that NEGVISION_DATA names, else in ``data``."""
    return Path(os.environ.get("NEGVISION_DATA", "data")) / name


def ensure_set(root: Path, kind: str, parameters: Mapping, write: Callable[[Path], None]) -> Path:
    """Generate a dataset at ``root`` unless it exists.

    A damaged dataset, or one of the same kind with other parameters, is replaced. The dataset is
    built beside ``root`` and moved there when complete. If several processes ask at once, one
    builds and the others wait.

    Args:
        root: Folder of the dataset.
        kind: Its name; a folder with something else is not touched.
        parameters: What decides its bytes, as JSON values.
        write: Creates the given folder, writes the dataset into it, and ends with
            :func:`write_stamp`.

    Returns:
        ``root``.

    Raises:
        FileExistsError: ``root`` holds something that is not a dataset of this kind.
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
    """Write ``dataset.json``, which marks a dataset as complete.

    Args:
        root: Folder of the dataset.
        kind, parameters: As in :func:`ensure_set`.
        files: Files with annotations or with many images; the dataset is damaged if one changed.
        pictures: The number of files in each image folder.
        picture_sha256: SHA-256 of the images of each folder in order, for the record.
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
    """The content of ``dataset.json``."""
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
    # The first version of the digits wrote no name.
    return stamp.get("set", "digits")


def _refuse_foreign(root: Path, kind: str) -> None:
    """Raise rather than delete a folder that is not a dataset of this kind."""
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
    with staged(root.parent) as folder:
        write(folder / root.name)


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def main(ensure: Callable[[Path], Path], default: Path, description: str) -> int:
    """The command line of a generated dataset: write it and report where it is."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("root", nargs="?", type=Path, default=default, help="default: %(default)s")
    root = ensure(parser.parse_args().root)
    counts = ", ".join(f"{count} {name}" for name, count in read_stamp(root)["pictures"].items())
    print(f"{root}: {counts}")
    return 0
