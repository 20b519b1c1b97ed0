"""Seeded damage to files, as downloads, disks and attackers cause it."""

from collections.abc import Iterator

import numpy as np


def mutations(whole: bytes, other: bytes, count: int, seed: int) -> Iterator[bytes]:
    """``count`` damaged versions of ``whole``.

    Bits are flipped, the file is cut, pieces of ``other`` are spliced in, pieces are repeated or
    swapped, numbers that may be lengths become others, tails and pieces become zeros.
    """
    rng = np.random.default_rng(seed)
    kinds = (_flip, _cut, _splice, _repeat, _lengths, _zero_tail, _zero_piece, _headers)
    for number in range(count):
        data = bytearray(whole)
        for _ in range(int(rng.integers(1, 4))):
            data = kinds[(number + int(rng.integers(2))) % len(kinds)](data, other, rng)
        yield bytes(data)


def _place(data: bytearray, rng: np.random.Generator) -> int:
    return int(rng.integers(len(data))) if data else 0


def _flip(data: bytearray, other: bytes, rng: np.random.Generator) -> bytearray:
    for _ in range(int(rng.integers(1, 20)) if data else 0):
        data[_place(data, rng)] ^= 1 << int(rng.integers(8))
    return data


def _cut(data: bytearray, other: bytes, rng: np.random.Generator) -> bytearray:
    return data[: _place(data, rng)]


def _splice(data: bytearray, other: bytes, rng: np.random.Generator) -> bytearray:
    start, place = int(rng.integers(len(other))), _place(data, rng)
    piece = other[start : start + int(rng.integers(1, 400))]
    return data[:place] + piece + data[place + int(rng.integers(2)) * len(piece) :]


def _repeat(data: bytearray, other: bytes, rng: np.random.Generator) -> bytearray:
    start, place = sorted((_place(data, rng), _place(data, rng)))
    return data[:place] + data[start:place] * int(rng.integers(1, 4)) + data[place:]


def _lengths(data: bytearray, other: bytes, rng: np.random.Generator) -> bytearray:
    values = (0, 1, 0x7F, 0x80, 0xFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
    for _ in range(3):
        place, size = _place(data, rng), int(rng.choice([1, 2, 4]))
        value = int(rng.choice(values)) & ((1 << 8 * size) - 1)
        data[place : place + size] = value.to_bytes(size, str(rng.choice(["big", "little"])))
    return data


def _headers(data: bytearray, other: bytes, rng: np.random.Generator) -> bytearray:
    for _ in range(int(rng.integers(1, 4)) if data else 0):
        data[int(rng.integers(min(len(data), 100)))] = int(rng.integers(256))
    return data


def _zero_tail(data: bytearray, other: bytes, rng: np.random.Generator) -> bytearray:
    place = _place(data, rng)
    data[place:] = bytes(len(data) - place)
    return data


def _zero_piece(data: bytearray, other: bytes, rng: np.random.Generator) -> bytearray:
    place, size = _place(data, rng), int(rng.integers(1, 64))
    return data[:place] + bytes(size) + data[place + size :]
