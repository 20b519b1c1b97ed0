"""Colors that color-blind readers can tell apart.

The palette is that of Okabe and Ito, "Color Universal Design" (2008), with colors that would vanish
in dark photographs lightened. It has no vermilion: red marks what needs attention.
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


def class_color(label: int) -> Color:
    """The color of a class; repeats after six, so a tag should always name the class."""
    return _PALETTE[label % len(_PALETTE)]


level_color = class_color  # of a feature level, counted from the finest


def text_color_on(background: Color) -> Color:
    """Black or white, whichever stands out from ``background``."""
    red, green, blue = background
    # Luma of ITU-R BT.601. The limit is high because thin white strokes look darker.
    return (0, 0, 0) if 0.299 * red + 0.587 * green + 0.114 * blue > 110 else (255, 255, 255)
