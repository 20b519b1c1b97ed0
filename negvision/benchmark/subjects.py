"""The ways to run a model that are compared, all on the same images."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from negvision.export import sample_images
from negvision.inference.runtime import ExportedModel, Metadata
from negvision.inference.runtime.model import providers_of
from negvision.inference.runtime.results import Result

KINDS = ("eager", "compiled", "onnxruntime")
# File names in the folder of a setup.
CONFIG, WEIGHTS, ONNX = "config.py", "weights.pth", "model.onnx"
# With fewer images, one with many boxes or none would dominate.
_FEWEST = 4


@dataclass(frozen=True)
class Setup:
    """How a model is run: height and width, task, and number of threads.

    ``folder`` holds the config, whose test pipeline resizes to ``size``, and the weights, or the
    ONNX file.
    """

    size: tuple[int, int]
    task: str
    folder: Path
    batch_size: int = 1
    device: str = "cpu"
    threads: int = 1


def images_of(setup: Setup) -> list[np.ndarray]:
    """Full batches of (H, W, 3) uint8 images, blue first."""
    count = -(-_FEWEST // setup.batch_size) * setup.batch_size
    if setup.task == "face":
        return list(sample_images.crops(count, setup.size).values())
    return [cv2.resize(one, setup.size[::-1]) for one in sample_images.scenes(count).values()]


@dataclass(frozen=True)
class Subject:
    """One way to run a model.

    ``run``, which is timed, predicts a batch, given its number; the batch is normalized and in
    memory. ``results`` predicts each image. ``weights`` is their size in bytes if they are in
    memory before the first run, else 0. ``metadata`` is that of an exported model.
    """

    batches: int
    run: Callable[[int], Any]
    results: Callable[[], list[Result]]
    weights: int = 0
    metadata: Metadata | None = None

    def run_all(self) -> None:
        """Run every batch once."""
        for number in range(self.batches):
            self.run(number)


def build(kind: str, setup: Setup) -> Subject:
    """The subject of a kind in ``KINDS``."""
    if kind == "onnxruntime":
        return _exported(setup)
    return _in_torch(setup, compiled=kind == "compiled")


def _exported(setup: Setup) -> Subject:
    opened = ExportedModel(setup.folder / ONNX, setup.threads, providers_of(setup.device))
    # The images already have their final size.
    unscaled = replace(opened.metadata.preprocessing, scale=None)
    metadata = replace(opened.metadata, preprocessing=unscaled)
    model = ExportedModel.of_graph(opened.graph, metadata)
    batches = list(model.batches(images_of(setup), setup.batch_size))
    inputs = [model.inputs_of(batch) for batch in batches]
    return Subject(
        len(batches),
        lambda number: model.graph(inputs[number]),
        lambda: [result for batch in batches for result in model.run(batch)],
        metadata=metadata,
    )


def _in_torch(setup: Setup, compiled: bool) -> Subject:
    # Imported here, so that a process for ONNX Runtime does not load torch.
    import torch
    from mmengine.dataset import pseudo_collate

    from negvision.engine.compiling import compile_parts
    from negvision.engine.config.reading import load_config
    from negvision.inference.torch_model import TorchModel
    from negvision.inference.weights import load_model

    torch.set_num_threads(setup.threads)
    cfg = load_config(setup.folder / CONFIG)
    module, _ = load_model(cfg, setup.folder / WEIGHTS)
    module.to(setup.device)
    if compiled:
        compile_parts(module, {})
    model = TorchModel(cfg, module)
    batches = list(model.batches(images_of(setup), setup.batch_size))
    inputs = [module.data_preprocessor(pseudo_collate(batch), False) for batch in batches]

    @torch.no_grad()
    def run(number: int) -> Any:
        samples = module(**inputs[number], mode="predict")
        if setup.device != "cpu":
            torch.cuda.synchronize()
        return samples

    tensors = itertools.chain(module.parameters(), module.buffers())
    return Subject(
        len(batches),
        run,
        lambda: [result for batch in batches for result in model.run(batch)],
        weights=sum(tensor.numel() * tensor.element_size() for tensor in tensors),
    )
