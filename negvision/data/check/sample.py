"""Load one sample as training would, and record its problems and its content."""

from __future__ import annotations

import hashlib
import os
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from negvision.data.check.cues import image_cues
from negvision.data.images.decoding import AS_STORED, DARK, brightest
from negvision.data.images.header import read_header
from negvision.data.images.integrity import find_damage
from negvision.data.images.loading import LoadImageFromFile
from negvision.errors import DatasetError

_VOID = 255
_LONGEST = 400
# Messages about color profiles, which nothing here uses.
_HARMLESS = ("libpng warning: iCCP",)


class Remark(NamedTuple):
    """A problem or an oddity of a sample: its kind, and where and what it is."""

    kind: str
    where: str


class SampleFacts(NamedTuple):
    """What is known about one sample.

    Attributes:
        problem: None if the sample can be used.
        notes: Oddities that a run tolerates.
        size: (H, W) of the loaded image.
        digest: 16 bytes that identify the encoded image; empty if it was not read.
        annotation: A number that identifies the annotations.
        amounts: Objects per label; pixels for label images; 1 for an image with one class.
        counted: What ``amounts`` counts: "objects", "pixels" or "images"; "" for nothing.
        is_ood: Whether the sample belongs to an OOD set.
        cues: As of :func:`negvision.data.check.cues.image_cues`; None for an unusable sample.
    """

    problem: Remark | None = None
    notes: tuple[Remark, ...] = ()
    size: tuple[int, int] | None = None
    digest: bytes = b""
    annotation: int = 0
    amounts: Mapping[int, int] = {}
    counted: str = ""
    is_ood: bool = False
    cues: np.ndarray | None = None


class SampleCheck:
    """``SampleCheck(dataset)(index)`` returns the :class:`SampleFacts` of a sample.

    It never raises. Only the transforms that load run, wherever they stand in the pipeline: those
    whose names begin with "Load", and ``AlignFace``, which reads landmarks. So nothing is random.
    A dataset without ``get_data_info`` is asked for full samples.

    Args:
        dataset: Any dataset, fully initialized.
        own_process: Whether nobody sees what this process prints. Messages of decoders are then
            caught and become notes.
    """

    def __init__(self, dataset, own_process: bool = False) -> None:
        self._dataset = dataset
        self.steps = _loading_transforms(dataset)
        self._own_process = own_process
        self._messages: _DecoderMessages | None = None

    def __call__(self, index: int) -> SampleFacts:
        if self._own_process and self._messages is None:
            self._messages = _DecoderMessages()
        name = f"sample {index}"
        try:
            if not hasattr(self._dataset, "get_data_info"):
                self._dataset[index]
                return SampleFacts()
            info = self._dataset.get_data_info(index)
        except Exception as error:
            return SampleFacts(problem=_of_sample(error, name, self._dataset))
        name, encoded = str(info.get("img_path", name)), info.get("img_bytes")
        problem, loaded = self._load(dict(info), name)
        message = self._messages.take() if self._messages and not problem else ""
        if encoded is None and not problem:
            encoded = _read_local(name)
        own_loading = any(isinstance(step, LoadImageFromFile) for step in self.steps)
        if not problem and encoded and not own_loading:
            problem = _unnoticed_problem(info, loaded, encoded, name)
        amounts, counted = _amounts(info, loaded)
        return SampleFacts(
            problem=problem,
            notes=tuple(_oddities(encoded or b"", message, self.steps, name)),
            size=None if problem or "img" not in loaded else tuple(loaded["img"].shape[:2]),
            digest=b"" if problem or not encoded else _digest(encoded, 16),
            annotation=_annotation(info, loaded),
            amounts=amounts,
            counted=counted,
            is_ood=bool(info.get("is_ood", False)),
            cues=None if problem else image_cues(encoded or b"", loaded.get("img")),
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


class _DecoderMessages:
    """Catches what libjpeg, libpng and others write to the standard error of this process.

    libjpeg complains about a JPEG with garbled data, which OpenCV returns as if it were complete.
    """

    def __init__(self) -> None:
        self._opened = tempfile.TemporaryFile()  # noqa: SIM115 (open as long as self)
        self._file = self._opened.fileno()
        os.dup2(self._file, 2)
        # Python's warnings are not about the image.
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115

    def take(self) -> str:
        """The first message about damage since the last call; "" if there is none."""
        size = os.lseek(self._file, 0, os.SEEK_END)
        if not size:
            return ""
        text = os.pread(self._file, min(size, 4096), 0).decode(errors="replace")
        os.ftruncate(self._file, 0)
        os.lseek(self._file, 0, os.SEEK_SET)
        lines = (line.strip() for line in text.splitlines())
        return next((line for line in lines if line and not line.startswith(_HARMLESS)), "")


def _loading_transforms(dataset) -> list[Callable]:
    """The transforms of a dataset's pipeline that read files or annotations."""
    steps = getattr(getattr(dataset, "pipeline", None), "transforms", None) or []
    names = [(step, type(step).__name__) for step in steps]
    return [step for step, name in names if name.startswith("Load") or name == "AlignFace"]


def _of_sample(error: Exception, name: str, source: object) -> Remark:
    """Keep the first sentence; the remedies that follow are the same for all of a kind."""
    kind, where = remark_of(error, name, type(source).__name__)
    return Remark(kind, where.split(". ")[0].rstrip("."))


def remark_of(error: Exception, name: str, step: str) -> Remark:
    """Turn an exception into a :class:`Remark`.

    Args:
        error: Caught.
        name: The sample, prepended to messages that do not name it.
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
    """An image that was just read, so it is cached; empty if it is not a local file."""
    try:
        if not os.path.isfile(path):
            return b""
        with open(path, "rb") as file:
            return file.read()
    except OSError:
        return b""


def _unnoticed_problem(info: dict, loaded: dict, encoded: bytes, name: str) -> Remark | None:
    """Problems that loading transforms of other packages do not notice."""
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


def _oddities(encoded: bytes, message: str, steps: Sequence[object], name: str) -> Iterator[Remark]:
    """What is unusual about an image file; ``message`` is that of its decoder."""
    if message:
        yield Remark("image that the decoder complains of", f"{name}: {message}")
    header = read_header(encoded)
    if header is None:
        return
    if header.orientation != 1:
        types = [getattr(step, "color_type", "") for step in steps]
        as_stored = any(kind == "unchanged" or kind.endswith(AS_STORED) for kind in types)
        read = "that is read as stored" if as_stored else "by which it is turned or mirrored"
        kind = f"image with an EXIF orientation {read}: are its annotations too?"
        yield Remark(kind, f"{name}: orientation {header.orientation} of 1 to 8")
    if (most := brightest(encoded, header)) is not None:
        dark = "which is nearly black" if most < DARK else "of which the upper 8 are read"
        yield Remark(f"image of 16 bits, {dark}", f"{name}: values up to {most:,} of 65,535")
    if header.several:
        yield Remark("image file of several pages or frames, of which the first is read", name)


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
