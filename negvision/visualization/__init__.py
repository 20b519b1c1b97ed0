"""Pictures for people: boxes, labels, anchors by level, masks, and sheets of many images.

Arrays are ``(H, W, 3)`` uint8 in RGB, boxes ``x1, y1, x2, y2`` in pixels of the image that was
handed in; small images are enlarged before anything is drawn, so that text stays legible.
"""

from negvision.visualization.canvas import Canvas
from negvision.visualization.colors import (
    BOX_COLOR,
    IGNORED_COLOR,
    UNKNOWN_COLOR,
    UNMATCHED_COLOR,
    class_color,
    level_color,
)
from negvision.visualization.sheet import (
    LegendEntry,
    contact_sheet,
    save_picture,
    shown_path,
    with_legend,
)

__all__ = [
    "BOX_COLOR",
    "IGNORED_COLOR",
    "UNKNOWN_COLOR",
    "UNMATCHED_COLOR",
    "Canvas",
    "LegendEntry",
    "class_color",
    "contact_sheet",
    "level_color",
    "save_picture",
    "shown_path",
    "with_legend",
]
