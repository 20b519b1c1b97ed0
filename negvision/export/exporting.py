"""One export from beginning to end: graph, file, comparison, and only then the file's own name."""

import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import onnx
from mmengine.config import Config

from negvision.errors import ExportError
from negvision.export import formats, narrow
from negvision.export.describe import graph_and_metadata
from negvision.export.files import moved_when_good
from negvision.export.graphs.choice import Exportable
from negvision.export.onnx_file import OLDEST_OPSET, check_opset, save, write_onnx
from negvision.export.parity import pictures
from negvision.export.parity.compare import TOLERANCES, compare
from negvision.inference.runtime import ExportedModel, Metadata
from negvision.inference.torch_model import TorchModel
from negvision.inference.weights import load_model

PRECISIONS = ("fp32", "fp16", "int8")
# So many pictures that come with the suite are compared on.
# Of a folder: with each in batches of one and of four, hundreds would take minutes.
MOST_COMPARED = 64
_EMBEDDED = 10
Tell = Callable[[str], None]
Evaluate = Callable[[Path], dict[str, float]]


class ParityError(ExportError):
    """The exported model says something else than the model."""


@dataclass(frozen=True)
class Request:
    """What is to be written.

    Attributes:
        out: The file.
        format: Of :data:`negvision.export.formats.SUFFIXES`.
        precision: Of ``PRECISIONS``.
        opset: Of ONNX.
        legacy: Use the exporter of TorchScript graphs.
        images: Folder of images to compare on, or None for the embedded ones.
        calibration: Folder of images to measure the ranges of 8 bits on.
    """

    out: Path
    format: str = "onnx"
    precision: str = "fp32"
    opset: int = OLDEST_OPSET
    legacy: bool = False
    images: Path | None = None
    calibration: Path | None = None

    def check(self) -> None:
        """Raise ExportError where the parts do not go together, or something is not there."""
        suffix = formats.SUFFIXES[self.format]
        if self.out.suffix != suffix or self.out.name == suffix:
            raise ExportError(f"--out {self.out}: --format {self.format} writes NAME{suffix}")
        formats.require_package(self.format)
        check_opset(self.opset)
        if self.precision != "fp32":
            if self.format == "torchexport" or (self.precision == "int8" and self.format != "onnx"):
                raise ExportError(
                    f"--format {self.format} is not written in {self.precision}; onnx is"
                )
            if self.legacy:
                raise ExportError(
                    f"--legacy writes fp32 alone: its graphs do not tell what is to be "
                    f"{self.precision}"
                )
        if self.legacy and self.format == "torchexport":
            raise ExportError("--legacy is a way to ONNX; --format torchexport has no other way")
        if (self.precision == "int8") != (self.calibration is not None):
            raise ExportError(
                "--precision int8 and --calibration DIR go together: the ranges of 8 bits are "
                "measured on images such as the model will see"
            )
        for folder in (self.images, self.calibration):
            if folder is not None:
                pictures.pictures_in(folder)


def export(
    cfg: Config,
    checkpoint: str | Path,
    request: Request,
    tell: Tell,
    trust: bool = False,
    evaluate: Evaluate | None = None,
) -> None:
    """Write what ``request`` asks for.

    Args:
        cfg: A checked config.
        checkpoint: Its weights.
        request: Checked.
        tell: Is given lines of text.
        trust: Unpickle whatever the checkpoint holds.
        evaluate: Figures of an ONNX file on the test set; for int8.

    Raises:
        ExportError: It cannot be exported; there is no file then.
        ParityError: The file says something else; it is not kept.
    """
    model, meta = load_model(cfg, checkpoint, trust)
    graph, metadata = graph_and_metadata(cfg, model, meta, request.precision)
    reference = TorchModel(cfg, model)
    with (
        moved_when_good(request.out) as path,
        tempfile.TemporaryDirectory(prefix="negvision_") as scratch,
    ):
        files = _pictures(metadata, request.images, Path(scratch))
        runner = _write(graph, metadata, request, path, Path(scratch), evaluate, tell)
        found = compare(runner, reference, files, _slack(request.precision))
        tell(f"compared with PyTorch: {found.line()}")
        tolerance = TOLERANCES.get(request.precision)
        beyond = found.beyond(tolerance) if tolerance else []
        if beyond:
            raise ParityError(
                f"{request.out} was not written, since it differs from PyTorch: "
                + "; ".join(beyond)
            )
        size = sum(part.stat().st_size for part in path.parent.iterdir())
    tell(f"{request.out}: {_summary(metadata, request)}, {size / 1e6:.1f} MB")


def _write(
    graph: Exportable,
    metadata: Metadata,
    request: Request,
    path: Path,
    scratch: Path,
    evaluate: Evaluate | None,
    tell: Tell,
) -> ExportedModel:
    """Write ``path`` and give what runs it."""
    if request.format == "torchexport":
        return ExportedModel.of_graph(formats.write_torchexport(graph, metadata, path), metadata)
    written = path if request.format == "onnx" else scratch / "model.onnx"
    if request.format != "onnx":
        # Others take an input with a default for a constant.
        graph = replace(graph, defaults={})
    model = write_onnx(graph, metadata, request.opset, request.legacy)
    if request.precision != "fp32" and request.format == "onnx":
        model = _narrowed(model, graph, request, scratch, evaluate, tell)
    save(model, written)
    try:
        opened = ExportedModel(written)
    except ExportError as error:
        raise ExportError(
            f"what was written with --opset {request.opset} does not run here: {error}. "
            f"--opset {OLDEST_OPSET} is the one that is tested"
        ) from None
    if request.format == "onnx":
        return opened
    if request.format == "openvino":
        run = formats.write_openvino(written, graph, metadata, path)
        return ExportedModel.of_graph(run, metadata)
    formats.write_tensorrt(written, metadata, path)
    tell("the engine itself is not run: what follows is the ONNX file that it was built from")
    return opened


def _narrowed(
    model: onnx.ModelProto,
    graph: Exportable,
    request: Request,
    scratch: Path,
    evaluate: Evaluate | None,
    tell: Tell,
) -> onnx.ModelProto:
    network = narrow.in_network(model, graph.module)
    if request.precision == "fp16":
        return narrow.halve(model, network)
    result = narrow.quantise(model, network, pictures.pictures_in(request.calibration))
    if evaluate is not None:
        wide, eight = scratch / "fp32.onnx", scratch / "int8.onnx"
        save(model, wide)
        save(result, eight)
        before, after = evaluate(wide), evaluate(eight)
        for name in before.keys() & after.keys():
            old, new = before[name], after[name]
            tell(f"{name}: {old:.4g} in fp32, {new:.4g} in int8, {new - old:+.4g}")
    return result


def _pictures(metadata: Metadata, folder: Path | None, scratch: Path) -> list[Path]:
    if folder is not None:
        return pictures.spread(pictures.pictures_in(folder), MOST_COMPARED)
    if metadata.task == "face":
        drawn = pictures.crops(_EMBEDDED, metadata.preprocessing.size)
    else:
        drawn = pictures.scenes(_EMBEDDED)
    return pictures.write_into(scratch, drawn)


def _slack(precision: str) -> float:
    return TOLERANCES.get(precision, TOLERANCES["fp16"]).score


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
