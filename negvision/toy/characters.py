# ruff: noqa: RUF001  (which Latin letters the others could be mistaken for is the point here)
"""Images of characters of many scripts, drawn with the fonts in matplotlib.

A character is an identity; the fonts (sans, serif, monospaced; bold, oblique) play the part that
pose and age play for faces.
"""

from functools import cache

import cv2
import numpy as np
from PIL import ImageFont

from negvision.toy.photos import (
    SPLITS,
    contrasting_color,
    find_package_file,
    random_crop,
    uneven_light,
)

# No two look alike in any font, even blurred: O looks like a zero and Я like a mirrored R, so only
# the zero and Я are here. Characters that are small, narrow, or differ only by an accent are left
# out.
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
# Share of each script; the rest is for training.
_SHARES = {"val": 0.08, "test": 0.19}

_FAMILIES = {
    "DejaVuSans": ("", "-Bold", "-Oblique", "-BoldOblique"),
    "DejaVuSerif": ("", "-Bold", "-Italic", "-BoldItalic"),
    "DejaVuSansMono": ("", "-Bold", "-Oblique", "-BoldOblique"),
    "STIXGeneral": ("", "Bol", "Italic", "BolIta"),
}
FONTS = tuple(family + style for family, styles in _FAMILIES.items() for style in styles)
# Computer Modern has other characters at the code points of most signs.
ALPHANUMERIC_FONTS = ("cmr10", "cmb10", "cmss10", "cmti10", "cmtt10")

SIDE = 96
_INNER = 80
# A font is left out if its drawing correlates less than this with that of the first font: cursive
# forms of some characters have other shapes.
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
        FileNotFoundError: A font is missing from the installed matplotlib.
        ValueError: No font has the character.
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
    """A drawing made small and blurred.

    Args:
        ink: Shape (96, 96).

    Returns:
        Shape (1024,), of mean 0 and length 1, so that dot products are correlations.
    """
    small = cv2.resize(ink, (32, 32), interpolation=cv2.INTER_AREA)
    small = cv2.GaussianBlur(small, (0, 0), 0.9).ravel()
    small = small - small.mean()
    return small / np.linalg.norm(small)


def _draw(name: str, character: str) -> np.ndarray | None:
    mask = _mask(name, character)
    if mask.size == 0 or not mask.any() or np.array_equal(mask, _mask(name, "\uffff")):
        return None  # the font draws its placeholder for missing characters
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
    path = find_package_file("matplotlib", f"mpl-data/fonts/ttf/{name}.ttf")
    # The basic layout: another engine, if installed, may draw the same text differently.
    return ImageFont.truetype(str(path), 128, layout_engine=ImageFont.Layout.BASIC)


def compose_character(
    rng: np.random.Generator, split: str, character: str, side: int
) -> np.ndarray:
    """Paint one image: a character in some font, from some side, on a piece of a photograph.

    Args:
        rng: The only source of randomness.
        split: The photographs to use.
        character: What to draw.
        side: Height and width in pixels.

    Returns:
        side x side x 3 uint8 BGR.
    """
    fonts = drawings(character)
    alpha = _look(rng, fonts[rng.integers(len(fonts))], side)
    image = random_crop(rng, split, side, side)
    color = contrasting_color(rng, image)
    image += rng.uniform(0.8, 1.0) * alpha[..., None] * (color - image)
    image = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.3, 0.8))
    image = image + rng.uniform(0, 8) * rng.standard_normal(image.shape, dtype=np.float32)
    return uneven_light(rng, image)


def _look(rng: np.random.Generator, ink: np.ndarray, side: int) -> np.ndarray:
    """Rotate, shear, stretch and tilt the strokes, and change their width: side x side, 0..1."""
    # Rotated by at most 20 degrees: far beyond that, a < looks like a caret.
    angle = np.deg2rad(np.clip(rng.normal(0, 8), -20, 20))
    stretch, shear = np.exp(rng.normal(0, 0.1)), rng.normal(0, 0.1)
    cos, sin = np.cos(angle), np.sin(angle)
    linear = np.array([[cos, -sin], [sin, cos]]) @ np.array([[stretch, shear], [0, 1 / stretch]])
    corners = np.array([[0, 0], [SIDE, 0], [SIDE, SIDE], [0, SIDE]]) - SIDE / 2
    seen = corners @ linear.T
    size = rng.uniform(0.8, 0.98) * side
    seen *= size / np.ptp(seen, axis=0).max()
    seen += rng.normal(0, 0.02 * size, size=(4, 2))  # tilted out of the plane
    # Nearly in the middle: face recognizers get aligned faces, too.
    seen += side / 2 + rng.uniform(-0.05, 0.05, size=2) * side
    warp = cv2.getPerspectiveTransform(
        (corners + SIDE / 2).astype(np.float32), seen.astype(np.float32)
    )
    # Cutting soft strokes at another level makes them thinner or thicker. The blur also keeps the
    # reducing warp from skipping samples.
    soft = cv2.GaussianBlur(ink, (0, 0), max(1.2, 0.35 * SIDE / size))
    gray = cv2.warpPerspective(soft, warp, (side, side), flags=cv2.INTER_LINEAR)
    edge = rng.uniform(0.2, 0.5)
    return np.clip((gray - edge) * 3 + 0.5, 0, 1)
