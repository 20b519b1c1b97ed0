# ruff: noqa: RUF001  (which Latin letters the others could be mistaken for is the point here)
"""Characters of many scripts, drawn with the fonts that ship inside matplotlib.

A character is an identity, and the fonts (sans, serif, monospaced; bold, oblique) are what pose
and age are to a face.
"""

from functools import cache
from importlib.util import find_spec
from pathlib import Path

import cv2
import numpy as np
from PIL import ImageFont

from negvision.toy.photos import SPLITS

# No two of them look alike in any of the fonts, even blurred: O is a zero and Я a mirrored R, so
# the zero and Я are here. Characters that are small, narrow, or told apart by an accent alone are
# left out.
CHARACTERS = {
    "Latin": "ABCEKLMNPQTVWXZbdegkmnrÆÞǂɔɘɞɣɥɮʔʕʖʞƣƧƸǝɄʍʎʬʭƕƦȣɂƜ",
    "Digits": "013457",
    "Greek": "ΞΣΦΨβζλμωϙϚϞϱϗϟϠϻͰͶ",
    "Coptic": "ϣϦϧϨϮ",
    "Cyrillic": "ДЖЫЮЯЂЉЊЋѢѬѰѦѨѮѸѺҨҼԂԄԆԊԌԎԖԔԤꙌꙔꙖꙢꙦꙮҡӪбђѣѥ",
    "Armenian": "ԶԷԹՀՁՆՇՊՐՔՖչջֆ",
    "Georgian": "ႢႣႤႥႧႩႪႫႰႵႼႽႾჃჅადკლოჟრფჯჰჷⴀⴂⴃⴆⴈⴉⴏⴐⴓⴔⴚⴝⴟⴡⴢⴣⴤ",
    "Hebrew": "אהטךלעצקרש",
    "Arabic": "ءبةتجخرزسعغفقكمنهوىڑکھ",
    "Lao": "ຂຄງຈຊຍນຜຝລສ໑໒໓໕໖໗໘໙",
    "Syllabics": "ᐃᐊᐳᐸᑍᑬᒊᒧᓀᓂᓄᓇᓓᓕᓗᓚᓬᓭᓯᔐᔑᔓᔕᔦᔨᔪᔭᕊᕋᕍᕒᕤᕪᕴᕵᕷᕹᖊᖋᖌᖍᖕᖠᖢᖤᙇ",
    "Signs": (
        "#$&¢£¥§¶%@₹₺↯↺⇒⇧√∞≈≠≤≥⌂⌘▲▶◀♁♂♃♅♆♪♫♬♭♯₡₫₰₲⊂₪ℋℒ℘ℛℬℰℱℳℵ☂★☏☕☘☠☢☣"
        "☭☯☽♈♊♋♌♍♎♏♐♑♒♓♔♕♖♗♘♙♨♻♿⚑⚒⚓⚔⚖⚗⚘⚙⚛⚜⚡⚥☮⚴⚵⚶⚷✂✈✉✌✍✎✓✡✿❀❤➔"
    ),
}
# Of each script; the rest is for training.
_SHARES = {"val": 0.08, "test": 0.19}

_FAMILIES = {
    "DejaVuSans": ("", "-Bold", "-Oblique", "-BoldOblique"),
    "DejaVuSerif": ("", "-Bold", "-Italic", "-BoldItalic"),
    "DejaVuSansMono": ("", "-Bold", "-Oblique", "-BoldOblique"),
    "STIXGeneral": ("", "Bol", "Italic", "BolIta"),
}
FONTS = tuple(family + style for family, styles in _FAMILIES.items() for style in styles)
# Computer Modern has other characters in the places of most signs.
ALPHANUMERIC_FONTS = ("cmr10", "cmb10", "cmss10", "cmti10", "cmtt10")

SIDE = 96
_INNER = 80
# A font whose drawing resembles that of the first font less than this (a correlation) is left out:
# cursive forms of some characters are other shapes.
_LEAST_LIKENESS = 0.5


@cache
def characters(split: str) -> str:
    """The characters of ``split``, in a fixed order; splits share none.

    Args:
        split: "train", "val" or "test".

    Returns:
        One string; each script has its share in each split.
    """
    if split not in SPLITS:
        raise ValueError(f"split is {split!r}; it must be one of {', '.join(SPLITS)}")
    chosen = ""
    for number, script in enumerate(CHARACTERS.values()):
        order = np.random.default_rng([1869, number]).permutation(len(script))
        start = 0
        for name, share in _SHARES.items():
            stop = start + round(share * len(script))
            if name == split:
                chosen += "".join(script[i] for i in order[start:stop])
            start = stop
        if split == "train":
            chosen += "".join(script[i] for i in sorted(order[start:]))
    return chosen


@cache
def drawings(character: str) -> tuple[np.ndarray, ...]:
    """The character in each font that has it.

    Returns:
        At least one array, 96 x 96 float32 in 0..1, with the character centered and 80 pixels on
        its longer side.

    Raises:
        FileNotFoundError: a font is missing from the installed matplotlib.
        ValueError: no font has the character.
    """
    names = FONTS
    if character.isascii() and character.isalnum():
        names += ALPHANUMERIC_FONTS
    drawn = [ink for name in names if (ink := _draw(name, character)) is not None]
    if not drawn:
        raise ValueError(f"no font of matplotlib has the character {character!r}")
    first = appearance(drawn[0])
    return tuple(ink for ink in drawn if appearance(ink) @ first > _LEAST_LIKENESS)


def appearance(ink: np.ndarray) -> np.ndarray:
    """What is left of a drawing when it is small and blurred.

    Args:
        ink: Shape (96, 96).

    Returns:
        Shape (1024,), of mean 0 and length 1: products of two are correlations.
    """
    small = cv2.resize(ink, (32, 32), interpolation=cv2.INTER_AREA)
    small = cv2.GaussianBlur(small, (0, 0), 0.9).ravel()
    small = small - small.mean()
    return small / np.linalg.norm(small)


def _draw(name: str, character: str) -> np.ndarray | None:
    mask = _mask(name, character)
    if mask.size == 0 or not mask.any() or np.array_equal(mask, _mask(name, "\uffff")):
        return None  # the font draws what stands for missing characters
    rows, columns = np.nonzero(mask > 64)
    mask = mask[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
    scale = _INNER / max(mask.shape)
    height, width = (max(1, round(scale * n)) for n in mask.shape)
    ink = np.zeros((SIDE, SIDE), dtype=np.float32)
    top, left = (SIDE - height) // 2, (SIDE - width) // 2
    ink[top : top + height, left : left + width] = (
        cv2.resize(mask, (width, height), interpolation=cv2.INTER_AREA) / 255
    )
    return ink


def _mask(name: str, character: str) -> np.ndarray:
    """H x W uint8, cropped to the character; empty where the font draws nothing."""
    mask = _load_font(name).getmask(character)
    return np.array(mask, dtype=np.uint8).reshape(mask.size[::-1])


@cache
def _load_font(name: str) -> ImageFont.FreeTypeFont:
    spec = find_spec("matplotlib")
    install = "pip install matplotlib"
    if spec is None or spec.origin is None:
        raise FileNotFoundError(
            "the embedded glyphs are drawn with the fonts of the package 'matplotlib', which is "
            f"not installed; install it with: {install}"
        )
    path = Path(spec.origin).parent / "mpl-data" / "fonts" / "ttf" / f"{name}.ttf"
    if not path.is_file():
        raise FileNotFoundError(
            f"the font {path} is missing from the installed 'matplotlib'; "
            f"reinstall it with: {install} --force-reinstall --no-deps"
        )
    # The basic layout: with another one installed, the same text may be drawn otherwise.
    return ImageFont.truetype(str(path), 128, layout_engine=ImageFont.Layout.BASIC)
