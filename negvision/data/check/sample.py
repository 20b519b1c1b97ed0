"""Load one sample as training would, and tell what is at fault in it and what is in it."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

from negvision.data.check.messages import DecoderMessages
from negvision.data.images.integrity import find_damage
from negvision.data.images.loading import LoadImageFromFile
from negvision.errors import DatasetError

_VOID = 255
_LONGEST = 400


class Remark(NamedTuple):
    """A fault of a sample, or what is worth a look: its kind, and where and what it is."""

    kind: str
    where: str


class SampleFacts(NamedTuple):
    """What one sample turned out to be.

    Attributes:
        fault: None where it can be used.
        note: What is odd and does no harm to the run.
        size: (H, W) of the image as it was loaded.
        digest: 16 bytes that tell the encoded image from others; empty where it was not read.
        annotation: A number that tells its annotations from others.
        amounts: Objects of each label; pixels for label images; one for an image with one class.
        counted: What is in ``amounts``: "objects", "pixels" or "images"; "" where nothing is.
    """

    fault: Remark | None = None
    note: Remark | None = None
    size: tuple[int, int] | None = None
    digest: bytes = b""
    annotation: int = 0
    amounts: Mapping[int, int] = {}
    counted: str = ""


class SampleCheck:
    """``SampleCheck(dataset)(index)`` are the :class:`SampleFacts` of a sample; it never raises.

    The sample's record and the transforms that load are asked, wherever these stand in the
    pipeline (those whose names begin with "Load", and ``AlignFace``, which reads landmarks), so
    nothing random is. A dataset without a record to ask for gives whole samples.

    Args:
        dataset: Any dataset, ready to be read.
        own_process: Whether nobody sees what this process prints, so that messages of decoders
            can be caught; they then become notes.
    """

    def __init__(self, dataset, own_process: bool = False) -> None:
        self._dataset = dataset
        self.steps = loading_transforms(dataset)
        self._own_process = own_process
        self._messages: DecoderMessages | None = None

    def __call__(self, index: int) -> SampleFacts:
        if self._own_process and self._messages is None:
            self._messages = DecoderMessages()
        name = f"sample {index}"
        try:
            if not hasattr(self._dataset, "get_data_info"):
                self._dataset[index]
                return SampleFacts()
            info = self._dataset.get_data_info(index)
        except Exception as error:
            return SampleFacts(fault=_of_sample(error, name, self._dataset))
        name, encoded = str(info.get("img_path", name)), info.get("img_bytes")
        fault, loaded = self._load(dict(info), name)
        said = self._messages.take() if self._messages and not fault else ""
        if encoded is None and not fault:
            encoded = _read_local(name)
        if not fault and encoded and not any(isinstance(s, LoadImageFromFile) for s in self.steps):
            fault = _what_others_pass_over(info, loaded, encoded, name)
        amounts, counted = _amounts(info, loaded)
        return SampleFacts(
            fault=fault,
            note=Remark("image that the decoder complains of", f"{name}: {said}") if said else None,
            size=None if fault or "img" not in loaded else tuple(loaded["img"].shape[:2]),
            digest=b"" if fault or not encoded else _digest(encoded, 16),
            annotation=_annotation(info, loaded),
            amounts=amounts,
            counted=counted,
        )

    def _load(self, results: dict, name: str) -> tuple[Remark | None, dict]:
        for step in self.steps:
            try:
                after = step(results)
            except Exception as error:
                return _of_sample(error, name, step), results
            if after is None:
                return Remark(f"sample that {type(step).__name__} drops", name), results
            results = after
        return None, results


def loading_transforms(dataset) -> list[Callable]:
    """The transforms of a dataset's pipeline that read files or annotations."""
    steps = getattr(getattr(dataset, "pipeline", None), "transforms", None) or []
    names = [(step, type(step).__name__) for step in steps]
    return [step for step, name in names if name.startswith("Load") or name == "AlignFace"]


def _of_sample(error: Exception, name: str, source: object) -> Remark:
    """The first sentence alone: the remedies that follow are the same for all of a kind."""
    kind, where = remark_of(error, name, type(source).__name__)
    return Remark(kind, where.split(". ")[0].rstrip("."))


def remark_of(error: Exception, name: str, step: str) -> Remark:
    """What an exception says, by kind.

    Args:
        error: Caught.
        name: Of the sample, put in front where the message does not have it.
        step: What raised.
    """
    kind = getattr(error, "kind", "")
    if not kind:
        own = isinstance(error, DatasetError)
        kind = "unusable sample" if own else f"{type(error).__name__} in {step}"
    message = " ".join(str(error).split())
    if len(message) > _LONGEST:
        message = message[: _LONGEST - 3] + "..."
    return Remark(kind, message if name in message else f"{name}: {message or 'no message'}")


def _read_local(path: str) -> bytes:
    """An image that was read a moment ago, so from the cache; empty where it is not a file."""
    try:
        if not os.path.isfile(path):
            return b""
        with open(path, "rb") as file:
            return file.read()
    except OSError:
        return b""


def _what_others_pass_over(info: dict, loaded: dict, encoded: bytes, name: str) -> Remark | None:
    """Faults that the loading transforms of other packages let pass."""
    damage = find_damage(encoded)
    if damage:
        return Remark("truncated image, which this pipeline does not notice", f"{name}: {damage}")
    annotated, found = (info.get("height"), info.get("width")), loaded.get("ori_shape")
    if None in annotated or found is None or tuple(annotated) == tuple(found):
        return None
    return Remark(
        "image of another size than annotated, which this pipeline does not notice",
        f"{name}: {found[1]} x {found[0]} pixels, annotated {annotated[1]} x {annotated[0]}",
    )


def _amounts(info: dict, loaded: dict) -> tuple[dict[int, int], str]:
    if "gt_seg_map" in loaded:
        labels, pixels = np.unique(loaded["gt_seg_map"], return_counts=True)
        counted = zip(labels.tolist(), pixels.tolist(), strict=True)
        return {label: number for label, number in counted if label != _VOID}, "pixels"
    if "instances" in info:
        kept = (item for item in info["instances"] if not item.get("ignore_flag"))
        return dict(Counter(item.get("bbox_label", -1) for item in kept)), "objects"
    label = info.get("label", info.get("gt_label"))
    if isinstance(label, int | np.integer):
        return ({int(label): 1} if label >= 0 else {}), "images"
    return {}, ""


def _annotation(info: dict, loaded: dict) -> int:
    if "gt_seg_map" in loaded:
        return int.from_bytes(_digest(loaded["gt_seg_map"].tobytes(), 8), "big")
    if "instances" in info:
        boxes = [
            (i.get("bbox_label"), i.get("ignore_flag"), i.get("bbox")) for i in info["instances"]
        ]
        return int.from_bytes(_digest(repr(sorted(map(repr, boxes))).encode(), 8), "big")
    return int.from_bytes(_digest(repr(info.get("label", info.get("gt_label"))).encode(), 8), "big")


def _digest(data: bytes, size: int) -> bytes:
    return hashlib.blake2b(data, digest_size=size).digest()
