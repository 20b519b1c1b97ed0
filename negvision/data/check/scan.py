"""Read a data set from end to end, and add up what its samples turn out to be."""

from __future__ import annotations

import functools
from array import array
from collections import Counter
from collections.abc import Callable, Iterator, Mapping

import numpy as np

from negvision.data.check.processes import call_in_processes
from negvision.data.check.sample import Remark, SampleCheck, SampleFacts, remark_of
from negvision.data.images.bad_samples import BadSampleMixin, collected_findings
from negvision.errors import Problems
from negvision.registry import DATASETS


class DatasetScan:
    """What is known of one data set of a config, more with each sample that is read.

    Memory grows by 40 bytes a sample, apart from what the dataset itself takes.

    Args:
        config: Of a dataset that reads files, not of one that wraps others.
        splits: Of "train", "val" and "test", those that it is part of.

    Attributes:
        dataset: None where it could not be built.
        faults: By kind.
        notes: By kind; oddities that neither stop nor mislead a run.
        total: Samples there are.
        read: Samples that were read so far.
        unusable: Those of them with a fault.
        sizes: (H, W) -> number of images, and the first of them.
        amounts: Label -> objects, pixels or images (``counted`` says which).
        images_with: Label -> images that show it.
        per_image: Objects an image -> number of images.
    """

    def __init__(self, config: Mapping, splits: tuple[str, ...]) -> None:
        self.config = config
        self.splits = splits
        self.dataset = None
        self.faults, self.notes = Problems(), Problems()
        self.total = self.read = self.unusable = 0
        self.sizes: dict[tuple[int, int], list[int]] = {}
        self.amounts: Counter[int] = Counter()
        self.images_with: Counter[int] = Counter()
        self.per_image: Counter[int] = Counter()
        self.counted = ""
        self._index, self._annotation = array("q"), array("Q")
        self._digest = bytearray()

    @property
    def name(self) -> str:
        """Type and file of the data set."""
        kind = str(self.config["type"]).rpartition(".")[2]
        return f"{kind} {self.source}".strip()

    @property
    def source(self) -> str:
        """Its annotation file, or else its folder of images, or else its data root."""
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
        """Build the dataset with all faults counted; whether there is anything to read."""
        with collected_findings() as found:
            try:
                self.dataset = _build(self.config)
                self.total = len(self.dataset)
            except Exception as error:
                self.dataset = None
                fault = remark_of(error, self.source, "loading")
                kind = fault.kind.replace("unusable sample", "data set that cannot be loaded")
                self.faults.add(kind, fault.where)
        self.faults.merge(found.faults)
        self.notes.merge(found.notes)
        if self.dataset is not None and not self.total:
            self.faults.add("data set without a sample", self.source)
        has_records = self.total and hasattr(self.dataset, "get_data_info")
        if has_records and not SampleCheck(self.dataset).steps:
            self.notes.add("pipeline without a transform that loads: no image read", self.name)
        return bool(self.total)

    def samples(self, workers: int) -> Iterator[None]:
        """Read all samples, one at each step, in ``workers`` processes."""
        check = SampleCheck(self.dataset, own_process=workers > 0)
        died = functools.partial(_died, self.sample_name)
        for index, facts in enumerate(call_in_processes(check, self.total, workers, died)):
            self._add(index, facts)
            yield

    def sample_name(self, index: int) -> str:
        """What a sample is called, such as the path of its image."""
        try:
            if isinstance(self.dataset, BadSampleMixin):
                return self.dataset._sample_name(index)
            return str(self.dataset.get_data_info(index)["img_path"])
        except Exception:  # of any kind, from a dataset of any origin
            return f"sample {index}"

    def class_name(self, label: int) -> str:
        """The name of a label, or its number."""
        classes = self._metainfo().get("classes") or ()
        return str(classes[label]) if 0 <= label < len(classes) else str(label)

    def number_of_classes(self) -> int:
        """Of those that the dataset says it has; 0 where it does not."""
        metainfo = self._metainfo()
        return len(metainfo.get("classes") or ()) or int(metainfo.get("num_classes") or 0)

    def compares_images(self) -> bool:
        """Whether it is a protocol whose images have no class and are compared in pairs."""
        return bool({"pairs", "gallery", "template_pairs"} & set(self._metainfo()))

    def fingerprints(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Of the images that were read, N of them.

        Returns:
            Indices (N,), int64; digests (N, 2), uint64; annotations (N,), uint64.
        """
        digests = np.frombuffer(bytes(self._digest), np.uint64).reshape(-1, 2)
        return np.array(self._index, np.int64), digests, np.array(self._annotation, np.uint64)

    def _metainfo(self) -> Mapping:
        metainfo = getattr(self.dataset, "metainfo", None)
        return metainfo if isinstance(metainfo, Mapping) else {}

    def _add(self, index: int, facts: SampleFacts) -> None:
        self.read += 1
        if facts.note:
            self.notes.add(*facts.note)
        if facts.fault:
            self.unusable += 1
            self.faults.add(*facts.fault)
            return
        if facts.size:
            self.sizes.setdefault(facts.size, [0, index])[0] += 1
        if facts.digest:
            self._index.append(index)
            self._annotation.append(facts.annotation)
            self._digest += facts.digest
        if facts.counted:
            self.counted = facts.counted
            self.amounts.update(facts.amounts)
            self.images_with.update(facts.amounts.keys())
            self.per_image[sum(facts.amounts.values())] += facts.counted == "objects"


def _build(config: Mapping):
    config = dict(config)
    # Skipping face protocols decode all images when they are loaded, in one process.
    config.pop("on_bad_sample", None)
    dataset = DATASETS.build(config)
    if hasattr(dataset, "full_init"):
        dataset.full_init()
    return dataset


def _died(name: Callable[[int], str], index: int, how: str) -> SampleFacts:
    return SampleFacts(fault=Remark("sample that the process died of", f"{name(index)}: {how}"))
