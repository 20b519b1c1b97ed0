"""Masks in the run lengths of COCO results."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np


def to_run_lengths(masks: np.ndarray) -> list[dict[str, Any]]:
    """Masks (N, H, W) bool as ``segmentation`` entries: ``size`` and compressed ``counts``.

    Example:
        >>> found = to_run_lengths(np.eye(3, dtype=bool)[None])
        >>> found[0]["size"], bool((from_run_lengths(found)[0] == np.eye(3)).all())
        ([3, 3], True)
    """
    from pycocotools import mask

    columns = [np.asfortranarray(one, np.uint8) for one in masks]
    return [
        {"size": list(found["size"]), "counts": found["counts"].decode()}
        for found in map(mask.encode, columns)
    ]


def from_run_lengths(segmentations: Sequence[dict[str, Any]]) -> list[np.ndarray]:
    """The masks, (H, W) bool each, that :func:`to_run_lengths` encoded."""
    from pycocotools import mask

    return [mask.decode(segmentation).astype(bool) for segmentation in segmentations]
