"""Split images by their content: look-alikes stay on one side, classes are spread evenly."""

from __future__ import annotations

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import combinations, pairwise
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from negvision.data.formats.contents import SPLITS, FolderData
from negvision.data.formats.text_files import read_json_file
from negvision.errors import DatasetError, Problems
from negvision.files import atomic_write

SPLIT_FILE = "split.json"
# Bits of 64 in which the hashes of look-alikes may differ: first the usual number, then fewer if
# nearly all images look alike, as frames of one camera do.
_DISTANCES = (6, 2, 0)
_LARGEST_GROUP = 0.25
# Above this, given splits are compared byte by byte only: decoding takes about a millisecond each.
MOST_HASHED = 10_000
_SIDE = 32
_BLOCK = 512
_BITS_OF = np.array([number.bit_count() for number in range(1 << 16)], np.uint8)


class Fingerprint(NamedTuple):
    """What identifies an image.

    Attributes:
        digest: Of the bytes of its file.
        look: 64 bits that hardly change with size, compression and brightness.
    """

    digest: bytes
    look: int


def fingerprints(paths: Sequence[Path], progress: Callable = lambda steps: steps) -> list:
    """The :class:`Fingerprint` of each image; None for one that cannot be decoded."""
    with ThreadPoolExecutor() as pool:  # OpenCV decodes without the GIL
        return list(progress(pool.map(_fingerprint, paths)))


def _fingerprint(path: Path) -> Fingerprint | None:
    try:
        data = path.read_bytes()
    except OSError:
        return None
    small = _decode_small(data)
    if small is None:
        return None
    return Fingerprint(hashlib.blake2b(data, digest_size=16).digest(), _look(small))


def _decode_small(data: bytes) -> np.ndarray | None:
    array = np.frombuffer(data, np.uint8)
    if not len(array):
        return None
    try:
        # libjpeg decodes to an eighth in a fraction of the time.
        image = cv2.imdecode(array, cv2.IMREAD_REDUCED_GRAYSCALE_8)
        if image is not None and min(image.shape) < _SIDE:
            image = cv2.imdecode(array, cv2.IMREAD_GRAYSCALE)
    except cv2.error:
        return None
    return image


def _look(image: np.ndarray) -> int:
    """The signs of the lowest 64 frequencies, each against their median (pHash)."""
    small = cv2.resize(image, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA).astype(np.float32)
    low = cv2.dct(small)[:8, :8].ravel()
    bits = low > np.median(low[1:])
    bits[0] = False  # the mean brightness
    return int(np.packbits(bits).view(">u8")[0])


def look_alikes(looks: Sequence[int], distance: int) -> list[list[int]]:
    """Groups of indices whose looks differ in at most ``distance`` bits, directly or by others.

    Example:
        >>> look_alikes([0b0000, 0b1111000011110000, 0b0001], distance=2)
        [[0, 2], [1]]
    """
    values, place_of = np.unique(np.array(looks, np.uint64), return_inverse=True)
    parent = list(range(len(values)))

    def root(index: int) -> int:
        while parent[index] != index:
            parent[index] = parent[parent[index]]
            index = parent[index]
        return index

    # Of distance + 1 pieces, two looks within the distance share at least one.
    edges = np.linspace(0, 64, distance + 2).astype(int)
    for low, high in pairwise(edges):
        mask = np.uint64(((1 << int(high - low)) - 1) << int(low))
        pieces = values & mask
        order = np.argsort(pieces, kind="stable")
        ranked = pieces[order]
        borders = np.flatnonzero(np.r_[True, ranked[1:] != ranked[:-1], True])
        for first, last in pairwise(borders):
            members = order[first:last]
            for start in range(0, len(members) - 1, _BLOCK):
                rows = members[start : start + _BLOCK]
                near = _bits(values[rows, None] ^ values[members[start:]]) <= distance
                for row, column in np.argwhere(np.triu(near, 1)).tolist():
                    one, two = sorted((root(rows[row]), root(members[start + column])))
                    parent[two] = one
    groups: dict[int, list[int]] = defaultdict(list)
    for index, place in enumerate(place_of.tolist()):
        groups[root(place)].append(index)
    return list(groups.values())


def _bits(values: np.ndarray) -> np.ndarray:
    """The number of bits in each value."""
    return _BITS_OF[values[..., None].view(np.uint16)].sum(-1, dtype=np.uint8)


def complete_splits(
    data: FolderData,
    val: float = 0.2,
    test: float = 0.0,
    progress: Callable = lambda steps: steps,
) -> FolderData:
    """Add the splits that a folder lacks, and report overlaps of those that it has.

    The split depends on the content of the images alone, not on their names or order: the same
    images are split alike everywhere. Look-alikes (a perceptual hash) stay on one side; classes are
    spread evenly (iterative stratification). Faces are split by person.

    A folder with ``split.json``, which :func:`write_split` writes, keeps that split; images that it
    does not list join the side of their look-alikes, or else are split likewise.

    Args:
        data: From :func:`negvision.data.formats.read_folder`.
        val: Share of the images for val, if there is none. They come from train.
        test: Likewise for test, of images without any split only.
        progress: Wraps the images, to show a progress bar.

    Returns:
        A copy with "train" and "val", perhaps "test"; ``assumptions`` and ``notes`` say how.

    Raises:
        DatasetError: There are too few images to split, or ``split.json`` is no split.
    """
    notes, assumptions = Problems(), list(data.assumptions)
    notes.merge(data.notes)
    given = dict(data.splits)
    if {"train", "val"} <= set(given):
        return with_overlaps(data, progress)
    fixed: dict[int, str] = {}
    if len(given) <= 1:
        for only in given:  # one folder called "train", as some exports have, is no split
            assumptions.append(f"there is only {only!r}, which is split")
        pool = next(iter(given.values()), list(range(len(data.images))))
        given = {}
        if (data.root / SPLIT_FILE).is_file():
            fixed = _read_split(data)
            assumptions.append(f"split as {data.root / SPLIT_FILE} says")
    else:
        pool = given.pop("train") if "train" in given else given.pop("val")
    shares = {"val": val} if given else {"val": val, "test": test}
    shares = {name: share for name, share in shares.items() if share}
    if data.task == "faces":  # pairs need two people
        people = max(len({data.images[index].labels for index in pool}), 1)
        shares = {name: max(share, 2 / people) for name, share in shares.items()}
    sides = _split(data, pool, shares, fixed, notes, progress)
    splits = {name: sorted({**given, **sides}[name]) for name in SPLITS if name in given | sides}
    if len(fixed) < len(pool):
        sizes = ", ".join(f"{name} {len(sides[name]):,}" for name in SPLITS if name in sides)
        assumptions.append(f"split by image content, look-alikes together: {sizes}")
    if given:
        _note_overlaps(data, splits, notes, progress)
    return replace(data, splits=splits, notes=notes, assumptions=assumptions)


def with_overlaps(data: FolderData, progress: Callable = lambda steps: steps) -> FolderData:
    """A copy whose ``notes`` count the images that are in two splits."""
    notes = Problems()
    notes.merge(data.notes)
    _note_overlaps(data, data.splits, notes, progress)
    return replace(data, notes=notes)


def write_split(data: FolderData, path: Path) -> None:
    """Write which image is in which split; put it into the folder as ``split.json`` to keep it."""
    content = {name: [image.name for image in data.split(name)] for name in data.splits}
    with atomic_write(path) as partial:
        partial.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def _read_split(data: FolderData) -> dict[int, str]:
    path = data.root / SPLIT_FILE
    content = read_json_file(str(path))
    if not (
        isinstance(content, dict)
        and set(content) <= set(SPLITS)
        and all(isinstance(names, list) for names in content.values())
    ):
        raise DatasetError(
            f"{path}: a split is an object with lists of image names under train, val and test; "
            "correct or remove it"
        )
    places = {image.name: index for index, image in enumerate(data.images)}
    fixed: dict[int, str] = {}
    for split, names in content.items():
        for name in names:
            if isinstance(name, str) and name in places:
                fixed[places[name]] = split
    return fixed


def _split(
    data: FolderData,
    pool: Sequence[int],
    shares: Mapping[str, float],
    fixed: Mapping[int, str],
    notes: Problems,
    progress: Callable,
) -> dict[str, list[int]]:
    groups, keys = _groups(data, pool, notes, progress)
    sides = {name: [] for name in ("train", *shares, *fixed.values())}
    free = []
    for group in groups:
        known = Counter(fixed[index] for index in group if index in fixed)
        if known:
            side = known.most_common(1)[0][0]
            for index in group:
                sides[fixed.get(index, side)].append(index)
        else:
            free.append(group)
    wanted = {"train": 1 - sum(shares.values()), **shares}
    _spread(data, free, keys, wanted, sides)
    for name in wanted:
        if not sides[name]:
            raise DatasetError(
                f"{data.root}: {len(pool):,} images are too few, or too much alike, to split into "
                f"{' and '.join(wanted)}; name splits yourself with folders train and val"
            )
    return {name: sorted(members) for name, members in sides.items()}


def _groups(
    data: FolderData, pool: Sequence[int], notes: Problems, progress: Callable
) -> tuple[list[list[int]], dict[int, bytes]]:
    """Images that must stay together, and a key of each that does not depend on its name."""
    found = fingerprints([data.path(data.images[i].name) for i in pool], progress)
    keys = {
        index: print_.digest if print_ else data.images[index].name.encode()
        for index, print_ in zip(pool, found, strict=True)
    }
    if data.task == "faces":
        people: dict[tuple, list[int]] = defaultdict(list)
        for index in pool:
            people[data.images[index].labels].append(index)
        return list(people.values()), keys
    looks = [p.look if p else -1 - n & (1 << 64) - 1 for n, p in enumerate(found)]
    for distance in _DISTANCES:
        groups = [[pool[i] for i in group] for group in look_alikes(looks, distance)]
        if max(map(len, groups)) <= max(_LARGEST_GROUP * len(pool), 2):
            break
    else:
        notes.add(
            "image that looks like most others, split regardless", str(data.root), count=len(pool)
        )
        groups = [[index] for index in pool]
    for group in groups:
        if len(group) > 1:
            kind = "image that looks like another, kept in one split with it"
            names = " = ".join(data.images[index].name for index in group[:3])
            notes.add(kind, names, count=len(group))
    return groups, keys


def _spread(
    data: FolderData,
    groups: list[list[int]],
    keys: Mapping[int, bytes],
    wanted: Mapping[str, float],
    sides: dict[str, list[int]],
) -> None:
    """Iterative stratification: the rarest class first, to the side that lacks it most.

    Sechidis, Tsoumakas, Vlahavas, On the Stratification of Multi-Label Data, ECML PKDD 2011.
    """
    keyed = sorted((min(keys[index] for index in group), group) for group in groups)
    labels = [
        # People are on one side anyway.
        Counter(k for i in group for k in data.images[i].shown() if data.task != "faces")
        for _, group in keyed
    ]
    total = Counter(label for shown in labels for label in shown.elements())
    images = sum(len(group) for _, group in keyed)
    room = {side: share * images for side, share in wanted.items()}
    lacking = {
        (side, label): share * count
        for side, share in wanted.items()
        for label, count in total.items()
    }
    left = set(range(len(keyed)))
    by_label: dict[int, list[int]] = defaultdict(list)
    for place, shown in enumerate(labels):
        for label in shown:
            by_label[label].append(place)

    def assign(place: int, label: int | None) -> None:
        side = max(wanted, key=lambda s: (lacking.get((s, label), 0), room[s]))
        group = keyed[place][1]
        sides[side] += group
        room[side] -= len(group)
        for shown, count in labels[place].items():
            lacking[side, shown] -= count
        left.discard(place)

    for label in sorted(total, key=lambda label: (total[label], label)):
        for place in by_label[label]:
            if place in left:
                assign(place, label)
    for place in sorted(left):
        assign(place, None)
    for side in wanted:  # every side gets at least one
        if not sides[side] and len(keyed) >= len(wanted):
            largest = max(wanted, key=lambda s: len(sides[s]))
            moved = min((g for _, g in keyed if set(g) <= set(sides[largest])), key=len)
            sides[largest] = [index for index in sides[largest] if index not in moved]
            sides[side] += moved


def _note_overlaps(
    data: FolderData, splits: Mapping[str, Iterable[int]], notes: Problems, progress: Callable
) -> None:
    """Count images that are in two splits: listed in both, the same bytes, or look-alikes."""
    members = [(index, split) for split, part in splits.items() for index in part]
    pool = sorted({index for index, _ in members})
    of: dict[int, set[str]] = defaultdict(set)
    for index, split in members:
        of[index].add(split)

    def note(kind: str, group: Sequence[int]) -> None:
        sides = set().union(*(of[index] for index in group))
        for a, b in combinations([s for s in SPLITS if s in sides], 2):
            count = sum(bool(of[index] & {a, b}) for index in group)
            names = " = ".join(f"{data.images[i].name} ({', '.join(of[i])})" for i in group[:3])
            notes.add(f"{kind} {a} and {b}", names, count=count)

    for index in pool:
        if len(of[index]) > 1:
            note("image that is listed in both", [index])
    same = _same_bytes(data, pool)
    for group in same:
        note("image with the same content in", group)
    if len(pool) > MOST_HASHED:
        return
    known = {index for group in same for index in group}
    rest = [index for index in pool if index not in known and len(of[index]) == 1]
    found = fingerprints([data.path(data.images[i].name) for i in rest], progress)
    pairs = [(i, p.look) for i, p in zip(rest, found, strict=True) if p]
    for group in look_alikes([look for _, look in pairs], _DISTANCES[0]):
        if len(group) > 1:
            note("image that looks like another of", [pairs[place][0] for place in group])


def _same_bytes(data: FolderData, pool: Sequence[int]) -> list[list[int]]:
    """Groups of identical files; only files of one size are read."""
    by_size: dict[int, list[int]] = defaultdict(list)
    for index in pool:
        by_size[data.path(data.images[index].name).stat().st_size].append(index)
    by_bytes: dict[bytes, list[int]] = defaultdict(list)
    for same_size in by_size.values():
        for index in same_size if len(same_size) > 1 else ():
            content = data.path(data.images[index].name).read_bytes()
            by_bytes[hashlib.blake2b(content, digest_size=16).digest()].append(index)
    return [group for group in by_bytes.values() if len(group) > 1]
