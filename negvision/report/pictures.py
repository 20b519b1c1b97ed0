"""The samples that a score gets most wrong, as pictures inside a page."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from negvision.data.images.packs import read_image
from negvision.errors import DatasetError
from negvision.ood.records import OODRecords, per_image_values
from negvision.report.plots import weighted_quantiles
from negvision.visualization import BOX_COLOR, UNKNOWN_COLOR, Canvas
from negvision.visualization.heat import heat_colors

# Longer side of a picture in the page, in pixels.
_SIDE = 320
# Of the part of an image that is shown around a box: in sides of the box, and at least in pixels.
_CONTEXT, _LEAST_CROP = 2.2, 64


@dataclass(frozen=True)
class Embedded:
    """A picture as a data URI, its size in pixels, and its words for who does not see it."""

    uri: str
    width: int
    height: int
    alt: str


@dataclass(frozen=True)
class WrongSample:
    """A sample with its picture.

    Attributes:
        path: Of the image, as the evaluation named it.
        facts: Short phrases below the picture.
        pictures: The picture; of pixels that and its heat map. What cannot be read is missing.
        problem: Why the picture is missing; "" where it is there.
        tag: What the sample is, and its score; "" for whole images of pixels.
    """

    path: str
    facts: Sequence[str]
    pictures: Sequence[Embedded]
    problem: str = ""
    tag: str = ""


def most_wrong(
    records: OODRecords, count: int = 12, threshold: float | None = None
) -> dict[str, list[WrongSample]]:
    """ID samples of the highest and OOD samples of the lowest own score, the worst first.

    One an image at most, since the boxes of one object would fill the list; and only such as score
    higher (lower) than some sample of the other kind.

    Args:
        records: Of boxes or images.
        count: Of each kind at most.
        threshold: Above it a sample is called unknown; None where there is none.

    Returns:
        Samples for "ID" and "OOD".
    """
    return {
        "ID": _worst_samples(records, False, count, threshold),
        "OOD": _worst_samples(records, True, count, threshold),
    }


def _worst_samples(
    records: OODRecords, is_ood: bool, count: int, threshold: float | None
) -> list[WrongSample]:
    own = next(iter(records.scores.values()))
    # Of the scores turned round for OOD, the highest are the most wrong of both kinds.
    upwards = -own if is_ood else own
    others = np.sort(upwards[records.is_ood != is_ood])
    rows = np.flatnonzero((records.is_ood == is_ood) & (upwards > others[0]))
    rows = rows[np.argsort(-upwards[rows], kind="stable")]
    _, first = np.unique(records.image[rows], return_index=True)
    samples = []
    for row in rows[np.sort(first)][:count].tolist():
        beaten = np.searchsorted(others, upwards[row], "left") / len(others)
        facts = [_standing(beaten, is_ood, records.task)]
        if records.labels is not None:
            label = int(records.labels[row])
            facts.insert(0, f"predicted: {_class_name(records.classes, label)}")
        tag = _tag(float(own[row]), is_ood, threshold)
        path = str(records.paths[records.image[row]])
        alt = f"{path}: {tag}, {'; '.join(facts)}"
        try:
            image = read_picture(path)
        except DatasetError as error:
            samples.append(WrongSample(path, facts, (), _problem(error, path), tag))
            continue
        if records.boxes is None:
            picture = Canvas(image, longest=_SIDE).picture()
        else:
            picture = _box_picture(image, records.boxes[row].tolist(), is_ood, tag)
        samples.append(WrongSample(path, facts, [embedded(picture, alt)], tag=tag))
    return samples


def _standing(beaten: float, is_ood: bool, task: str) -> str:
    """How far a sample stands on the wrong side, by rank: a score has no unit."""
    share = "less than 1 %" if beaten < 0.01 else f"{beaten:.0%}".replace("%", " %")
    if is_ood:
        return f"scores lower than {share} of the ID {task}"
    return f"scores higher than {share} of the OOD {task}"


def _tag(score: float, is_ood: bool, threshold: float | None) -> str:
    kind = "OOD" if is_ood else "ID"
    if threshold is None:
        return f"{kind}, score {score:.2f}"
    return f"{kind} called {'unknown' if score > threshold else 'known'} {score:.2f}"


def _problem(error: DatasetError, path: str) -> str:
    """Without the path, which stands below the picture."""
    return str(error).removeprefix(f"{path}: ")


def _class_name(classes: Sequence[str], label: int) -> str:
    return classes[label] if 0 <= label < len(classes) else f"class {label}"


def heat_maps(records: OODRecords, count: int = 12) -> list[WrongSample]:
    """The images that have a heat map, each beside it; those of the lowest AUROC come first.

    Args:
        records: Of pixels.
        count: Images at most.
    """
    own = next(iter(records.scores.values())).astype(np.float64)
    by_image = per_image_values(records)
    found = [
        (by_image[index].auroc if index in by_image else math.inf, index) for index in records.heat
    ]
    low, high = heat_limits(records)
    samples = []
    for auroc, index in sorted(found)[:count]:
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
        try:
            image = read_picture(path)
        except DatasetError as error:
            heat = Canvas(heat, longest=_SIDE).picture()
            samples.append(WrongSample(path, facts, [embedded(heat, alt)], _problem(error, path)))
            continue
        picture = Canvas(image, longest=_SIDE).picture()
        # At the picture's size, so that places can be compared.
        heat = np.array(Image.fromarray(heat).resize(picture.shape[1::-1]))
        pictures = [embedded(picture, path), embedded(heat, alt)]
        samples.append(WrongSample(path, facts, pictures))
    return samples


def heat_limits(records: OODRecords) -> tuple[float, float]:
    """Scores of the darkest and the brightest colour of all heat maps, which can so be compared."""
    own = next(iter(records.scores.values())).astype(np.float64)
    low, high = weighted_quantiles(own, records.weights, [0.01, 0.99]).tolist()
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def color_bar() -> Embedded:
    """The colours of heat maps from the lowest score to the highest."""
    return embedded(heat_colors(np.linspace(0, 1, 256)[None].repeat(8, 0), 0, 1), "")


def _box_picture(image: np.ndarray, box: Sequence[float], is_ood: bool, tag: str) -> np.ndarray:
    """The part of ``image`` around ``box``, with the box on it as the score sees it."""
    height, width = image.shape[:2]
    x1, y1, x2, y2 = box
    side = max(_CONTEXT * max(x2 - x1, y2 - y1), _LEAST_CROP)
    left, right = _window((x1 + x2) / 2, side, width)
    top, bottom = _window((y1 + y2) / 2, side, height)
    canvas = Canvas(image[top:bottom, left:right], longest=_SIDE, text_size=17)
    # As in the pictures of tools/test.py: dashed is unknown. Here that is what is ID.
    color = BOX_COLOR if is_ood else UNKNOWN_COLOR
    inside = (x1 - left, y1 - top, x2 - left, y2 - top)
    canvas.box(inside, color, width=3, dashed=not is_ood, tag=tag)
    return canvas.picture()


def _window(centre: float, side: float, size: int) -> tuple[int, int]:
    """Begin and end of ``side`` pixels around ``centre``, moved inside of ``size``."""
    length = min(max(round(side), 1), size)
    begin = min(max(round(centre - length / 2), 0), size - length)
    return begin, begin + length


def read_picture(path: str) -> np.ndarray:
    """An image as the evaluation names it, ``(H, W, 3)`` uint8, RGB.

    Raises:
        DatasetError: It is missing or damaged.
    """
    return np.ascontiguousarray(read_image(path)[..., ::-1])


def embedded(picture: np.ndarray, alt: str) -> Embedded:
    """A picture, ``(H, W, 3)`` uint8, RGB, as JPEG inside of the page."""
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "JPEG", quality=85)
    data = base64.b64encode(buffer.getvalue()).decode()
    height, width = picture.shape[:2]
    return Embedded(f"data:image/jpeg;base64,{data}", width, height, alt)
