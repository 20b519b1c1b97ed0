"""The data set under audit: its labels, what a model says of them, and its images."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope

from negvision.audit.boxes import BoxSubject, BoxTable
from negvision.audit.labels import (
    FaceSubject,
    LabelSubject,
    Regions,
    region_rows,
    region_subject,
)
from negvision.audit.subject import Findings
from negvision.classification.datasets import ImageDataset
from negvision.data.formats.coco_file import read_coco_file
from negvision.data.formats.datasets import dataset_configs
from negvision.data.formats.folder import read_folder
from negvision.data.splits.content import MOST_HASHED, fingerprints, look_alikes
from negvision.data.suspects import Suspect
from negvision.detection.coco_check import check_annotations, check_images
from negvision.detection.datasets import CocoDataset
from negvision.engine.config.data_files import leaf_datasets
from negvision.errors import ConfigError, DatasetError, Problems, listed
from negvision.face.datasets.base import FaceIdentityDataset
from negvision.inference.inferencer import Inferencer
from negvision.inference.pipeline import kind_of
from negvision.inference.runtime import Classification, Detections, Embedding
from negvision.inference.torch_model import TorchModel
from negvision.registry import DATASETS
from negvision.segmentation.datasets import SegDataset

Progress = Callable[[Iterable], Iterable]
_TASKS = {"classification": "classification", "faces": "face"}
# Images that look more alike than this are one picture; more than a quarter alike are one camera.
_ALIKE, _ONE_CAMERA = 6, 0.25


def find_leaf(cfg: Config, data: str | None, folder: Path, task: str) -> dict[str, Any]:
    """The config of the data set to audit, without pipeline and filters.

    Args:
        cfg: Of the run.
        data: An annotation file that replaces that of the training, or a folder of annotated
            images, of which the training images are taken; None for the data of the training.
        folder: Where lists of a folder are written.
        task: Of the model.

    Raises:
        ConfigError: The config has no training set, or several; or the folder is for another task.
        DatasetError: The folder cannot be read.
    """
    if data is not None and not Path(data).exists():
        raise DatasetError(f"--data {data}: there is no such file or folder")
    if data is not None and (Path(data).is_dir() or Path(data).suffix in (".yaml", ".yml")):
        found = read_folder(data)
        if _TASKS.get(found.task, found.task) != task:
            raise ConfigError(f"--data {data}: is for {found.task}, and the model for {task}")
        if "train" not in found.splits:
            found = replace(found, splits={"train": list(range(len(found.images)))})
        found = replace(found, splits={"train": found.splits["train"]})
        leaf = dataset_configs(found, folder / "data")["train"]
    else:
        leaves = list(leaf_datasets((cfg.get("train_dataloader") or {}).get("dataset")))
        if len(leaves) != 1:
            some = f"{len(leaves)} training sets" if leaves else "no training set"
            raise ConfigError(
                f"{cfg.filename}: has {some}, and an audit reads one; name annotations, or a "
                "folder, with --data"
            )
        leaf = dict(leaves[0])
        if data is not None:
            leaf["ann_file"] = str(Path(data).absolute())
    if kind_of(leaf) == "CocoDataset":
        leaf["type"] = "negvision.CocoDataset"
    for key in ("filter_cfg", "suspects", "tiles"):
        leaf.pop(key, None)
    return {**leaf, "pipeline": reading(leaf)}


def reading(leaf: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The steps of the pipeline of a data set that read an image."""
    steps = {kind_of(one): dict(one) for one in leaf.get("pipeline") or ()}
    load = steps.get("LoadImageFromFile", {}) | {"type": "negvision.LoadImageFromFile"}
    return [load, *(steps[name] for name in ("AlignFace",) if name in steps)]


class Audited(ABC):
    """A data set with its labels; filled with predictions image by image.

    Attributes:
        names: File names of the images, below the folder of images.
        classes: Names, by label.
        ann_file: "" for a folder.
        kinds: That a training history can tell, too.
    """

    kinds: Sequence[str] = ()

    def __init__(self, dataset: Any, task: str, model_classes: Sequence[str]) -> None:
        self.dataset = dataset
        self.ann_file = str(dataset.ann_file or "")
        self.classes = self._classes()
        self.predictions: list[Any] = [None] * len(dataset)
        self._labels_of_model = self._match(model_classes) if task != "face" else []

    def _classes(self) -> tuple[str, ...]:
        return tuple(map(str, self.dataset.metainfo.get("classes") or ()))

    def _match(self, model_classes: Sequence[str]) -> list[int]:
        """The label here of each of the model's; -1 for those that are none here."""
        missing = [name for name in self.classes if name not in model_classes]
        if missing or not self.classes:
            raise ConfigError(
                f"{self.ann_file or self.dataset.data_root}: the model does not know the classes "
                f"{listed(missing, 10) or '(there are none)'}; it knows "
                f"{listed(model_classes, 20) or 'none'}. Audit with a model of the same classes"
            )
        return [self.classes.index(name) if name in self.classes else -1 for name in model_classes]

    @cached_property
    def paths(self) -> list[str]:
        """The file of each image."""
        return paths_of(self.dataset)

    @cached_property
    def names(self) -> list[str]:
        """Paths below the folder of the images."""
        prefixes = dict(self.dataset.data_prefix or {})
        folder = str(prefixes.get("img") or prefixes.get("img_path") or "")
        inside = [os.path.relpath(path, folder) if folder else path for path in self.paths]
        return [
            path if short.startswith("..") else short.replace(os.sep, "/")
            for path, short in zip(self.paths, inside, strict=True)
        ]

    def image(self, place: int) -> np.ndarray:
        """Pixels of an image, (H, W, 3) uint8 BGR.

        Raises:
            DatasetError: It cannot be read.
        """
        return _pixels(self.dataset, place)

    def predict(self, model: Inferencer, places: Sequence[int], progress: Progress = iter) -> None:
        """Keep what a model says of some images."""
        for place in progress(places):
            [found] = model.predict([self.image(place)])
            self.predictions[place] = self._kept(place, found)

    def _kept(self, place: int, found: Any) -> Any:
        raise NotImplementedError

    @abstractmethod
    def subject(self) -> BoxSubject | LabelSubject | FaceSubject:
        """The labels and the predictions."""

    def split_findings(self, others: Mapping[str, Sequence[Any]], progress: Progress) -> Findings:
        """Images of this set that other splits hold too, the same or look-alikes.

        Args:
            others: Split -> its data sets.
            progress: Wraps what is read.
        """
        files = [
            sorted({path for one in sets for path in paths_of(one)}) for sets in others.values()
        ]
        pool = [*self.paths, *(path for paths in files for path in paths)]
        split = ["", *others]
        of = np.repeat(range(len(split)), [len(self.paths), *map(len, files)])
        known: list = [None] * len(pool)
        if len(pool) <= MOST_HASHED and all(map(os.path.isfile, pool)):
            known = fingerprints([Path(one) for one in pool], progress)
        rows = [row for row, one in enumerate(known) if one is not None]
        same: dict[bytes, list[int]] = {}
        for row in rows:
            same.setdefault(known[row].digest, []).append(row)
        looks = look_alikes([known[row].look for row in rows], _ALIKE) if rows else []
        alike = [[rows[place] for place in group] for group in looks]
        few = [group for group in alike if len(group) <= max(_ONE_CAMERA * len(pool), 2)]
        twins: dict[int, tuple[int, bool]] = {}
        for groups, certain in ((few, False), (same.values(), True)):
            for group in groups:
                theirs = [row for row in group if of[row]]
                twins |= {row: (theirs[0], certain) for row in group if theirs and not of[row]}
        places = sorted(twins)

        def suspect(number: int) -> Suspect:
            row, certain = twins[places[number]]
            words = "is" if certain else "looks like"
            reason = f"{words} {pool[row]} of {split[of[row]]}"
            return Suspect("split", self.names[places[number]], reason=reason)

        # Half of the look-alikes is a guess; a person decides.
        scores = np.array([1.0 if twins[place][1] else 0.5 for place in places])
        return Findings("split", scores, suspect, probability=scores)


def paths_of(dataset: Any) -> list[str]:
    """The file of each image of a data set."""
    return [str(dataset.get_data_info(place).get("img_path")) for place in range(len(dataset))]


def _pixels(dataset: Any, place: int) -> np.ndarray:
    pixels = dataset.pipeline(dataset.get_data_info(place))["img"]
    return pixels if pixels.ndim == 3 else np.repeat(pixels[..., None], 3, 2)


class AuditedBoxes(Audited):
    """Boxes of a COCO file."""

    kinds = ("class",)

    @cached_property
    def has_ids(self) -> bool:
        """Whether each annotation has a number of its own, by which a history knows it."""
        ids = [one.get("id") for one in read_coco_file(self.ann_file)["annotations"]]
        return all(type(one) is int for one in ids) and len(set(ids)) == len(ids)

    @cached_property
    def _rows(self) -> tuple[BoxTable, list]:
        dataset = self.dataset
        content = read_coco_file(self.ann_file)
        ids = [one.get("id") for one in content["annotations"] if isinstance(one, dict)]
        own = len(set(map(str, ids))) == len(content["annotations"]) and None not in ids
        listing = [
            {**one, "_id": one["id"] if own else number} if isinstance(one, dict) else one
            for number, one in enumerate(content["annotations"])
        ]
        images = check_images(content["images"], Problems())
        categories = {one["id"] for one in content["categories"]}
        found = check_annotations(listing, images, categories, Problems(), Problems())
        places = {image: place for place, image in enumerate(self.image_ids)}
        rows = [
            (places[image], one)
            for image, annotations in found.items()
            for one in annotations
            if image in places
        ]
        boxes = np.array([one["bbox"] for _, one in rows], np.float64).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        labels = [dataset.cat2label.get(one["category_id"], -1) for _, one in rows]
        # What is no class of the training is there all the same.
        ignored = [
            label < 0 or bool(one.get("iscrowd"))
            for label, (_, one) in zip(labels, rows, strict=True)
        ]
        table = BoxTable.of([place for place, _ in rows], labels, boxes, ignored=ignored)
        return table, [one["_id"] for _, one in rows]

    @cached_property
    def image_ids(self) -> list:
        """By place."""
        return [self.dataset.get_data_info(n)["img_id"] for n in range(len(self.dataset))]

    def _kept(self, place: int, found: Detections) -> tuple:
        label = np.array(self._labels_of_model, np.int64)[found.labels]
        known = np.flatnonzero(label >= 0)
        return label[known], found.boxes[known], found.scores[known]

    def subject(self) -> BoxSubject:
        """The labels and the predictions."""
        counts = [len(one[0]) for one in self.predictions]
        empty = np.zeros(0, np.int64), np.zeros((0, 4)), np.zeros(0)
        label, box, score = (
            np.concatenate([none, *(one[part] for one in self.predictions)])
            for part, none in enumerate(empty)
        )
        return self.subject_of(
            BoxTable.of(np.repeat(range(len(counts)), counts), label, box, score)
        )

    def subject_of(self, found: BoxTable) -> BoxSubject:
        """The labels, and boxes found in another way."""
        table, ids = self._rows
        return BoxSubject(table, found, self.classes, self.names, self.image_ids, ids)


class AuditedImages(Audited):
    """Images of one class each."""

    kinds = ("image",)

    def _kept(self, place: int, found: Classification) -> np.ndarray:
        chances, given = np.zeros(len(self.classes)), np.array(self._labels_of_model)
        np.add.at(chances, given[given >= 0], found.probabilities[given >= 0])
        return chances

    def subject(self) -> LabelSubject:
        """The labels and the predictions."""
        count = len(self.dataset)
        labels = np.array([self.dataset.get_data_info(n)["label"] for n in range(count)], np.int64)
        rows = np.arange(count)
        chances = np.array(self.predictions).reshape(count, len(self.classes))
        return LabelSubject("image", labels, chances, self.classes, self.names, rows, rows)


class AuditedPixels(Audited):
    """Label maps."""

    kinds = ("region",)

    def predict(self, model: Inferencer, places: Sequence[int], progress: Progress = iter) -> None:
        """Keep the mean probabilities of the regions of some images."""
        inner = model._model
        assert isinstance(inner, TorchModel)  # exported models give no probabilities
        for place in progress(places):
            [packed] = inner.batches([self.image(place)])
            self.predictions[place] = self._regions(place, inner, packed)

    def _regions(self, place: int, model: TorchModel, packed: Sequence[dict]) -> Regions:
        from mmengine.dataset import pseudo_collate

        with torch.no_grad():
            [sample] = model.model.test_step(pseudo_collate(packed))
        logits = sample.seg_logits.data.float()
        chances = logits.softmax(0) if len(logits) > 1 else torch.cat([1 - logits, logits])
        order = [self._labels_of_model.index(label) for label in range(len(self.classes))]
        info = self.dataset.pipeline(self.dataset.get_data_info(place))
        return region_rows(place, self._map(info), chances[order].cpu().numpy())

    def _map(self, info: dict) -> np.ndarray:
        from negvision.segmentation.datasets import LoadSegAnnotations

        return LoadSegAnnotations().transform(info)["gt_seg_map"].astype(np.int64)

    def subject(self) -> LabelSubject:
        """The labels and the predictions."""
        return region_subject(self.predictions, self.classes, self.names)


class AuditedFaces(Audited):
    """Faces of people, each with a label."""

    kinds = ("identity",)

    def _classes(self) -> tuple[str, ...]:
        labels = self.dataset.labels
        if not len(labels) or labels.min() < 0:
            raise ConfigError(
                f"{self.ann_file}: an audit needs the person of each face, as training sets have it"
            )
        _, first = np.unique(labels, return_index=True)
        folders = [os.path.basename(os.path.dirname(self.paths[row])) for row in first.tolist()]
        named = all(folders) and len(set(folders)) == len(folders)
        own = dict(zip(labels[first].tolist(), folders, strict=True)) if named else {}
        return tuple(own.get(label, f"person {label}") for label in range(labels.max() + 1))

    def predict(self, model: Inferencer, places: Sequence[int], progress: Progress = iter) -> None:
        """Keep the embeddings of some images, and the model."""
        super().predict(model, places, progress)
        self._model = model

    def _kept(self, place: int, found: Embedding) -> np.ndarray:
        return found.vector

    def split_findings(self, others: Mapping[str, Sequence[Any]], progress: Progress) -> Findings:
        """People of whom other splits have a face, by the model of :meth:`predict`.

        Args:
            others: Split -> its data sets.
            progress: Wraps what is read.
        """
        faces = [(split, one, place) for split, sets in others.items()
                 for one in sets for place in range(len(one))]  # fmt: skip
        vectors, names = [], []
        for split, one, place in progress(faces):
            vectors += self._model.predict([_pixels(one, place)])
            names.append(f"{one.get_data_info(place)['img_path']} of {split}")
        return self.subject().overlap(np.array([found.vector for found in vectors]), names)

    def subject(self) -> FaceSubject:
        """The labels and the embeddings."""
        vectors = np.array(self.predictions)
        return FaceSubject(vectors, np.asarray(self.dataset.labels), self.classes, self.names)


_KINDS = {
    "detection": (CocoDataset, AuditedBoxes),
    "classification": (ImageDataset, AuditedImages),
    "segmentation": (SegDataset, AuditedPixels),
    "face": (FaceIdentityDataset, AuditedFaces),
}


def open_data(leaf: Mapping[str, Any], scope: str, model: Inferencer) -> Audited:
    """The data set that ``leaf`` describes, for a model.

    Raises:
        ConfigError: It is not of the model's task, or has classes that the model does not know.
        DatasetError: It cannot be read.
    """
    with DefaultScope.overwrite_default_scope(scope):
        dataset = DATASETS.build(dict(leaf))
    kind, audited = _KINDS[model.task]
    if not isinstance(dataset, kind):
        raise ConfigError(
            f"an audit of {model.task} reads data sets of negvision ({kind.__name__}), and this "
            f"one is a {type(dataset).__name__}; name annotations, or a folder, with --data"
        )
    return audited(dataset, model.task, model.classes)
