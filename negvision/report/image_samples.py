"""Images embedded in a page, and the samples that an OOD score gets most wrong."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Callable, Sequence

import numpy as np
from PIL import Image

from negvision.data.images.packs import read_image
from negvision.errors import DatasetError
from negvision.ood.records import OODRecords, per_image_values
from negvision.report.page_parts import EmbeddedImage, ImageSample
from negvision.report.plots import weighted_quantiles
from negvision.visualization import BOX_COLOR, UNKNOWN_COLOR, Canvas
from negvision.visualization.heat import heat_colors

# Longer side of an image in the page, in pixels.
_SIDE = 320
# Side of the crop around a box: a multiple of the box, and at least this many pixels.
_CONTEXT, _SMALLEST_CROP = 2.2, 64


def embedded(image: np.ndarray, alt: str) -> EmbeddedImage:
    """An image, ``(H, W, 3)`` uint8, RGB, as a JPEG data URI."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=85)
    data = base64.b64encode(buffer.getvalue()).decode()
    height, width = image.shape[:2]
    return EmbeddedImage(f"data:image/jpeg;base64,{data}", width, height, alt)


def read_rgb(
    path: str, read: Callable[[str], np.ndarray] | None = None
) -> tuple[np.ndarray | None, str]:
    """An image file, ``(H, W, 3)`` uint8, RGB, and ""; or None and what is wrong with it.

    Args:
        path: As :func:`negvision.data.images.packs.read_image` takes it.
        read: Of :func:`negvision.data.images.loading.reader_of`, for the data set of the image.
    """
    try:
        return read(path) if read else np.ascontiguousarray(read_image(path)[..., ::-1]), ""
    except DatasetError as error:
        # The caption already shows the path.
        return None, str(error).removeprefix(f"{path}: ")


def most_wrong(
    records: OODRecords, count: int = 12, threshold: float | None = None
) -> dict[str, list[ImageSample]]:
    """ID samples with the highest and OOD samples with the lowest own score, the worst first.

    Lists at most ``count`` of each kind and one per image, since the boxes of one object would fill
    the list, and only samples that score higher (lower) than some sample of the other kind.

    Args:
        records: Of boxes or images.
        threshold: Samples above it are called unknown; None if there is none.
    """
    return {
        kind: _worst_samples(records, kind == "OOD", count, threshold) for kind in ("ID", "OOD")
    }


def _worst_samples(
    records: OODRecords, is_ood: bool, count: int, threshold: float | None
) -> list[ImageSample]:
    own = next(iter(records.scores.values()))
    # With the sign flipped for OOD, the highest are the most wrong of both kinds.
    wrongness = -own if is_ood else own
    others = np.sort(wrongness[records.is_ood != is_ood])
    rows = np.flatnonzero((records.is_ood == is_ood) & (wrongness > others[0]))
    rows = rows[np.argsort(-wrongness[rows], kind="stable")]
    _, first = np.unique(records.image[rows], return_index=True)
    samples = []
    for row in rows[np.sort(first)][:count].tolist():
        beaten = np.searchsorted(others, wrongness[row], "left") / len(others)
        # A rank, since scores have no unit.
        share = "less than 1 %" if beaten < 0.01 else f"{100 * beaten:.0f} %"
        words = ("lower", "ID") if is_ood else ("higher", "OOD")
        facts = [f"scores {words[0]} than {share} of the {words[1]} {records.task}"]
        if records.labels is not None:
            label = int(records.labels[row])
            known = 0 <= label < len(records.classes)
            facts.insert(0, f"predicted: {records.classes[label] if known else f'class {label}'}")
        tag = _tag(float(own[row]), is_ood, threshold)
        path = str(records.paths[records.image[row]])
        image, problem = read_rgb(path)
        images = []
        if image is not None:
            if records.boxes is None:
                image = Canvas(image, longest=_SIDE).image()
            else:
                image = _draw_box(image, records.boxes[row].tolist(), is_ood, tag)
            images = [embedded(image, f"{path}: {tag}, {'; '.join(facts)}")]
        samples.append(ImageSample(path, facts, images, problem, tag))
    return samples


def _tag(score: float, is_ood: bool, threshold: float | None) -> str:
    kind = "OOD" if is_ood else "ID"
    if threshold is None:
        return f"{kind}, score {score:.2f}"
    return f"{kind} called {'unknown' if score > threshold else 'known'} {score:.2f}"


def heat_maps(records: OODRecords, count: int = 12) -> list[ImageSample]:
    """At most ``count`` images beside their heat maps, those with the lowest AUROC first."""
    own = next(iter(records.scores.values())).astype(np.float64)
    by_image = per_image_values(records)
    rated = [(by_image[k].auroc if k in by_image else math.inf, k) for k in records.heat]
    low, high = heat_limits(records)
    samples = []
    for auroc, index in sorted(rated)[:count]:
        path = str(records.paths[index])
        facts = [] if math.isinf(auroc) else [f"AUROC {auroc:.4f}"]
        for kind, chosen in (("ID", ~records.is_ood), ("OOD", records.is_ood)):
            rows = np.flatnonzero(chosen & (records.image == index))
            if len(rows):
                weights = None if records.weights is None else records.weights[rows]
                [median] = weighted_quantiles(own[rows], weights, [0.5])
                facts.append(f"median score of {kind} {median:.2f}")
        heat = heat_colors(records.heat[index], low, high)
        alt = f"{path}: map of the score, {'; '.join(facts)}"
        image, problem = read_rgb(path)
        if image is None:
            images = [embedded(Canvas(heat, longest=_SIDE).image(), alt)]
        else:
            image = Canvas(image, longest=_SIDE).image()
            # At the size of the image, so that places can be compared.
            heat = np.array(Image.fromarray(heat).resize(image.shape[1::-1]))
            images = [embedded(image, path), embedded(heat, alt)]
        samples.append(ImageSample(path, facts, images, problem))
    return samples


def heat_limits(records: OODRecords) -> tuple[float, float]:
    """Scores of the darkest and brightest color, shared by all heat maps."""
    own = next(iter(records.scores.values())).astype(np.float64)
    low, high = weighted_quantiles(own, records.weights, [0.01, 0.99]).tolist()
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def _draw_box(image: np.ndarray, box: Sequence[float], is_ood: bool, tag: str) -> np.ndarray:
    """A crop of ``image`` around ``box``, with the box drawn as the score judges it."""
    height, width = image.shape[:2]
    x1, y1, x2, y2 = box
    side = max(_CONTEXT * max(x2 - x1, y2 - y1), _SMALLEST_CROP)
    left, right = window((x1 + x2) / 2, side, width)
    top, bottom = window((y1 + y2) / 2, side, height)
    canvas = Canvas(image[top:bottom, left:right], longest=_SIDE, text_size=17)
    # Dashed means unknown, as everywhere. Here these are the ID boxes.
    color = BOX_COLOR if is_ood else UNKNOWN_COLOR
    inside = (x1 - left, y1 - top, x2 - left, y2 - top)
    canvas.box(inside, color, width=3, dashed=not is_ood, tag=tag)
    return canvas.image()


def window(center: float, side: float, size: int) -> tuple[int, int]:
    """Start and end of ``side`` pixels around ``center``, shifted into ``[0, size]``."""
    length = min(max(round(side), 1), size)
    start = min(max(round(center - length / 2), 0), size - length)
    return start, start + length
