"""Characters as identities, and their images."""

import numpy as np
import pytest

from negvision.toy import characters as module
from negvision.toy.characters import (
    CHARACTERS,
    FONTS,
    SIDE,
    appearance,
    characters,
    compose_character,
    drawings,
)

SPLITS = ("train", "val", "test")
EVERY = "".join(CHARACTERS.values())


def test_splits_share_no_character_and_use_all():
    parts = [characters(split) for split in SPLITS]
    assert [len(part) for part in parts] == [280, 31, 75]
    assert sorted("".join(parts)) == sorted(set(EVERY))


def test_no_two_characters_look_alike_in_any_font():
    looks, owners = [], []
    for number, character in enumerate(EVERY):
        for ink in drawings(character):
            looks.append(appearance(ink))
            owners.append(number)
    looks, owners = np.stack(looks), np.array(owners)
    likeness = looks @ looks.T
    likeness[owners[:, None] == owners] = -1
    first, second = np.unravel_index(likeness.argmax(), likeness.shape)
    pair = EVERY[owners[first]] + EVERY[owners[second]]
    assert likeness.max() < 0.9, (pair, likeness.max())


def test_likeness_finds_look_alikes():
    """The measure of the test above, on what it is to keep out."""
    for pair in ("Oo", "O\u041e", "\u0397H", "l|", "Ss"):
        first, second = (appearance(drawings(character)[0]) for character in pair)
        assert first @ second > 0.9, pair
    first, second = (appearance(drawings(character)[0]) for character in "Kg")
    assert first @ second < 0.6


def test_every_character_is_seen_in_several_fonts():
    counts = [len(drawings(character)) for character in EVERY]
    assert min(counts) >= 2
    assert np.mean(counts) > 8
    # 16 fonts with all styles, and five of Computer Modern for letters of English.
    assert len(drawings("E")) == len(FONTS) + 5
    assert len(drawings("Ж")) <= len(FONTS)


def test_drawings_fill_their_frame():
    for character in "A♔ᐃم":
        for ink in drawings(character):
            assert ink.shape == (SIDE, SIDE) and ink.dtype == np.float32
            assert ink.min() >= 0 and ink.max() <= 1
            rows, columns = np.nonzero(ink > 0.2)
            extent = np.array([np.ptp(rows), np.ptp(columns)]) + 1
            assert 76 <= extent.max() <= 80
            center = np.array([rows.min() + rows.max() + 1, columns.min() + columns.max() + 1]) / 2
            assert np.abs(center - SIDE / 2).max() <= 2


def test_missing_characters_are_named():
    with pytest.raises(ValueError, match="no font of matplotlib has the character '\\\\uffff'"):
        drawings("\uffff")


def test_missing_font_says_how_to_install_it(monkeypatch):
    monkeypatch.setattr(module, "FONTS", ("NoSuchFont",))
    with pytest.raises(FileNotFoundError, match=r"NoSuchFont\.ttf is missing.*pip install"):
        drawings.__wrapped__("A")


@pytest.mark.parametrize("side", [16, 48, 112])
def test_image_has_the_requested_size(side):
    image = compose_character(np.random.default_rng(0), "val", "A", side)
    assert image.shape == (side, side, 3) and image.dtype == np.uint8


def test_character_is_in_the_image(monkeypatch):
    """The strokes are what differs from the picture of a blank character."""
    inside = []
    for seed in range(40):
        image = compose_character(np.random.default_rng(seed), "test", "&", 48)
        with monkeypatch.context() as patch:
            blank = (np.zeros((SIDE, SIDE), np.float32),) * len(drawings("&"))
            patch.setattr("negvision.toy.characters.drawings", lambda _c, b=blank: b)
            background = compose_character(np.random.default_rng(seed), "test", "&", 48)
        change = np.abs(image.astype(int) - background).max(axis=2)
        inside.append((change > 25).mean())
    assert min(inside) > 0.01
    assert 0.06 < np.mean(inside) < 0.4
