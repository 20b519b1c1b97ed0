"""All costs of a model, from a config or an exported file."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
import onnxruntime
import torch
from mmengine.config import Config
from mmengine.model import BaseModel
from torch.utils.flop_counter import FlopCounterMode

from negvision.benchmark.measure import Log, Row, measure, table
from negvision.benchmark.subjects import CONFIG, KINDS, ONNX, WEIGHTS, Setup, build
from negvision.engine.checkpoints.provenance import provenance
from negvision.errors import UserError
from negvision.export.formats import OLDEST_OPSET, save, write_onnx
from negvision.export.graphs.choice import graph_and_metadata
from negvision.export.graphs.faces import face_size
from negvision.face.recognizer import FaceRecognizer
from negvision.inference.pipeline import kind_of, test_pipeline
from negvision.inference.runtime import ExportedModel
from negvision.inference.torch_model import task_of
from negvision.inference.weights import build_model, load_model

Size = tuple[int, int]


@dataclass(frozen=True)
class Cost:
    """What a model costs, with a row for each way to run it.

    ``parameters`` counts learned values, in an exported file floats. ``operations`` are those of
    :func:`operations_of` per image, None for an exported file.
    """

    name: str
    setup: Setup
    parameters: int
    operations: int | None
    rows: dict[str, Row]

    @property
    def differs(self) -> bool:
        """Whether any row predicts something else than PyTorch."""
        return any(row.beyond for row in self.rows.values())

    def to_dict(self) -> dict:
        """For JSON."""
        names = ("task", "size", "batch_size", "device", "threads")
        return {
            "model": self.name,
            **{name: getattr(self.setup, name) for name in names},
            "parameters": self.parameters,
            "operations_per_image": self.operations,
            "rows": {kind: row.to_dict() for kind, row in self.rows.items()},
            "versions": {**provenance()["versions"], "onnxruntime": onnxruntime.__version__},
        }

    def text(self) -> str:
        """For the terminal."""
        setup = self.setup
        threads = f", {setup.threads} threads" if setup.device == "cpu" else ""
        counts = f"{self.parameters / 1e6:.3g} million weights"
        if self.operations is not None:
            counts += f", {self.operations / 1e9:.3g} GFLOP per image"
        return (
            f"{self.name}: {setup.task}, {setup.size[0]} x {setup.size[1]} pixels (height x "
            f"width), batches of {setup.batch_size}, {setup.device}{threads}\n{counts}\n\n"
            f"{table(self.rows)}"
        )


def cost_of_config(
    cfg: Config,
    name: str,
    checkpoint: str | None,
    log: Log,
    seconds: float = 20,
    size: Size | None = None,
    **how: Any,
) -> Cost:
    """Measure the model of a config: in PyTorch, compiled, and exported to ONNX Runtime.

    Args:
        cfg: Checked.
        name: Of the config.
        checkpoint: Its weights, or None for random ones.
        log: Receives the name of each step.
        seconds: Measuring time for each way to run the model.
        size: Height and width of the images, or None for the size in the test pipeline.
        how: ``batch_size``, ``device``, ``threads`` of :class:`negvision.benchmark.subjects.Setup`.

    Raises:
        UserError: The model cannot run in PyTorch; for other ways, the row has the reason.
    """
    with tempfile.TemporaryDirectory(prefix="negvision_") as name_of_folder:
        folder = Path(name_of_folder)
        model, size = write_model(cfg, checkpoint, size, folder)
        setup = Setup(size, task_of(model), folder, **how)
        kinds = dict.fromkeys(KINDS) | {"onnxruntime": lambda: write_exported(folder)}
        rows = measure(kinds, setup, seconds, log)
        eager = build("eager", setup)
        operations = operations_of(lambda: eager.run(0)) // setup.batch_size
        parameters = sum(parameter.numel() for parameter in model.parameters())
        weights = "random weights" if checkpoint is None else Path(checkpoint).name
        return Cost(f"{name}, {weights}", setup, parameters, operations, rows)


def cost_of_file(
    file: Path, log: Log, seconds: float = 20, size: Size | None = None, **how: Any
) -> Cost:
    """Measure an exported model in ONNX Runtime, with arguments as in :func:`cost_of_config`.

    Raises:
        ExportError: The file was not exported by negvision.
        UserError: The model cannot run.
    """
    metadata = ExportedModel(file).metadata
    own = metadata.preprocessing
    size = size or own.size or _size_of(own.scale, own.keep_ratio, str(file))
    with tempfile.TemporaryDirectory(prefix="negvision_") as folder:
        shutil.copyfile(file, Path(folder) / ONNX)
        setup = Setup(size, metadata.task, Path(folder), **how)
        rows = measure({"onnxruntime": None}, setup, seconds, log)
        return Cost(file.name, setup, weights_of(file), None, rows)


def weights_of(file: Path) -> int:
    """Number of floating-point values in an ONNX file, folded normalization included."""
    kinds = {onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.INT8}
    tensors = [one for one in onnx.load(file).graph.initializer if one.data_type in kinds]
    return sum(torch.Size(tensor.dims).numel() for tensor in tensors)


def operations_of(run: Callable[[], Any]) -> int:
    """Floating-point operations of a call, as counted by torch.

    Counts convolutions and matrix products, two operations per multiply-add. Normalization,
    activations, RoIAlign, NMS, and deformable convolutions count as 0.
    """
    with FlopCounterMode(display=False) as counter:
        run()
    return counter.get_total_flops()


def write_model(
    cfg: Config, checkpoint: str | None, size: Size | None, folder: Path
) -> tuple[BaseModel, Size]:
    """Write the config and the weights of a model into ``folder``, as :func:`cost_of_config`.

    Returns:
        The model in evaluation mode, and height and width.

    Raises:
        UserError: The test pipeline has no size.
    """
    if checkpoint is None:
        torch.manual_seed(0)
        model = build_model(cfg).eval()
    else:
        model, _ = load_model(cfg, checkpoint)
    pipeline = test_pipeline(cfg)
    if size is None:
        size = _size_in(pipeline, model)
    pipeline = [
        {"type": step["type"], "scale": size[::-1], "keep_ratio": False}
        if kind_of(step) == "Resize"
        else step
        for step in pipeline
    ]
    cfg = cfg.copy()
    cfg.test_dataloader = {"dataset": {"type": "any", "pipeline": pipeline}}
    cfg.dump(folder / CONFIG)
    torch.save({"state_dict": model.state_dict()}, folder / WEIGHTS)
    return model, size


def write_exported(folder: Path) -> None:
    """Export what :func:`write_model` wrote into the same folder."""
    cfg = Config.fromfile(folder / CONFIG)
    model, meta = load_model(cfg, folder / WEIGHTS)
    graph, metadata = graph_and_metadata(cfg, model, meta)
    save(write_onnx(graph, metadata, OLDEST_OPSET), folder / ONNX)


def _size_of(scale: Sequence[int] | None, keep_ratio: bool, name: str) -> Size:
    """Height and width of the largest image after resizing to ``scale``, width and height."""
    if scale is None:
        raise UserError(f"{name} does not resize images; give their size: --size HEIGHT WIDTH")
    width, height = (max(scale), min(scale)) if keep_ratio else scale
    return height, width


def _size_in(pipeline: list[dict], model: BaseModel) -> Size:
    if isinstance(model, FaceRecognizer):
        return face_size(model, None)
    resize = next((step for step in pipeline if kind_of(step) == "Resize"), {})
    scale = resize.get("scale")
    scale = (scale, scale) if isinstance(scale, int) else scale
    return _size_of(scale, resize.get("keep_ratio", False), "the test pipeline of the config")
