"""Run an exported model in ONNX Runtime."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from negvision.data.face_threshold import FaceThreshold
from negvision.data.images.tiles import Tiles
from negvision.data.score_calibration import ScoreCalibration
from negvision.data.score_threshold import ScoreThreshold
from negvision.errors import ExportError, UserError
from negvision.inference.runtime.images import (
    Prepared,
    Source,
    batched,
    decode,
    load,
    name_of,
    prepare,
    stack,
)
from negvision.inference.runtime.metadata import KEY, Metadata
from negvision.inference.runtime.results import (
    Classification,
    Detections,
    Embedding,
    LabelMap,
    Result,
)

_OUTPUTS = {
    "detection": ("boxes", "scores", "labels", "counts"),
    "segmentation": ("labels",),
    "classification": ("probabilities",),
    "face": ("embeddings",),
}


# From inputs by name to outputs by name, in ONNX Runtime or elsewhere.
Graph = Callable[[Mapping[str, np.ndarray]], dict[str, np.ndarray]]


class ExportedModel:
    """A file that ``negvision export`` wrote, ready to run.

    Args:
        path: ONNX file.
        threads: Threads per operator; 0 for the number of cores.
        providers: Of ONNX Runtime, e.g. ``["CUDAExecutionProvider", "CPUExecutionProvider"]``;
            see :func:`providers_of`.

    Attributes:
        metadata: Metadata of the file, of which ``task``, ``classes``, ``ood_score``,
            ``ood_threshold`` and ``ood_quantiles`` are attributes too.
        score_threshold: From which boxes are shown, or None.
        calibration: Of the scores, or None.
        face_threshold: Similarity from which two faces are one person, or None.
        tiles: In which a detector predicts large images, or None; :meth:`predict` takes tiles as
            they are.

    Raises:
        ExportError: The file does not exist, does not run here, or was not written by negvision.

    With an exported file and two images::

        model = ExportedModel("atss.onnx")
        for found in model.predict(["a.jpg", "b.jpg"], batch_size=2):
            print(len(found), found.boxes[:1], model.classes[found.labels[0]])
    """

    def __init__(
        self,
        path: str | os.PathLike,
        threads: int = 0,
        providers: Sequence[Any] = ("CPUExecutionProvider",),
    ) -> None:
        graph = _Session(str(path), threads, providers)
        metadata = Metadata.from_json(graph.text, str(path))
        missing = [name for name in _OUTPUTS[metadata.task] if name not in graph.names]
        if missing:
            raise ExportError(
                f"model {str(path)!r} has the outputs {', '.join(graph.names)}, but a model for "
                f"{metadata.task} has {', '.join(missing)}. Export it again with negvision export"
            )
        self._set(graph, metadata)

    @classmethod
    def of_graph(cls, graph: Graph, metadata: Metadata) -> ExportedModel:
        """A model whose batches ``graph`` runs."""
        model = cls.__new__(cls)
        model._set(graph, metadata)
        return model

    def _set(self, graph: Graph, metadata: Metadata) -> None:
        self.tiles = Tiles.of(metadata.tiles)
        self.graph = graph
        self.metadata = metadata
        self.task, self.classes = metadata.task, metadata.classes
        self.ood_score, self.ood_threshold = metadata.ood_score, metadata.ood_threshold
        self.ood_quantiles = metadata.ood_quantiles
        known, f1 = metadata.f1_threshold, metadata.best_f1
        self.score_threshold = None if known is None else ScoreThreshold(known, f1)
        scales, offsets = metadata.temperatures, metadata.offsets
        self.calibration = None if scales is None else ScoreCalibration(scales, offsets or ())
        faces = metadata.face_threshold
        own = {} if faces is None else {"face_threshold": faces}
        self.face_threshold = FaceThreshold.of_meta(own, "the exported model")

    @property
    def crop_side(self) -> int:
        """Side of the aligned crops of faces that the model takes, in pixels."""
        how = self.metadata.preprocessing
        return how.size[0] if how.size is not None and how.scale is None else 112

    @property
    def as_stored(self) -> bool:
        """Whether the EXIF orientation of files is ignored."""
        return self.metadata.preprocessing.as_stored

    def decode(self, data: bytes, name: str) -> np.ndarray:
        """Decode an image as :meth:`predict` does; see ``Inferencer.decode``."""
        return decode(data, name, self.as_stored)

    def predict(self, images: Iterable[Source], batch_size: int = 1) -> Iterator[Result]:
        """Predict each image, in order.

        Args:
            images: Files, or (H, W, 3) uint8 BGR arrays.
            batch_size: Largest number of images in a batch. Images of detectors are padded to the
                largest in the batch; the others only batch images of the same size.

        Raises:
            DatasetError: A file cannot be read.
            ExportError: An image does not have the size that the model requires.
        """
        for batch in self.batches(images, batch_size):
            yield from self.run(batch)

    def batches(self, images: Iterable[Source], batch_size: int = 1) -> Iterator[list[Prepared]]:
        """Prepared images, in the batches that :meth:`predict` runs."""
        how = self.metadata.preprocessing
        prepared = (prepare(load(source, how.as_stored), how, name_of(source)) for source in images)
        return batched(prepared, batch_size, self.fits)

    def inputs_of(self, batch: Sequence[Prepared]) -> dict[str, np.ndarray]:
        """The inputs of the graph for a batch."""
        inputs = {"image": stack(batch, self.metadata.preprocessing)}
        if self.task == "detection":
            inputs["sizes"] = np.array([one.size for one in batch], np.int64)
        elif self.task == "segmentation":
            inputs["size"] = np.array(batch[0].size, np.int64)
            inputs["out_size"] = np.array(batch[0].original, np.int64)
        return inputs

    def run(self, batch: Sequence[Prepared]) -> list[Result]:
        """Predict prepared images as one batch."""
        outputs = self.graph(self.inputs_of(batch))
        if self.task == "detection":
            found = [self._detections(outputs, row, one) for row, one in enumerate(batch)]
            return [one.calibrated(self.calibration) for one in found]
        if self.task == "segmentation":
            none = [None] * len(batch)
            columns = (outputs.get("ood_scores", none), outputs.get("scores", none))
            return [
                LabelMap(labels, ood, self._unknown(ood), scores)
                for labels, ood, scores in zip(outputs["labels"], *columns, strict=True)
            ]
        if self.task == "classification":
            rows = outputs["probabilities"]
            scores = (
                outputs["ood_scores"].tolist() if "ood_scores" in outputs else [None] * len(rows)
            )
            return [
                Classification(row, ood, self._unknown(ood)).calibrated(self.calibration)
                for row, ood in zip(rows, scores, strict=True)
            ]
        return [Embedding(vector) for vector in outputs["embeddings"]]

    def fits(self, one: Prepared, other: Prepared) -> bool:
        """Whether two images may run together: only those of detectors are padded to one size."""
        if self.task == "detection":
            return True
        same = self.task != "segmentation" or one.original == other.original
        return one.size == other.size and same

    def _detections(self, outputs: Mapping[str, np.ndarray], row: int, one: Prepared) -> Detections:
        count = int(outputs["counts"][row])
        boxes, scores, labels = (
            outputs[name][row, :count] for name in ("boxes", "scores", "labels")
        )
        ood = outputs["ood_scores"][row, :count] if "ood_scores" in outputs else None
        height, width = one.factors
        # Multiplied by the reciprocals, as in mmdet.
        back = np.array([1 / width, 1 / height] * 2, np.float32)
        return Detections(boxes * back, scores, labels, ood, self._unknown(ood))

    def _unknown(self, scores: Any) -> Any:
        limit = self.ood_threshold
        return None if scores is None or limit is None else scores > limit


class _Session:
    """ONNX Runtime as a :class:`Graph`."""

    def __init__(self, path: str, threads: int, providers: Sequence[Any]) -> None:
        try:
            import onnxruntime
        except ImportError:
            raise ExportError(
                "onnxruntime is not installed: pip install onnxruntime (or onnxruntime-gpu)"
            ) from None
        if not os.path.isfile(path):
            raise ExportError(f"model {path!r} does not exist")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        # Errors only: ONNX Runtime warns about every input with a default.
        options.log_severity_level = 3
        self.path = path
        try:
            self.session = onnxruntime.InferenceSession(path, options, providers=list(providers))
            # Not UTF-8 in a damaged file.
            self.text = self.session.get_modelmeta().custom_metadata_map.get(KEY)
        except Exception as error:  # each kind of error has its own class
            raise ExportError(
                f"model {path!r} cannot be opened by ONNX Runtime: {_first_line(error)}"
            ) from None
        self.names = [output.name for output in self.session.get_outputs()]

    def __call__(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        try:
            outputs: Any = self.session.run(None, dict(inputs))
        except Exception as error:  # each kind of error has its own class
            raise ExportError(
                f"model {self.path!r} cannot be run by ONNX Runtime: {_first_line(error)}"
            ) from None
        return dict(zip(self.names, outputs, strict=True))


def providers_of(device: str) -> list[Any]:
    """The providers of ONNX Runtime for ``device``, as torch names it.

    Raises:
        UserError: The name is wrong, or this ONNX Runtime does not support the device.

    Example:
        >>> providers_of("cpu")
        ['CPUExecutionProvider']
    """
    match = re.fullmatch(r"cpu|cuda(?::(\d+))?", device)
    if match is None:
        raise UserError(f"device {device!r}: exported models run on cpu, cuda or cuda:NUMBER")
    if device == "cpu":
        return ["CPUExecutionProvider"]
    import onnxruntime

    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        raise UserError(
            f"device {device!r}: this ONNX Runtime does not support CUDA. Replace onnxruntime "
            "with onnxruntime-gpu, or use --device cpu"
        )
    return [("CUDAExecutionProvider", {"device_id": match[1] or "0"}), "CPUExecutionProvider"]


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
