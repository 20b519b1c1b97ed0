"""Audit the labels of a data set: predictions, methods, decisions."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
from mmengine.config import Config

from negvision.audit.boxes import BoxTable
from negvision.audit.data import Audited, AuditedBoxes, AuditedFaces
from negvision.audit.decisions import ACCEPTED, REJECTED, Decisions
from negvision.audit.history import found_objects
from negvision.audit.subject import LIKELY, Audit, Findings, by_history
from negvision.data.formats.coco_file import read_coco_file
from negvision.data.sample_history import FILE_NAME, SampleHistory, digest_of
from negvision.data.suspects import Suspect, Suspects
from negvision.engine.config.data_files import leaf_datasets
from negvision.errors import ConfigError, DatasetError
from negvision.inference.inferencer import Inferencer


def read_history(work_dir: Path, data: Audited, cfg: Config) -> SampleHistory | None:
    """The history of a training on this data; None if the run has none.

    Args:
        work_dir: Of the training.
        data: Under audit.
        cfg: Of the training.

    Raises:
        DatasetError: It is damaged, of other annotations, or of other classes.
    """
    path = work_dir / FILE_NAME
    if not path.is_file():
        return None
    history = SampleHistory.load(path)
    files = [data.ann_file] if data.ann_file else []
    if history.digest and history.digest != digest_of(*files):
        raise DatasetError(
            f"{path}: the annotations {data.ann_file} were changed since this training, or are "
            "others. Train again, or audit by the model alone with --method model"
        )
    if history.classes and data.classes and tuple(history.classes) != tuple(data.classes):
        raise DatasetError(
            f"{path}: the history is of the classes {', '.join(history.classes)}, and the data "
            f"has {', '.join(data.classes)}. Audit by the model alone with --method model"
        )
    leaves = leaf_datasets((cfg.get("train_dataloader") or {}).get("dataset"))
    by_id = all(str(leaf.get("type")).startswith("negvision.") for leaf in leaves)
    if isinstance(data, AuditedBoxes) and not (by_id and data.has_ids):
        raise DatasetError(
            f"{path}: this history numbers the boxes itself, since they have no ids of their own, "
            "or the config trains on mmdet's CocoDataset. Give each annotation an id, train with "
            "negvision.CocoDataset, or audit by the model alone with --method model"
        )
    return history


def findings_of(data: Audited, history: SampleHistory | None) -> list[Findings]:
    """Findings of every kind, from the predictions and, where it tells, from the history."""
    found = list(data.subject().findings())
    if history is None:
        return found
    found = [
        by_history(one, history, data.classes) if one.kind in data.kinds else one for one in found
    ]
    if isinstance(data, AuditedBoxes) and len(history.found_image):
        persistent = found_objects(history)
        places = {image: place for place, image in enumerate(data.image_ids)}
        known = [row for row, image in enumerate(persistent.image.tolist()) if image in places]
        table = BoxTable.of(
            [places[image] for image in persistent.image[known].tolist()],
            persistent.label[known],
            persistent.box[known],
            persistent.score[known],
        )
        # The training may have found an object too rarely; then the model alone finds it.
        table = table.joined(data.subject().found)
        missing = next(iter(data.subject_of(table).findings()))
        # The mean score over all epochs, or else the model's, stands for the probability.
        found[0] = dataclasses.replace(missing, probability=np.clip(missing.scores, 0, 1))
    return found


def audit(
    data: Audited,
    method: str,
    findings: Sequence[Findings],
    decisions: Decisions,
    likely: float = LIKELY,
) -> tuple[Suspects, dict[Suspect, str]]:
    """The suspects, without rejected ones, and the decisions that hold for the others.

    Accepted ones have probability 1.
    """
    found = Audit.of(findings, likely)
    decided = decisions.of(found.suspects)
    kept = [
        dataclasses.replace(one, probability=1.0) if decided.get(one) == ACCEPTED else one
        for one in found.suspects
        if decided.get(one) != REJECTED
    ]
    result = Suspects.of(kept, data.ann_file, data.classes, method, found.calibration)
    return result, decisions.of(kept)


def folds(count: int, folds: int, seed: int = 0) -> list[np.ndarray]:
    """Places of ``count`` images in parts of nearly equal size, drawn at random.

    Example:
        >>> [len(part) for part in folds(7, 3)], sorted(np.concatenate(folds(7, 3)).tolist())
        ([3, 2, 2], [0, 1, 2, 3, 4, 5, 6])
    """
    order = np.random.default_rng(seed).permutation(count)
    return [np.sort(part) for part in np.array_split(order, folds)]


def train_folds(
    cfg: Config,
    data: Audited,
    leaf: Mapping[str, Any],
    number: int,
    folder: Path,
    train: Callable[[Config], None],
) -> Iterator[tuple[Path, np.ndarray]]:
    """Train as the config says, without one part of the images after the other.

    Args:
        cfg: Of the run.
        data: Of which each part is left out once.
        leaf: Config of the data set.
        number: Of parts.
        folder: For the work dirs.
        train: Trains a config.

    Yields:
        The work dir and the places of the images that its training did not see.

    Raises:
        ConfigError: The data set cannot be trained in parts.
    """
    if isinstance(data, AuditedFaces):
        raise ConfigError(
            "--folds: embeddings of different trainings cannot be compared; audit faces by one "
            "model"
        )
    if not 2 <= number <= len(data.predictions):
        raise ConfigError(f"--folds {number}: give 2 to {len(data.predictions)}, the images")
    if not data.ann_file.endswith((".json", ".txt")):
        raise ConfigError(
            f"--folds: {data.ann_file or data.dataset.data_root} is neither a COCO file nor a "
            "list, so it cannot be trained in parts; audit by one model"
        )
    for place, held_out in enumerate(folds(len(data.predictions), number)):
        work_dir = folder / f"fold{place}"
        work_dir.mkdir(parents=True, exist_ok=True)
        part = work_dir / f"train{Path(data.ann_file).suffix}"
        _write_part(data, np.setdiff1d(np.arange(len(data.predictions)), held_out), part)
        own = Config(cfg.copy().to_dict(), filename=cfg.filename)
        [target] = cast(list[dict], list(leaf_datasets(own.train_dataloader.dataset)))
        target.update(
            {key: leaf[key] for key in ("data_root", "data_prefix", "metainfo") if key in leaf}
        )
        target["ann_file"] = str(part.absolute())
        own.work_dir, own.resume = str(work_dir), False
        own.experiment_name = f"audit_{folder.parent.name}_{place}"
        if own.get("visualizer"):
            own.visualizer.name = own.experiment_name
        train(own)
        yield work_dir, held_out


def _write_part(data: Audited, places: np.ndarray, path: Path) -> None:
    chosen = set(places.tolist())
    if path.suffix == ".json":
        assert isinstance(data, AuditedBoxes)
        content = read_coco_file(data.ann_file)
        ids = {image for place, image in enumerate(data.image_ids) if place in chosen}
        content["images"] = [one for one in content["images"] if one["id"] in ids]
        content["annotations"] = [one for one in content["annotations"] if one["image_id"] in ids]
        path.write_text(json.dumps(content), encoding="utf-8")
        return
    lines = [line for line in Path(data.ann_file).read_text("utf-8").splitlines() if line.strip()]
    if len(lines) != len(data.predictions):
        raise ConfigError(
            f"--folds: {data.ann_file} has {len(lines):,} lines and {len(data.predictions):,} "
            "usable images; correct the list first (negvision check-dataset shows what is wrong)"
        )
    path.write_text("".join(f"{lines[place]}\n" for place in places), encoding="utf-8")


def predict_folds(
    data: Audited, models: Iterator[tuple[Path, np.ndarray]], progress: Callable, **options: Any
) -> None:
    """Let each model predict what its training did not see."""
    for work_dir, held_out in models:
        data.predict(Inferencer(work_dir, **options), held_out.tolist(), progress)
