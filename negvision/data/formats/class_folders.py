"""Read a folder for each class, or for each person."""

from __future__ import annotations

from collections import defaultdict
from itertools import combinations

from negvision.data.formats.reading import Reading
from negvision.data.formats.tree import FileTree, split_name

NAME = "a folder for each class"
# What face datasets and their aligners write.
_ALIGNED_FACE = (112, 112)
_LOOK_AT = 50


def claim(tree: FileTree) -> list[str]:
    """The images in folders of classes, if there are several."""
    parts = _parts(tree)
    inside = [name for name in tree.images if parts[name][1]]
    return inside if len({parts[name][1] for name in inside}) > 1 else []


def read(reading: Reading, files: list[str]) -> None:
    """Read the classes; those of faces are people."""
    parts = {name: found for name, found in _parts(reading.tree).items() if found[1]}
    for name in reading.tree.images:
        if name not in parts:
            where = reading.where(name)
            reading.notes.add("image outside of the folders of classes, left out", where)
    words: dict[str, set[str]] = defaultdict(set)
    for split, word in parts.values():
        words[split].add(word)
    reading.task, reason = _task(reading, files, words)
    reading.assumptions.append(reason)
    for word in sorted(set().union(*words.values())):
        reading.label(word)
    for name in files:
        split, word = parts[name]
        image = reading.image(name, reading.where(name), split)
        if image is not None:
            image.labels = (reading.label(word),)


def _parts(tree: FileTree) -> dict[str, tuple[str, str]]:
    """Image -> its split and class; "" for none.

    Folders are splits only if all that lie beside them are: "train" beside "car" is a class. A
    single folder around everything has no meaning.
    """
    if NAME in tree.found:
        return tree.found[NAME]
    paths = {name: name.split("/")[:-1] for name in tree.images}
    depth = 0
    while True:
        tops = {path[depth] if len(path) > depth else "" for path in paths.values()}
        if len(tops) != 1 or not (top := next(iter(tops))) or split_name(top):
            break
        depth += 1
    are_splits = all(map(split_name, tops))
    parts = {}
    for name, path in paths.items():
        rest = path[depth:]
        split = split_name(rest.pop(0)) if are_splits and rest else ""
        parts[name] = (split, rest[0] if rest else "")
    tree.found[NAME] = parts
    return parts


def _task(reading: Reading, files: list[str], words: dict[str, set[str]]) -> tuple[str, str]:
    """The task, and why."""
    parts = [found for split, found in words.items() if split]
    if len(parts) > 1 and not any(a & b for a, b in combinations(parts, 2)):
        return "faces", "no class is in two splits, so the folders are people: faces (--task)"
    step = max(len(files) // _LOOK_AT, 1)
    looked_at = [reading.image(name, reading.where(name)) for name in files[::step]]
    if all(i is not None and (i.width, i.height) == _ALIGNED_FACE for i in looked_at):
        return "faces", "all images are 112 x 112, the size of aligned faces: faces (--task)"
    return "classification", "each image lies in the folder of its class: classification (--task)"
