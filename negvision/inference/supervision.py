"""Convert results for the ``supervision`` package: its zones, counters, annotators, sinks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from negvision.errors import UserError
from negvision.inference.runtime import Classification, Detections

if TYPE_CHECKING:
    import supervision


def to_supervision(
    found: Detections | Classification, classes: Sequence[str] = ()
) -> supervision.Detections | supervision.Classifications:
    """The same boxes as ``supervision.Detections``, or classes as ``Classifications``.

    Args:
        found: Boxes or classes of one image.
        classes: Names of the classes, for ``data["class_name"]``, which annotators write.

    Returns:
        ``xyxy``, ``mask``, ``confidence`` and ``class_id``; ``data`` has ``class_name``,
        ``ood_score`` and ``unknown`` as far as they are available. Of a classifier ``class_id`` and
        ``confidence`` of all classes.

    Raises:
        UserError: supervision is not installed.
        TypeError: ``found`` is neither.

    With an :class:`~negvision.inference.inferencer.Inferencer`::

        [found] = model.predict(["street.jpg"])
        boxes = to_supervision(found, model.classes)
        cars = boxes[boxes.data["class_name"] == "car"]
    """
    try:
        import supervision
    except ImportError as error:
        raise UserError(
            f"{error.name or 'supervision'} is not installed: pip install supervision"
        ) from None
    if isinstance(found, Classification):
        labels = np.arange(len(found.probabilities))
        return supervision.Classifications(class_id=labels, confidence=found.probabilities)
    if not isinstance(found, Detections):
        raise TypeError(f"supervision takes boxes and classes; got {type(found).__name__}")
    names = np.array(classes, str)[found.labels] if len(classes) else None
    data = {"class_name": names, "ood_score": found.ood_scores, "unknown": found.unknown}
    return supervision.Detections(
        xyxy=found.boxes,
        mask=found.masks,
        confidence=found.scores,
        class_id=found.labels.astype(int),
        data={name: values for name, values in data.items() if values is not None},
    )
