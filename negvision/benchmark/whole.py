"""All costs of a model, from a config or an exported file."""

import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import onnxruntime
import torch
from mmengine.config import Config

from negvision.benchmark.counting import operations_of, parameters_of, weights_of
from negvision.benchmark.measure import Row, measure
from negvision.benchmark.preparing import lay_out, size_of, write_exported
from negvision.benchmark.subjects import KINDS, ONNX, Setup, build
from negvision.benchmark.table import table
from negvision.engine.checkpoints.provenance import provenance
from negvision.inference.runtime import ExportedModel
from negvision.inference.torch_model import task_of

Tell = Callable[[str], None]


@dataclass(frozen=True)
class Options:
    """How a model is run.

    Attributes:
        size: Height and width of the pictures, or None for those of the test pipeline.
        batch_size: Pictures at once.
        device: "cpu", "cuda" or "cuda:NUMBER".
        threads: Of one operator on a CPU, or None for torch's number.
        seconds: To time each way to run it.
    """

    size: tuple[int, int] | None = None
    batch_size: int = 1
    device: str = "cpu"
    threads: int | None = None
    seconds: float = 20

    def setup(self, folder: str, task: str, size: tuple[int, int]) -> Setup:
        """With what the model told."""
        threads = self.threads or torch.get_num_threads()
        return Setup(folder, task, size, self.batch_size, self.device, threads)


@dataclass(frozen=True)
class Cost:
    """What a model costs.

    Attributes:
        name: Of the model, with its weights.
        setup: How it was run.
        parameters: How many numbers it learns; of an exported file, how many it holds.
        operations: Of one image, see :func:`negvision.benchmark.counting.operations_of`; None where
            there is no PyTorch to count them.
        rows: By the way to run it.
    """

    name: str
    setup: Setup
    parameters: int
    operations: int | None
    rows: dict[str, Row]

    @property
    def differs(self) -> bool:
        """Whether a row finds something else than PyTorch."""
        return any(row.beyond for row in self.rows.values())

    def to_dict(self) -> dict:
        """For JSON."""
        own = self.setup
        return {
            "model": self.name,
            "task": own.task,
            "size": list(own.size),
            "batch_size": own.batch_size,
            "device": own.device,
            "threads": own.threads,
            "parameters": self.parameters,
            "operations_per_image": self.operations,
            "rows": {kind: row.to_dict() for kind, row in self.rows.items()},
            "versions": {**provenance()["versions"], "onnxruntime": onnxruntime.__version__},
        }

    def text(self) -> str:
        """For people."""
        own = self.setup
        threads = f", {own.threads} threads" if own.device == "cpu" else ""
        counts = f"{self.parameters / 1e6:.3g} million weights"
        if self.operations is not None:
            counts += f", {self.operations / 1e9:.3g} GFLOP an image"
        return (
            f"{self.name}: {own.task}, {own.size[0]} x {own.size[1]} pixels (height x width), "
            f"batches of {own.batch_size}, {own.device}{threads}\n{counts}\n\n{table(self.rows)}"
        )


def cost_of_config(
    cfg: Config, name: str, checkpoint: str | None, options: Options, tell: Tell
) -> Cost:
    """Costs of the model of a config: in PyTorch, compiled, and exported to ONNX Runtime.

    Args:
        cfg: Checked.
        name: Of the config.
        checkpoint: Its weights, or None for random ones.
        options: How it is run.
        tell: Is given the name of each step.

    Raises:
        UserError: It cannot be run in PyTorch; of the others the reason stands in their row.
    """
    with tempfile.TemporaryDirectory(prefix="negvision_") as folder:
        model, size = lay_out(cfg, checkpoint, options.size, Path(folder))
        setup = options.setup(folder, task_of(model), size)
        before = dict.fromkeys(KINDS, _nothing)
        before["onnxruntime"] = lambda: write_exported(Path(folder))
        rows = measure(before, setup, options.seconds, tell)
        eager = build("eager", setup)
        operations = operations_of(lambda: eager.run(0)) // setup.batch_size
        weights = "random weights" if checkpoint is None else Path(checkpoint).name
        return Cost(f"{name}, {weights}", setup, parameters_of(model), operations, rows)


def cost_of_file(file: Path, options: Options, tell: Tell) -> Cost:
    """Costs of an exported model in ONNX Runtime.

    Raises:
        ExportError: The file is no model of negvision.
        UserError: It cannot be run.
    """
    metadata = ExportedModel(file).metadata
    size = options.size or size_of(metadata.preprocessing, str(file))
    with tempfile.TemporaryDirectory(prefix="negvision_") as folder:
        shutil.copyfile(file, Path(folder) / ONNX)
        setup = options.setup(folder, metadata.task, size)
        rows = measure({"onnxruntime": _nothing}, setup, options.seconds, tell)
        return Cost(file.name, setup, weights_of(file), None, rows)


def _nothing() -> None:
    """Has to be done before most ways to run a model."""
