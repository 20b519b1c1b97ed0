"""An exported model: from image files to what is on them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Protocol

import numpy as np

from negvision.errors import ExportError
from negvision.inference.runtime.images import Source, named, read_image, require_pixels
from negvision.inference.runtime.metadata import KEY, Metadata
from negvision.inference.runtime.preparing import Prepared, batched, prepare, stack
from negvision.inference.runtime.results import Detections, Embedding, LabelMap, Result

_OUTPUTS = {
    "detection": ("boxes", "scores", "labels", "counts"),
    "segmentation": ("labels",),
    "face": ("embeddings",),
}


class Graph(Protocol):
    """What runs a batch: ONNX Runtime or another."""

    def __call__(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Outputs by name, of inputs by name."""


class ExportedModel:
    """A file that ``tools/export.py`` wrote, ready to run.

    Args:
        path: ONNX file.
        threads: For one operator; 0 for as many as there are cores.
        providers: Of ONNX Runtime, e.g. ``["CUDAExecutionProvider", "CPUExecutionProvider"]``.

    Attributes:
        metadata: What the file says about itself.
        classes: Names of the classes, in the order of labels.

    Raises:
        ExportError: There is no such file, it is no ONNX model that runs here, or not of negvision.

    Example:
        >>> model = ExportedModel("atss.onnx")
        >>> for found in model.predict(["a.jpg", "b.jpg"], batch_size=2):
        ...     print(len(found), found.boxes[:1], model.classes[found.labels[0]])
    """

    def __init__(
        self,
        path: str | os.PathLike,
        threads: int = 0,
        providers: Sequence[str] = ("CPUExecutionProvider",),
    ) -> None:
        session = _open(str(path), threads, providers)
        metadata = Metadata.from_json(_properties(session, path), str(path))
        graph = _Session(session, str(path))
        missing = [name for name in _OUTPUTS[metadata.task] if name not in graph.names]
        if missing:
            raise ExportError(
                f"model {str(path)!r} has the outputs {', '.join(graph.names)}; one for "
                f"{metadata.task} has {', '.join(missing)}. Export it anew with tools/export.py"
            )
        self._set(graph, metadata)

    @classmethod
    def of_graph(cls, graph: Graph, metadata: Metadata) -> ExportedModel:
        """A model whose batches ``graph`` runs."""
        model = cls.__new__(cls)
        model._set(graph, metadata)
        return model

    def _set(self, graph: Graph, metadata: Metadata) -> None:
        self.graph = graph
        self.metadata = metadata
        self.classes = metadata.classes

    def predict(self, images: Iterable[Source], batch_size: int = 1) -> Iterator[Result]:
        """Results of images, one each and in their order.

        Args:
            images: Files, or arrays (H, W, 3) uint8 with blue first.
            batch_size: Images of detectors are padded to the largest of their batch; those of
                segmentors run together where they are of one size.

        Raises:
            DatasetError: A file cannot be read.
            ExportError: An image is not of the size that the model is made for.
        """
        for batch in self.batches(images, batch_size):
            yield from self.run(batch)

    def batches(self, images: Iterable[Source], batch_size: int = 1) -> Iterator[list[Prepared]]:
        """Images, prepared, as :meth:`predict` runs them together."""
        how = self.metadata.preprocessing
        prepared = (prepare(_pixels(source), how, named(source)) for source in images)
        return batched(prepared, batch_size, self._fits)

    def inputs_of(self, batch: Sequence[Prepared]) -> dict[str, np.ndarray]:
        """What the graph takes for a batch."""
        inputs = {"image": stack(batch, self.metadata.preprocessing)}
        if self.metadata.task == "detection":
            inputs["sizes"] = np.array([one.size for one in batch], np.int64)
        elif self.metadata.task == "segmentation":
            inputs["size"] = np.array(batch[0].size, np.int64)
            inputs["out_size"] = np.array(batch[0].original, np.int64)
        return inputs

    def run(self, batch: Sequence[Prepared]) -> list[Result]:
        """Results of prepared images as one batch."""
        outputs = self.graph(self.inputs_of(batch))
        if self.metadata.task == "detection":
            return [self._detections(outputs, row, one) for row, one in enumerate(batch)]
        if self.metadata.task == "segmentation":
            scores = outputs.get("ood_scores", [None] * len(batch))
            return [
                LabelMap(labels, ood, self._unknown(ood))
                for labels, ood in zip(outputs["labels"], scores, strict=True)
            ]
        return [Embedding(vector) for vector in outputs["embeddings"]]

    def _fits(self, one: Prepared, other: Prepared) -> bool:
        """Whether two images may run together."""
        if self.metadata.task != "segmentation":
            return True
        return one.size == other.size and one.original == other.original

    def _detections(self, outputs: Mapping[str, np.ndarray], row: int, one: Prepared) -> Detections:
        count = int(outputs["counts"][row])
        boxes, scores, labels = (
            outputs[name][row, :count] for name in ("boxes", "scores", "labels")
        )
        ood = outputs["ood_scores"][row, :count] if "ood_scores" in outputs else None
        height, width = one.factors
        # As mmdet: multiplied by the reciprocals.
        back = np.array([1 / width, 1 / height] * 2, np.float32)
        return Detections(boxes * back, scores, labels, ood, self._unknown(ood))

    def _unknown(self, scores: np.ndarray | None) -> np.ndarray | None:
        threshold = self.metadata.ood_threshold
        return None if scores is None or threshold is None else scores > threshold


class _Session:
    """ONNX Runtime as a :class:`Graph`."""

    def __init__(self, session, path: str) -> None:
        self.session = session
        self.path = path
        self.names = [output.name for output in session.get_outputs()]

    def __call__(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        try:
            outputs = self.session.run(None, dict(inputs))
        except Exception as error:  # a class of its own for each kind
            raise ExportError(
                f"model {self.path!r} cannot be run by ONNX Runtime: {_first_line(error)}"
            ) from None
        return dict(zip(self.names, outputs, strict=True))


def _open(path: str, threads: int, providers: Sequence[str]):
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
    # Errors alone: it warns of every input that may be left out.
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(path, options, providers=list(providers))
    except Exception as error:  # a class of its own for each kind
        raise ExportError(
            f"model {path!r} cannot be opened by ONNX Runtime: {_first_line(error)}"
        ) from None


def _properties(session, path: str | os.PathLike) -> str | None:
    try:
        return session.get_modelmeta().custom_metadata_map.get(KEY)
    except UnicodeDecodeError as error:
        raise ExportError(f"model {str(path)!r} is damaged: its metadata: {error}") from None


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def _pixels(source: Source) -> np.ndarray:
    return require_pixels(source) if isinstance(source, np.ndarray) else read_image(source)
