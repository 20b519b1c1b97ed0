"""Draw boxes, labels, anchors, masks, and score maps, and arrange images on sheets.

Images are ``(H, W, 3)`` uint8 in RGB; boxes are ``x1, y1, x2, y2`` in pixels of the given image.
Small images are enlarged before drawing, so that text stays legible.
"""

from negvision.visualization.boxes import draw_annotations, draw_predictions
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
    save_image,
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
    "draw_annotations",
    "draw_predictions",
    "level_color",
    "save_image",
    "shown_path",
    "with_legend",
]
