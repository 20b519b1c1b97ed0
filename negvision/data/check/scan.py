"""Read a dataset from end to end and add up the facts about its samples."""

from __future__ import annotations

import functools
from array import array
from collections import Counter
from collections.abc import Callable, Generator, Mapping
from typing import Any

import numpy as np

from negvision.data.check.cues import CUES
from negvision.data.check.processes import call_in_processes
from negvision.data.check.sample import Remark, SampleCheck, SampleFacts, remark_of
from negvision.data.images.bad_samples import BadSampleMixin, collected_findings
from negvision.errors import Problems
from negvision.registry import DATASETS


class DatasetScan:
    """What is known about one dataset of a config; grows with each sample.

    Takes 76 bytes per sample on top of the dataset itself.

    Args:
        config: A dataset that reads files, not a wrapper.
        splits: Those of "train", "val" and "test" that it belongs to.

    Attributes:
        dataset: None if it could not be built.
        problems: By kind.
        notes: Oddities that neither stop nor mislead a run, by kind.
        total: The number of samples.
        read: Samples read so far.
        unusable: Samples with a problem.
        sizes: (H, W) -> number of images, index of the first.
        amounts: Label -> objects, pixels or images, as ``counted`` says.
        images_with: Label -> images that show it.
        per_image: Objects per image -> number of images.
        is_ood: Whether it is an OOD set.
    """

    def __init__(self, config: Mapping, splits: tuple[str, ...]) -> None:
        self.config = config
        self.splits = splits
        self.dataset: Any = None
        self.problems, self.notes = Problems(), Problems()
        self.total = self.read = self.unusable = 0
        self.sizes: dict[tuple[int, int], list[int]] = {}
        self.amounts: Counter[int] = Counter()
        self.images_with: Counter[int] = Counter()
        self.per_image: Counter[int] = Counter()
        self.counted, self.is_ood = "", False
        self._cues = bytearray()
        self._index, self._annotation = array("q"), array("Q")
        self._digest = bytearray()

    @property
    def name(self) -> str:
        """Type and source."""
        kind = str(self.config["type"]).rpartition(".")[2]
        return f"{kind} {self.source}".strip()

    @property
    def source(self) -> str:
        """The annotation file, or else the image folder, or else the data root."""
        known = (self.config if self.dataset is None else vars(self.dataset)).get
        prefix = known("data_prefix") or {}
        folders = list(prefix.values()) if isinstance(prefix, Mapping) else [prefix]
        named = (known("ann_file"), *folders, known("data_root"), self.config.get("ann_file"))
        return next((name for name in named if isinstance(name, str) and name), "")

    @property
    def complete(self) -> bool:
        """Whether all samples were read."""
        return self.dataset is not None and self.read == self.total

    def load(self) -> bool:
        """Build the dataset and count its problems; returns whether there is anything to read."""
        with collected_findings() as found:
            try:
                self.dataset = _build(self.config)
                self.total = len(self.dataset)
            except Exception as error:
                self.dataset = None
                found_error = remark_of(error, self.source, "loading")
                kind = found_error.kind.replace("unusable sample", "dataset that cannot be loaded")
                self.problems.add(kind, found_error.where)
        self.problems.merge(found.problems)
        self.notes.merge(found.notes)
        if self.dataset is not None and not self.total:
            self.problems.add("dataset without a sample", self.source)
        has_records = self.total and hasattr(self.dataset, "get_data_info")
        if has_records and not SampleCheck(self.dataset).steps:
            self.notes.add("pipeline without a transform that loads: no image read", self.name)
        return bool(self.total)

    def samples(self, workers: int) -> Generator[None]:
        """Read all samples, one per step, in ``workers`` processes."""
        check = SampleCheck(self.dataset, own_process=workers > 0)
        died = functools.partial(_died, self.sample_name)
        for index, facts in enumerate(call_in_processes(check, self.total, workers, died)):
            self._add(index, facts)
            yield

    def sample_name(self, index: int) -> str:
        """The name of a sample, such as the path of its image."""
        try:
            if isinstance(self.dataset, BadSampleMixin):
                return self.dataset._sample_name(index)
            return str(self.dataset.get_data_info(index)["img_path"])
        except Exception:  # a dataset of any origin may raise anything
            return f"sample {index}"

    def class_name(self, label: int) -> str:
        """The class name of a label, or its number."""
        classes = self._metainfo().get("classes") or ()
        return str(classes[label]) if 0 <= label < len(classes) else str(label)

    def number_of_classes(self) -> int:
        """The number of classes the dataset declares; 0 if it declares none."""
        metainfo = self._metainfo()
        return len(metainfo.get("classes") or ()) or int(metainfo.get("num_classes") or 0)

    def compares_images(self) -> bool:
        """Whether images are compared with each other, as in face verification."""
        return bool({"pairs", "gallery", "template_pairs"} & set(self._metainfo()))

    def fingerprints(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Identify the N images that were read.

        Returns:
            Indices (N,), int64; digests (N, 2), uint64; annotations (N,), uint64.
        """
        digests = np.frombuffer(bytes(self._digest), np.uint64).reshape(-1, 2)
        return np.array(self._index, np.int64), digests, np.array(self._annotation, np.uint64)

    def cues(self) -> np.ndarray:
        """The cues of the images that were read, (N, cues) float32."""
        return np.frombuffer(bytes(self._cues), np.float32).reshape(-1, len(CUES))

    def _metainfo(self) -> Mapping:
        metainfo = getattr(self.dataset, "metainfo", None)
        return metainfo if isinstance(metainfo, Mapping) else {}

    def _add(self, index: int, facts: SampleFacts) -> None:
        self.read += 1
        for note in facts.notes:
            self.notes.add(*note)
        if facts.problem:
            self.unusable += 1
            self.problems.add(*facts.problem)
            return
        if facts.size:
            self.sizes.setdefault(facts.size, [0, index])[0] += 1
        if facts.digest:
            self._index.append(index)
            self._annotation.append(facts.annotation)
            self._digest += facts.digest
        self.is_ood = facts.is_ood
        if facts.cues is not None:
            self._cues += facts.cues.tobytes()
        if facts.counted:
            self.counted = facts.counted
            self.amounts.update(facts.amounts)
            self.images_with.update(facts.amounts.keys())
            self.per_image[sum(facts.amounts.values())] += facts.counted == "objects"


def _build(config: Mapping):
    config = dict(config)
    # With "skip", face protocols decode all images while loading, in one process.
    config.pop("on_bad_sample", None)
    dataset = DATASETS.build(config)
    if hasattr(dataset, "full_init"):
        dataset.full_init()
    return dataset


def _died(name: Callable[[int], str], index: int, how: str) -> SampleFacts:
    return SampleFacts(problem=Remark("sample that the process died of", f"{name(index)}: {how}"))
