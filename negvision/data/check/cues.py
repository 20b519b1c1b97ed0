"""Trivial statistics of image files that tell ID and OOD sets apart."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator

import cv2
import numpy as np
from PIL import Image, JpegImagePlugin

# How a file was written; and what it shows, by which sets may differ for a good reason.
WRITTEN = ("file type", "JPEG quantization", "JPEG chroma subsampling")
_SHOWN = ("color mode", "width", "height", "mean brightness", "mean color", "fine detail in chroma")
CUES = (*WRITTEN, *_SHOWN)
# An AUROC at least this far from 0.5, and by this many standard errors of equal distributions.
_FAR, _SURE = 0.2, 4.0
# Side of the central crop for means and detail; the rest of a large image says the same.
_CROP = 256


def image_cues(encoded: bytes, image: np.ndarray | None) -> np.ndarray:
    """The :data:`CUES` of an image, (9,) float32; NaN for what is not known.

    Args:
        encoded: The file; empty if it is not at hand.
        image: (H, W) or (H, W, 3) BGR, uint8; None if there is none.
    """
    values = dict.fromkeys(CUES, math.nan)
    if encoded:
        values |= _file_cues(encoded)
    if image is not None and image.dtype == np.uint8 and image.size:
        values |= _content_cues(image)
    return np.array([values[name] for name in CUES], np.float32)


def _file_cues(encoded: bytes) -> dict[str, float]:
    try:
        with Image.open(io.BytesIO(encoded)) as opened:
            kind, mode = str(opened.format), opened.mode
            tables = getattr(opened, "quantization", None)
            sampling = JpegImagePlugin.get_sampling(opened) if tables else -1
            width, height = opened.size
    except Exception:  # Pillow raises many kinds; the decoder that counts was another one
        return {}
    return {
        "file type": _number(kind),
        "JPEG quantization": float(np.mean(next(iter(tables.values())))) if tables else math.nan,
        "JPEG chroma subsampling": sampling if sampling >= 0 else math.nan,
        "color mode": _number(mode),
        "width": width,
        "height": height,
    }


def _number(name: str) -> float:
    """A number for a name, the same everywhere, exact in float32."""
    return float(int.from_bytes(name.encode()[:2].ljust(2), "big"))


def _content_cues(image: np.ndarray) -> dict[str, float]:
    top, left = (max((side - _CROP) // 2, 0) for side in image.shape[:2])
    crop = np.ascontiguousarray(image[top : top + _CROP, left : left + _CROP])
    if crop.ndim == 2 or crop.shape[2] != 3:
        return {"mean brightness": float(crop.mean())}
    luma, *chroma = cv2.split(cv2.cvtColor(crop, cv2.COLOR_BGR2YCrCb))
    return {
        "mean brightness": float(luma.mean()),
        "mean color": float(chroma[0].mean() - chroma[1].mean()),
        "fine detail in chroma": float(np.abs(cv2.Laplacian(chroma[1], cv2.CV_32F)).mean()),
    }


def telling_cues(known: np.ndarray, unknown: np.ndarray) -> Iterator[tuple[str, float]]:
    """The cues, (N, cues) and (M, cues), that tell an ID and an OOD set apart, and their AUROC."""
    for name, inside, outside in zip(CUES, known.T, unknown.T, strict=True):
        auroc = cue_auroc(inside, outside)
        if name in ("file type", "color mode"):
            # Without an order: the best rule asks whether a value is the one of the OOD set.
            values, counts = np.unique(outside, return_counts=True)
            usual = values[counts.argmax()] if len(values) else math.nan
            auroc = cue_auroc((inside == usual).astype(float), (outside == usual).astype(float))
        if auroc is not None:
            yield name, auroc


def cue_auroc(inside: np.ndarray, outside: np.ndarray) -> float | None:
    """AUROC by which a value tells two sets apart, in [0.5, 1]; None where it may be chance."""
    inside, outside = inside[np.isfinite(inside)], outside[np.isfinite(outside)]
    if not len(inside) or not len(outside):
        return None
    from scipy import stats  # loads slowly

    pairs = len(inside) * len(outside)
    auroc = stats.mannwhitneyu(outside, inside, method="asymptotic").statistic / pairs
    distance, error = abs(auroc - 0.5), math.sqrt((len(inside) + len(outside) + 1) / (12 * pairs))
    return 0.5 + distance if distance >= max(_FAR, _SURE * error) else None
