"""Convert detections for the ``supervision`` package: its zones, counters, annotators, sinks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from negvision.errors import UserError
from negvision.inference.runtime import Detections

if TYPE_CHECKING:
    import supervision


def to_supervision(found: Detections, classes: Sequence[str] = ()) -> supervision.Detections:
    """The same boxes as ``supervision.Detections``.

    Args:
        found: Boxes of one image.
        classes: Names of the classes, for ``data["class_name"]``, which annotators write.

    Returns:
        ``xyxy``, ``mask``, ``confidence`` and ``class_id``; ``data`` has ``class_name``,
        ``ood_score`` and ``unknown`` as far as they are available.

    Raises:
        UserError: supervision is not installed.
        TypeError: ``found`` are not boxes.

    With an :class:`~negvision.inference.inferencer.Inferencer`::

        [found] = model.predict(["street.jpg"])
        boxes = to_supervision(found, model.classes)
        cars = boxes[boxes.data["class_name"] == "car"]
    """
    try:
        from supervision import Detections as Theirs
    except ImportError as error:
        raise UserError(
            f"{error.name or 'supervision'} is not installed: pip install supervision"
        ) from None
    if not isinstance(found, Detections):
        raise TypeError(f"supervision takes boxes; got {type(found).__name__}")
    names = np.array(classes, str)[found.labels] if len(classes) else None
    data = {"class_name": names, "ood_score": found.ood_scores, "unknown": found.unknown}
    return Theirs(
        xyxy=found.boxes,
        mask=found.masks,
        confidence=found.scores,
        class_id=found.labels.astype(int),
        data={name: values for name, values in data.items() if values is not None},
    )
