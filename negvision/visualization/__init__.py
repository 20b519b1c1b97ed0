"""Draw boxes, labels, anchors, masks, and score maps, and arrange images on sheets.

Images are ``(H, W, 3)`` uint8 in RGB; boxes are ``x1, y1, x2, y2`` in pixels of the given image.
Small images are enlarged before drawing, so that text stays legible.
"""

from negvision.visualization.boxes import draw_annotations as draw_annotations
from negvision.visualization.boxes import draw_predictions as draw_predictions
from negvision.visualization.canvas import Canvas as Canvas
from negvision.visualization.colors import BOX_COLOR as BOX_COLOR
from negvision.visualization.colors import IGNORED_COLOR as IGNORED_COLOR
from negvision.visualization.colors import UNKNOWN_COLOR as UNKNOWN_COLOR
from negvision.visualization.colors import UNMATCHED_COLOR as UNMATCHED_COLOR
from negvision.visualization.colors import class_color as class_color
from negvision.visualization.colors import level_color as level_color
from negvision.visualization.sheet import LegendEntry as LegendEntry
from negvision.visualization.sheet import contact_sheet as contact_sheet
from negvision.visualization.sheet import save_image as save_image
from negvision.visualization.sheet import shown_path as shown_path
from negvision.visualization.sheet import with_legend as with_legend
