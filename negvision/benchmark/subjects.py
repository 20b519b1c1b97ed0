"""A model, ready to run in one of the ways that are compared, on the same pictures as in others."""

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from negvision.export.parity import pictures
from negvision.inference.devices import providers_of
from negvision.inference.runtime import ExportedModel, Metadata
from negvision.inference.runtime.results import Result

KINDS = ("eager", "compiled", "onnxruntime")
# Names in the folder of a setup.
CONFIG, WEIGHTS, ONNX = "config.py", "weights.pth", "model.onnx"
# With fewer pictures, one that is full of boxes, or has none, would decide.
_FEWEST = 4


@dataclass(frozen=True)
class Setup:
    """What all ways to run a model share; processes hand it on as JSON.

    Attributes:
        folder: With the config, whose test pipeline resizes to ``size``, and its weights, or with
            the ONNX file.
        task: As in :class:`negvision.inference.runtime.Metadata`.
        size: Height and width of the pictures.
        batch_size: Pictures that run together.
        device: "cpu", "cuda" or "cuda:NUMBER".
        threads: Of one operator on a CPU.
    """

    folder: str
    task: str
    size: tuple[int, int]
    batch_size: int
    device: str
    threads: int

    def to_json(self) -> str:
        """Read by :meth:`from_json`."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "Setup":
        """What :meth:`to_json` wrote."""
        own = json.loads(text)
        return cls(**{**own, "size": tuple(own["size"])})

    def file(self, name: str) -> Path:
        """A file of the folder."""
        return Path(self.folder) / name

    def pictures(self) -> list[np.ndarray]:
        """Whole batches of (H, W, 3) uint8 with blue first."""
        count = -(-_FEWEST // self.batch_size) * self.batch_size
        if self.task == "face":
            return list(pictures.crops(count, self.size).values())
        drawn = pictures.scenes(count).values()
        return [cv2.resize(one, self.size[::-1]) for one in drawn]


@dataclass(frozen=True)
class Subject:
    """One way to run a model.

    Attributes:
        batches: Number of its batches.
        run: From the number of a batch, which lies normalised in memory, to what the model says
            about it. This is what is timed.
        results: What it says about each picture.
        weights: Bytes of its weights, where they were in memory before it first ran.
        metadata: Of an exported model.
    """

    batches: int
    run: Callable[[int], Any]
    results: Callable[[], list[Result]]
    weights: int = 0
    metadata: Metadata | None = None


def build(kind: str, setup: Setup) -> Subject:
    """The subject of a kind of ``KINDS``."""
    if kind == "onnxruntime":
        return _exported(setup)
    return _in_torch(setup, compiled=kind == "compiled")


def _exported(setup: Setup) -> Subject:
    opened = ExportedModel(setup.file(ONNX), setup.threads, providers_of(setup.device))
    # The pictures have their size already.
    as_drawn = replace(opened.metadata.preprocessing, scale=None)
    metadata = replace(opened.metadata, preprocessing=as_drawn)
    model = ExportedModel.of_graph(opened.graph, metadata)
    batches = list(model.batches(setup.pictures(), setup.batch_size))
    inputs = [model.inputs_of(batch) for batch in batches]
    return Subject(
        len(batches),
        lambda number: model.graph(inputs[number]),
        lambda: [result for batch in batches for result in model.run(batch)],
        metadata=metadata,
    )


def _in_torch(setup: Setup, compiled: bool) -> Subject:
    # Here, so that a process that runs an ONNX file does not hold torch.
    import torch
    from mmengine.dataset import pseudo_collate

    from negvision.engine.compiling import compile_parts
    from negvision.engine.config.reading import load_config
    from negvision.inference.torch_model import TorchModel
    from negvision.inference.weights import load_model

    torch.set_num_threads(setup.threads)
    cfg = load_config(setup.file(CONFIG))
    module, _ = load_model(cfg, setup.file(WEIGHTS))
    module.to(setup.device)
    if compiled:
        compile_parts(module, {})
    model = TorchModel(cfg, module)
    batches = list(model.batches(setup.pictures(), setup.batch_size))
    inputs = [module.data_preprocessor(pseudo_collate(batch), False) for batch in batches]

    @torch.no_grad()
    def run(number: int) -> Any:
        samples = module(**inputs[number], mode="predict")
        if setup.device != "cpu":
            torch.cuda.synchronize()
        return samples

    return Subject(
        len(batches),
        run,
        lambda: [result for batch in batches for result in model.run(batch)],
        weights=sum(_bytes(module.parameters())) + sum(_bytes(module.buffers())),
    )


def _bytes(tensors) -> Iterator[int]:
    for tensor in tensors:
        yield tensor.numel() * tensor.element_size()
