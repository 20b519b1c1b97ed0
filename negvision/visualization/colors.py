"""Colours that stay apart for colour-blind readers too.

The palette is that of Okabe and Ito, "Color Universal Design" (2008), lightened where a colour
would drown in a dark photograph. Its vermilion is left out: red marks what needs attention.
"""

Color = tuple[int, int, int]

BOX_COLOR: Color = (255, 255, 255)
IGNORED_COLOR: Color = (190, 190, 190)
UNMATCHED_COLOR: Color = (255, 30, 30)
# Stands out from the palette and from the "inferno" color map of OOD maps.
UNKNOWN_COLOR: Color = (60, 255, 120)

_PALETTE: tuple[Color, ...] = (
    (86, 180, 233),  # sky blue
    (240, 228, 66),  # yellow
    (0, 190, 140),  # bluish green
    (230, 140, 0),  # orange
    (225, 130, 190),  # reddish purple
    (60, 110, 225),  # blue
)


def level_color(level: int) -> Color:
    """The colour of a feature level, counted from the finest; repeats after six."""
    return _PALETTE[level % len(_PALETTE)]


def class_color(label: int) -> Color:
    """The colour of a class; repeats after six, so a tag should always name the class."""
    return _PALETTE[label % len(_PALETTE)]


def text_color_on(background: Color) -> Color:
    """Black or white, whichever stands out from ``background``."""
    red, green, blue = background
    # Luma of ITU-R BT.601; the limit is above the middle since thin white strokes look darker.
    return (0, 0, 0) if 0.299 * red + 0.587 * green + 0.114 * blue > 110 else (255, 255, 255)
