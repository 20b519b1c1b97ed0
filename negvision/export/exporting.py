"""One export from start to finish: graph, file, comparison, and only then the final file name."""

import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path

import onnx
from mmengine.config import Config

from negvision.errors import ExportError
from negvision.export import formats, precision, sample_images
from negvision.export.formats import OLDEST_OPSET, SUFFIXES, save, write_onnx
from negvision.export.graphs.choice import Exportable, graph_and_metadata
from negvision.export.parity import TOLERANCES, check_defaults, compare
from negvision.files import staged, write_reason
from negvision.inference.runtime import ExportedModel, Metadata
from negvision.inference.torch_model import TorchModel
from negvision.inference.weights import load_model
from negvision.visualization import shown_path

# Each image runs in batches of one and of four: hundreds would take minutes.
_MOST_COMPARED = 64
_GENERATED = 10


class ParityError(ExportError):
    """The exported model and the PyTorch model differ."""


@dataclass(frozen=True)
class Request:
    """The options of an export.

    Attributes:
        out: The file.
        format: One of :data:`negvision.export.formats.SUFFIXES`.
        precision: "fp32", "fp16" or "int8".
        opset: Of ONNX.
        legacy: Use the TorchScript exporter.
        images: Folder of images to compare on, or None for generated ones.
        calibration: Folder of images on which int8 measures ranges.
    """

    out: Path
    format: str = "onnx"
    precision: str = "fp32"
    opset: int = OLDEST_OPSET
    legacy: bool = False
    images: Path | None = None
    calibration: Path | None = None

    def check(self) -> None:
        """Raise ExportError for options that conflict, or files and packages that are missing."""
        suffix = SUFFIXES[self.format]
        if self.out.suffix != suffix or self.out.name == suffix:
            raise ExportError(f"--out {self.out}: --format {self.format} writes NAME{suffix}")
        if self.format == "openvino" and find_spec("openvino") is None:
            raise ExportError("--format openvino needs the package openvino: pip install openvino")
        newest = onnx.defs.onnx_opset_version()
        if not OLDEST_OPSET <= self.opset <= newest:
            raise ExportError(
                f"--opset {self.opset}: give a version from {OLDEST_OPSET}, the oldest of torch's "
                f"exporter, to {newest}, the newest that onnx {onnx.__version__} knows"
            )
        allowed = {"onnx": ("fp32", "fp16", "int8"), "openvino": ("fp32", "fp16")}
        if self.precision not in allowed.get(self.format, ("fp32",)):
            raise ExportError(
                f"--format {self.format} does not support --precision {self.precision}; onnx does"
            )
        if self.legacy and self.precision != "fp32":
            raise ExportError(
                "--legacy supports fp32 only: its graphs do not say which nodes belong to the "
                "network"
            )
        if self.legacy and self.format == "torchexport":
            raise ExportError("--legacy selects an ONNX exporter; it has no effect on torchexport")
        if (self.precision == "int8") != (self.calibration is not None):
            raise ExportError(
                "--precision int8 and --calibration DIR go together: int8 measures the ranges of "
                "activations on typical images"
            )
        for folder in (self.images, self.calibration):
            if folder is not None:
                sample_images.images_in(folder)


def export(
    cfg: Config,
    checkpoint: str | Path,
    request: Request,
    report: Callable[[str], None],
    trust: bool = False,
    evaluate: Callable[[Path], dict[str, float]] | None = None,
) -> None:
    """Write the file of ``request``.

    Args:
        cfg: A checked config.
        checkpoint: Its weights.
        request: Checked.
        report: Called with lines of text.
        trust: Unpickle any object in the checkpoint.
        evaluate: Metrics of an ONNX file on the test set; for int8.

    Raises:
        ExportError: The model cannot be exported. No file is written.
        ParityError: The exported model differs from PyTorch. No file is written.
    """
    report(f"exporting {shown_path(checkpoint)} as {request.format}, {request.precision}")
    model, meta = load_model(cfg, checkpoint, trust)
    graph, metadata = graph_and_metadata(cfg, model, meta, request.precision)
    reference = TorchModel(cfg, model)
    tolerance = TOLERANCES.get(request.precision)
    try:
        with (
            staged(request.out.parent) as folder,
            tempfile.TemporaryDirectory(prefix="negvision_") as scratch,
        ):
            path = folder / request.out.name
            files = _images(metadata, request.images, Path(scratch), report)
            runner = _write(graph, metadata, request, path, Path(scratch), evaluate, report)
            # Scores are compared as the networks give them, and so is the reference.
            runner.calibration = None
            found = compare(runner, reference, files, (tolerance or TOLERANCES["fp16"]).score)
            report(f"compared with PyTorch: {found.line()}")
            if request.format == "onnx":
                check_defaults(runner, files[0])
            beyond = found.beyond(tolerance) if tolerance else []
            if beyond:
                raise ParityError(
                    f"{request.out} was not written, because it differs from PyTorch: "
                    + "; ".join(beyond)
                )
            size = sum(part.stat().st_size for part in folder.iterdir())
    except OSError as error:
        raise ExportError(
            f"--out {request.out}: cannot be written: {write_reason(error)}. Choose another file"
        ) from None
    report(f"{request.out}: {_summary(metadata, request)}, {size / 1e6:.1f} MB")


def _write(
    graph: Exportable,
    metadata: Metadata,
    request: Request,
    path: Path,
    scratch: Path,
    evaluate: Callable[[Path], dict[str, float]] | None,
    report: Callable[[str], None],
) -> ExportedModel:
    """Write ``path`` and return the model that runs it."""
    if request.format == "torchexport":
        return ExportedModel.of_graph(formats.write_torchexport(graph, metadata, path), metadata)
    if request.format == "openvino":
        # It takes an input with a default for a constant.
        graph = replace(graph, defaults={})
        save(write_onnx(graph, metadata, request.opset, request.legacy), scratch / "model.onnx")
        run = formats.write_openvino(scratch / "model.onnx", graph, metadata, path)
        return ExportedModel.of_graph(run, metadata)
    model = write_onnx(graph, metadata, request.opset, request.legacy)
    if request.precision != "fp32":
        network = precision.network_nodes(model, graph.module)
        if request.precision == "fp16":
            model = precision.to_fp16(model, network)
        elif request.calibration is not None and evaluate is not None:
            save(model, scratch / "fp32.onnx")
            calibration = sample_images.images_in(request.calibration)
            if len(calibration) > precision.MOST_CALIBRATION_IMAGES:
                report(
                    f"--calibration {request.calibration}: the first "
                    f"{precision.MOST_CALIBRATION_IMAGES} of {len(calibration):,} images"
                )
            model = precision.to_int8(model, network, calibration)
            save(model, scratch / "int8.onnx")
            before, after = (evaluate(scratch / f"{name}.onnx") for name in ("fp32", "int8"))
            for name in before.keys() & after.keys():
                old, new = before[name], after[name]
                report(f"{name}: {old:.4g} in fp32, {new:.4g} in int8, {new - old:+.4g}")
    save(model, path)
    try:
        return ExportedModel(path)
    except ExportError as error:
        raise ExportError(
            f"the file written with --opset {request.opset} does not run here: {error}. "
            f"--opset {OLDEST_OPSET} is the tested version"
        ) from None


def _images(
    metadata: Metadata, folder: Path | None, scratch: Path, report: Callable[[str], None]
) -> list[Path]:
    if folder is not None:
        files = sample_images.images_in(folder)
        count = min(_MOST_COMPARED, len(files))
        if count < len(files):
            report(f"--images {folder}: {count} of {len(files):,} images, evenly spread")
        return [files[number * len(files) // count] for number in range(count)]
    size = metadata.preprocessing.size if metadata.task == "face" else None
    return sample_images.write_samples(scratch, _GENERATED, size)


def _summary(metadata: Metadata, request: Request) -> str:
    parts = [metadata.task, metadata.precision]
    if metadata.classes:
        parts.insert(1, f"{len(metadata.classes)} classes")
    if metadata.ood_score:
        threshold = metadata.ood_threshold
        parts.append(
            f"OOD score {metadata.ood_score}"
            + (" without a threshold" if threshold is None else f", unknown above {threshold:.4g}")
        )
    if request.format != "torchexport":
        parts.append(f"opset {request.opset}")
    return ", ".join(parts)
