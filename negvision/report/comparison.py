"""Detectors compared on the same images: paired intervals, and where their results differ most."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.hooks import Hook

from negvision.bootstrap import Difference, Side, bootstrap, holm, paired_difference
from negvision.data.formats.coco_file import find_classes
from negvision.data.formats.coco_masks import to_run_lengths
from negvision.data.images.loading import reader_of
from negvision.data.reliability import reliability
from negvision.detection.metrics.coco_annotations import load_coco_annotations
from negvision.detection.metrics.coco_evaluation import CocoDetections, metric_names
from negvision.detection.metrics.coco_metric import units_of
from negvision.detection.metrics.coco_statistics import CocoStatistics
from negvision.detection.metrics.error_kinds import KINDS, error_kinds
from negvision.detection.metrics.froc import FROC
from negvision.detection.metrics.groups import FIGURES, GroupFigures, Groups, trade
from negvision.errors import ConfigError, DatasetError, Problems, UserError
from negvision.report.image_samples import embedded, read_rgb
from negvision.report.page_parts import Gallery, ImageSample, MetricRow, MetricTable, Section
from negvision.report.rendering import change, rendered
from negvision.visualization.boxes import draw_predictions

_SHOWN, _LONGEST = 12, 360
# Detections below it are not drawn and no errors of an image.
_SCORE = 0.3
_LEVEL = 0.05
_ECE = "calibration error (ECE)"
_RECALL = 0.8
_FPPI = f"false positives at recall {_RECALL}"
_COLUMNS = ("first", "second", "difference", "from", "to", "P(second better)")
_GROUPS = (
    "AUROC and AUPRC: of the scores of detections, those on an object of their class (IoU 0.5) "
    "against the others. Gap: of the highest and the lowest group."
)
# Figures beside AP and AR, and what they are.
_OTHERS = {
    **KINDS,
    _ECE: "mean gap of score and precision",
    _FPPI: "per image without an object",
}


@dataclass(frozen=True)
class Contender:
    """One side of a comparison: the detections of each training of a recipe."""

    name: str
    trainings: Sequence[CocoDetections]


class PredictionsHook(Hook):
    """Keeps what a test predicts, by image, with masks if asked for.

    Attributes:
        images: Image id to what :meth:`CocoDetections.of_images` takes.
        paths: Image id to its file.
        classes: Names, by label.
        read: Reads an image of the data set.
    """

    priority = "LOW"

    def __init__(self, masks: bool) -> None:
        self.masks = masks
        self.images: dict[Any, dict[str, Any]] = {}
        self.paths: dict[Any, str] = {}
        self.classes: Sequence[str] = ()
        self.read: Any = None

    def before_test_epoch(self, runner) -> None:
        meta = runner.test_evaluator.metrics[0].dataset_meta or {}
        self.classes = meta.get("classes", ())
        self.read = reader_of(runner.test_dataloader.dataset)

    def after_test_iter(self, runner, batch_idx, data_batch=None, outputs=()) -> None:
        for sample in outputs or ():
            if "pred_instances" not in sample:
                raise ConfigError(
                    "negvision compare compares detectors, and this model predicts "
                    f"{', '.join(sorted(sample.keys()))}"
                )
            found = sample.pred_instances
            kept = {
                name: found[name].cpu().numpy().astype(np.float64)
                for name in ("bboxes", "scores", "labels")
            }
            if self.masks:
                if "masks" not in found:
                    raise ConfigError("--metric segm needs masks, and this model predicts none")
                kept["masks"] = to_run_lengths(found.masks.cpu().numpy())
            self.images[sample.img_id] = {"image_id": sample.img_id, **kept}
            self.paths[sample.img_id] = str(sample.get("img_path", ""))


def read_results(
    path: str | Path, truth: Mapping[str, Any], category_ids: Sequence[int], masks: bool = False
) -> CocoDetections:
    """COCO's results from a file, such as ``negvision test --out`` writes.

    Raises:
        UserError: There is no such file.
        DatasetError: It does not hold results of the images and categories of the ground truth.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path}: there is no such file of results")
    try:
        results = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DatasetError(f"{path}: is not JSON ({error})") from None
    if not isinstance(results, list):
        raise DatasetError(
            f"{path}: results are a list of image_id, category_id, bbox and score, as negvision "
            f"test --out writes them; this file holds a {type(results).__name__}"
            + (", of annotations" * (isinstance(results, dict) and "images" in results))
        )
    known = {image["id"] for image in truth["images"]}
    problems, needed = Problems(), ["image_id", "category_id", "bbox", "score"]
    needed += ["segmentation"] if masks else []
    for place, one in enumerate(results):
        where = f"entry {place}"
        missing = [name for name in needed if not isinstance(one, dict) or name not in one]
        if missing:
            problems.add("missing value", where, f"no {' and no '.join(missing)}")
        elif one["image_id"] not in known:
            problems.add("image that is not in the annotation file", where, one["image_id"])
        elif one["category_id"] not in category_ids:
            problems.add("category that is not in the annotation file", where, one["category_id"])
        elif not np.isfinite(_numbers(one)).all():
            problems.add("box or score that is no number", where, f"{one['bbox']} {one['score']}")
    if problems:
        raise DatasetError(
            f"{path}: these are not results for the annotation file:\n{problems.report()}\n"
            "Name the file that the detector was tested on with --ann-file"
        )
    return CocoDetections.of_results([{name: one[name] for name in needed} for one in results])


def _numbers(one: Mapping[str, Any]) -> np.ndarray:
    try:
        numbers = np.array([*one["bbox"], one["score"]], dtype=np.float64)
    except (TypeError, ValueError):
        return np.array([np.nan])
    return numbers if len(numbers) == 5 else np.array([np.nan])


@dataclass(frozen=True)
class Comparison:
    """Contenders on one annotation file; the others are compared with the first.

    Attributes:
        names: The figures: those of :func:`.coco_evaluation.metric_names`, then AP by class.
        figures: How many of them are no classes.
        differences: For each contender but the first.
        statistics: Of the first training of each contender.
        errors: AP50 lost by kind of error, ECE, and false positives at recall 0.8, for each
            contender the mean of its trainings.
        drawn: What was drawn anew: "images", or "values of ...".
        units: How many there are.
        groups: Of images or sizes; None if they are not told apart.
        of_groups: For each contender but the first, the figures of the groups.
    """

    contenders: Sequence[Contender]
    ground_truth: Mapping[str, Any]
    classes: Sequence[str]
    category_ids: Sequence[int]
    names: Sequence[str]
    figures: int
    differences: Sequence[Difference]
    statistics: Sequence[CocoStatistics]
    errors: Sequence[Mapping[str, float]]
    drawn: str
    units: int
    resamples: int
    groups: Groups | None = None
    of_groups: Sequence[Difference] = ()

    @classmethod
    def of(
        cls,
        contenders: Sequence[Contender],
        ground_truth: Mapping[str, Any],
        ann_file: str,
        classes: Sequence[str] | None = None,
        iou_type: str = "bbox",
        resamples: int = 1000,
        group_by: str | None = None,
        groups: str | None = None,
        **options: Any,
    ) -> Comparison:
        """Compare.

        Args:
            contenders: At least two.
            ground_truth: From :func:`.coco_annotations.load_coco_annotations`.
            ann_file: Named in errors.
            classes: Names of the categories to compare; None takes all of the file.
            iou_type, options: As in :func:`.coco_evaluation.evaluate_coco`.
            resamples: Of the images; the same for all contenders.
            group_by: As in :class:`negvision.CocoMetric`.
            groups: Key of :class:`.Groups`.

        Raises:
            UserError: There are fewer than two images, or values of ``group_by``.
            ConfigError: An image has no ``group_by``, or ``groups`` are none.
        """
        names, ids = find_classes(ann_file, ground_truth, classes)
        units = units_of(ground_truth["images"], group_by, ann_file)
        drawn = "images" if group_by is None else f"values of {group_by}"
        count = len(np.unique(units))
        if count < 2:
            raise UserError(
                f"{ann_file}: has {count} {drawn}, and a comparison draws them anew, so that it "
                "needs at least 2, and many more to show anything"
            )
        known = None
        if groups is not None:
            limits = {key: options[key] for key in ("area_limits",) if key in options}
            known = Groups.of(ground_truth, ids, groups, ann_file, **limits)
        sides, first, errors, grouped = [], [], [], []
        for contender in contenders:
            trainings, costs, parts = [], [], []
            for number, detections in enumerate(contender.trainings):
                kinds = error_kinds(ground_truth, detections, ids, iou_type, **options)
                calibration = reliability(kinds.scores, kinds.hits).error
                rate = FROC.of(kinds).figures(np.ones((1, len(units))), [_RECALL], [])[0, 0]
                costs.append({**kinds.mean_costs(), _ECE: calibration, _FPPI: rate})
                statistics = CocoStatistics(ground_truth, detections, ids, iou_type, **options)
                if not number:
                    first.append(statistics)
                values = statistics.figures(np.ones((1, len(units))))[0]
                trainings.append((values, bootstrap(statistics.figures, units, resamples)))
                if known is not None:
                    inputs = (ground_truth, detections, ids)
                    own = GroupFigures(known, statistics, *inputs, iou_type=iou_type, **options)
                    values = own.figures(np.ones((1, len(units))))[0]
                    parts.append((values, bootstrap(own.figures, units, resamples)))
            sides.append(Side.of(trainings))
            grouped += [Side.of(parts)] if parts else []
            errors.append({name: float(np.mean([one[name] for one in costs])) for name in _OTHERS})
        of_id = dict(zip(ids, names, strict=True))
        figures = metric_names(first[0].max_dets)
        return cls(
            contenders,
            ground_truth,
            [of_id[one] for one in first[0].category_ids],
            first[0].category_ids,
            [*figures, *(of_id[one] for one in first[0].category_ids)],
            len(figures),
            [paired_difference(sides[0], side, count) for side in sides[1:]],
            first,
            errors,
            drawn,
            count,
            resamples,
            known,
            [paired_difference(grouped[0], side, count) for side in grouped[1:]],
        )

    def verdicts(self) -> list[str]:
        """A sentence about AP for each comparison, then of classes and groups that differ."""
        lines = []
        for place, (contender, found) in enumerate(
            zip(self.contenders[1:], self.differences, strict=True)
        ):
            first, second = self.contenders[0].name, contender.name
            lines.append(self._verdict(first, second, found))
            corrected = holm(found.p_value[self.figures :])
            certain = np.flatnonzero(corrected < _LEVEL)
            if len(certain):
                shown = ", ".join(
                    f"{self.classes[one]} {change(float(found.difference[self.figures + one]))}"
                    for one in certain
                )
                lines.append(f"Classes whose AP differs, corrected for their number: {shown}.")
            by_class = found.difference[self.figures :]
            notes = [trade(self.classes, self._objects(), by_class, corrected)]
            if self.groups is not None:
                own = self.of_groups[place]
                p_values = holm(own.p_value[len(FIGURES) :: len(FIGURES)])
                by_group = own.difference[len(FIGURES) :: len(FIGURES)]
                names = [f"{self.groups.key} {name}" for name in self.groups.names]
                notes.append(trade(names, self.groups.objects, by_group, p_values))
            lines += [f"{second} against {first}, AP: {note}" for note in notes if note]
        if any(len(contender.trainings) == 1 for contender in self.contenders):
            lines.append(
                "A side with one training says nothing about its recipe: another seed may differ "
                "by more. Join the trainings of a recipe by commas."
            )
        return lines

    def _objects(self) -> np.ndarray:
        """The number of objects of each class."""
        counts = Counter(
            one["category_id"] for one in self.ground_truth["annotations"] if not one["iscrowd"]
        )
        return np.array([counts[one] for one in self.category_ids])

    def _group_rows(self) -> list[tuple[str, list[tuple[str, int]]]]:
        """For each figure of the groups its rows: a name, and the place among the figures."""
        if self.groups is None:
            return []
        step = len(FIGURES)
        return [
            (
                f"{figure} by {self.groups.key}",
                [
                    *(
                        (f"{name} ({count:,})", step * (1 + group) + place)
                        for group, (name, count) in enumerate(
                            zip(self.groups.names, self.groups.objects.tolist(), strict=True)
                        )
                    ),
                    ("gap", place),
                ],
            )
            for place, figure in enumerate(FIGURES)
        ]

    def _verdict(self, first: str, second: str, found: Difference) -> str:
        difference, p_value = float(found.difference[0]), found.p_value[0]
        if np.isnan(difference):
            return f"{second} against {first}: there are no objects, so there is no AP."
        span = f"{change(difference)}, 95 % interval {_span(found, 0)}"
        if p_value < _LEVEL:
            better = second if difference > 0 else first
            return f"{better} is better: AP of {second} against {first} {span}."
        needed = found.units_needed[0]
        if difference == 0:
            more = "there is none at all"
        elif np.isinf(needed):
            more = "more images would not show it, more trainings might"
        else:
            more = f"about {_rounded(needed):,} would show one of this size"
        return (
            f"{second} against {first}: no difference in AP that {self.units:,} {self.drawn} "
            f"could show ({span}); {more}."
        )

    def text(self) -> str:
        """Tables for a console, without a trailing newline."""
        lines = []
        for contender, found in zip(self.contenders[1:], self.differences, strict=True):
            pair = (self.contenders[0], contender)
            letters = ("A", chr(ord("A") + self.contenders.index(contender)))
            for letter, one in zip(letters, pair, strict=True):
                number = len(one.trainings)
                lines.append(f"{letter}  {one.name}" + (f", {number} trainings" * (number > 1)))
            lines.append(f"{self.units:,} {self.drawn}, {self.resamples:,} resamples")
            width = max(len("figure"), *map(len, self.names))
            tail = f"{letters[1]} - {letters[0]}", "95 % interval", f"P({letters[1]} better)"
            head = f"{letters[0]:>8}{letters[1]:>8}{tail[0]:>9}{tail[1]:>20}{tail[2]:>14}"
            lines.append(f"\n{'figure':<{width}}{head}")
            corrected = holm(found.p_value[self.figures :])
            for place, name in enumerate(self.names):
                if place == self.figures:
                    lines.append(f"\n{'class':<{width}}{head}{'p, Holm':>9}")
                row = _cells(found, place)
                if place >= self.figures:
                    row += f"{corrected[place - self.figures]:>9.3f}"
                lines.append(f"{name:<{width}}" + row.replace("nan", "  -"))
            for title, members in self._group_rows():
                own = self.of_groups[self.contenders.index(contender) - 1]
                wide = max(width, len(title), *(len(name) for name, _ in members))
                lines.append(f"\n{title:<{wide}}{head}")
                for name, place in members:
                    lines.append(f"{name:<{wide}}{_cells(own, place)}".replace("nan", "  -"))
            title = "AP50 lost by kind of error"
            lines.append(f"\n{title:<{len(_FPPI) + 1}}{letters[0]:>8}{letters[1]:>8}")
            lost = (self.errors[0], self.errors[self.contenders.index(contender)])
            for name in _OTHERS:
                cells = "".join(f"{one[name]:>8.3f}" for one in lost)
                lines.append(f"{name:<{len(_FPPI) + 1}}{cells.replace('nan', '  -')}")
            lines.append("")
        return "\n".join([*lines, *self.verdicts()])

    def page(self, paths: Mapping[Any, str], read: Any = None, source: str = "") -> str:
        """A self-contained HTML page.

        Args:
            paths: The file of each image id; others are not shown.
            read: As in :func:`negvision.report.image_samples.read_rgb`.
            source: The annotation file, as shown.
        """
        sections = []
        for number, (contender, found) in enumerate(
            zip(self.contenders[1:], self.differences, strict=True), start=1
        ):
            title = f"{contender.name} against {self.contenders[0].name}"
            rows = []
            for name, meaning in _OTHERS.items():
                lost = [self.errors[0][name], self.errors[number][name]]
                rows.append(MetricRow(name, [*lost, lost[1] - lost[0]], meaning, "lower"))
            columns = ("first", "second", "difference")
            errors = MetricTable("AP50 lost by kind of error; other figures", "kind", columns, rows)
            tables = [*self._tables(found), *self._group_tables(number), errors]
            parts = [*tables, self._gallery(number, paths, read)]
            sections.append(Section(f"pair-{number}", title, parts))
        return rendered(
            "comparison_page.html",
            title=" against ".join(one.name for one in self.contenders[::-1]),
            command="compare",
            source=source,
            anchors={section.anchor: section.title for section in sections},
            verdicts=self.verdicts(),
            sections=sections,
        )

    def _tables(self, found: Difference) -> list[MetricTable]:
        rows = [_numbers_of(found, place) for place in range(len(self.names))]
        corrected = holm(found.p_value[self.figures :]).tolist()
        of_all = zip(self.names[: self.figures], rows, strict=False)
        of_classes = zip(self.classes, rows[self.figures :], corrected, strict=True)
        caption = (
            f"From and to: the 95 % interval of the difference, from {self.resamples:,} resamples "
            f"of {self.units:,} {self.drawn}, the same for both."
        )
        return [
            MetricTable(
                "Figures", "figure", _COLUMNS, [MetricRow(*pair) for pair in of_all], caption
            ),
            MetricTable(
                "AP by class",
                "class",
                (*_COLUMNS, "p (Holm)"),
                [MetricRow(name, [*row, p_value]) for name, row, p_value in of_classes],
                "The last column is the probability that so large a difference is chance, "
                "corrected for the number of classes.",
            ),
        ]

    def _group_tables(self, number: int) -> list[MetricTable]:
        tables = []
        for title, members in self._group_rows():
            found = self.of_groups[number - 1]
            rows = [MetricRow(name, _numbers_of(found, place)) for name, place in members]
            tables.append(MetricTable(title, "group (objects)", _COLUMNS, rows, _GROUPS))
        return tables

    def _gallery(self, number: int, paths: Mapping[Any, str], read: Any) -> Gallery:
        pair = (0, number)
        errors = np.stack([self.statistics[one].errors(_SCORE) for one in pair])
        gap = errors[1] - errors[0]
        ranked = np.lexsort((-errors.sum(0), -np.abs(gap)))
        ranked = ranked[gap[ranked] != 0][:_SHOWN]
        ids = self.statistics[0].image_ids
        samples = [self._sample(ids[row], pair, errors[:, row], paths, read) for row in ranked]
        better = f"{int((gap < 0).sum()):,} better and {int((gap > 0).sum()):,} worse"
        caption = (
            f"Errors: detections without an object at IoU 0.5, and objects missed, at scores from "
            f"{_SCORE:g}. The second does {better} of {len(ids):,} images. White: ground truth."
        )
        return Gallery("Images whose results differ most", samples, caption)

    def _sample(
        self,
        image_id: Any,
        pair: tuple[int, int],
        errors: np.ndarray,
        paths: Mapping[Any, str],
        read: Any,
    ) -> ImageSample:
        names = [self.contenders[one].name for one in pair]
        facts = [f"{name}: {int(count)} errors" for name, count in zip(names, errors, strict=True)]
        path = paths.get(image_id, "")
        if not path:
            return ImageSample(f"image {image_id}", facts, (), "Its folder is not known.")
        image, problem = read_rgb(path, read)
        if image is None:
            return ImageSample(path, facts, (), problem)
        own = [one for one in self.ground_truth["annotations"] if one["image_id"] == image_id]
        kinds = [
            _corners([one["bbox"] for one in own if bool(one["iscrowd"]) == crowd])
            for crowd in (False, True)
        ]
        drawings = []
        for name, one in zip(names, pair, strict=True):
            found = self.contenders[one].trainings[0]
            rows = np.flatnonzero((found.image_ids == image_id) & (found.scores >= _SCORE))
            labels = np.searchsorted(self.category_ids, found.category_ids[rows])
            drawing = draw_predictions(
                image,
                _corners(found.boxes[rows]),
                labels,
                found.scores[rows],
                self.classes,
                *kinds,
                longest=_LONGEST,
            )
            drawings.append(embedded(drawing, f"{path}: {name}"))
        return ImageSample(path, facts, drawings)


def common_truth(ann_files: Mapping[str, str], given: str | None) -> tuple[str, dict[str, Any]]:
    """The annotation file that all are compared on, and its content.

    Args:
        ann_files: Of the runs, by name; other contenders are files of results.
        given: ``--ann-file``.

    Raises:
        UserError: There is none, or runs were tested on different ones.
        DatasetError: It has no annotations.
    """
    if given is None:
        files = Counter(str(Path(path).absolute()) for path in ann_files.values())
        if not files:
            raise UserError("name the annotation file of the results with --ann-file FILE.json")
        # Each training on a folder has a copy of its own.
        if len(files) > 1 and len({_digest(path) for path in files}) > 1:
            lines = "\n".join(f"  {name}: {path}" for name, path in ann_files.items())
            raise UserError(
                f"the runs are tested on different annotation files:\n{lines}\nA comparison needs "
                "the same images: test them on one with --cfg-options test_evaluator.ann_file=... "
                "test_dataloader.dataset.ann_file=..."
            )
        given = next(iter(files))
    truth = load_coco_annotations(given)
    if not truth["annotations"]:
        raise DatasetError(f"{given}: has no annotations, so there is nothing to compare with")
    return given, truth


def _digest(path: str) -> bytes:
    """A digest of the content of a file; that of the path if there is none."""
    file = Path(path)
    return hashlib.sha256(file.read_bytes() if file.is_file() else path.encode()).digest()


def _corners(boxes: Sequence[Sequence[float]] | np.ndarray) -> np.ndarray:
    corners = np.array(boxes, dtype=np.float64).reshape(-1, 4)
    corners[:, 2:] += corners[:, :2]
    return corners


def _span(found: Difference, place: int) -> str:
    return f"{change(float(found.low[place]))} to {change(float(found.high[place]))}"


def _cells(found: Difference, place: int) -> str:
    return (
        f"{found.first[place]:>8.3f}{found.second[place]:>8.3f}"
        f"{change(float(found.difference[place])):>9}{_span(found, place):>20}"
        f"{found.probability[place]:>14.3f}"
    )


def _numbers_of(found: Difference, place: int) -> list[float]:
    columns = (found.first, found.second, found.difference, found.low, found.high)
    return [float(values[place]) for values in (*columns, found.probability)]


def _rounded(number: float) -> int:
    """Two digits, which is more than is known."""
    return int(float(f"{number:.1e}"))
