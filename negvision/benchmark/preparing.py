"""Lay out what the ways to run a model share: a config, weights and an ONNX file in one folder."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.model import BaseModel

from negvision.benchmark.subjects import CONFIG, ONNX, WEIGHTS
from negvision.errors import UserError
from negvision.export.describe import graph_and_metadata
from negvision.export.graphs.faces import face_size
from negvision.export.onnx_file import OLDEST_OPSET, save, write_onnx
from negvision.face.recognizer import FaceRecognizer
from negvision.inference.pipeline import kind_of, test_pipeline
from negvision.inference.runtime.metadata import Preprocessing
from negvision.inference.weights import build_model, load_model


def lay_out(
    cfg: Config, checkpoint: str | None, size: tuple[int, int] | None, folder: Path
) -> tuple[BaseModel, tuple[int, int]]:
    """Write the config and the weights into ``folder``.

    Args:
        cfg: A checked config.
        checkpoint: Its weights, or None for random ones.
        size: Height and width of the pictures, or None for those of the test pipeline.
        folder: Exists.

    Returns:
        The model in evaluation, and height and width.

    Raises:
        UserError: The test pipeline does not tell of a size.
    """
    if checkpoint is None:
        torch.manual_seed(0)
        model = build_model(cfg).eval()
    else:
        model, _ = load_model(cfg, checkpoint)
    pipeline = test_pipeline(cfg)
    if size is None:
        size = _size_of(pipeline, model)
    cfg = cfg.copy()
    cfg.test_dataloader = {"dataset": {"type": "any", "pipeline": _resizing_to(size, pipeline)}}
    cfg.dump(folder / CONFIG)
    torch.save({"state_dict": model.state_dict()}, folder / WEIGHTS)
    return model, size


def write_exported(folder: Path) -> None:
    """Export what :func:`lay_out` wrote, beside it.

    Raises:
        ExportError: It cannot be exported.
    """
    cfg = Config.fromfile(folder / CONFIG)
    model, meta = load_model(cfg, folder / WEIGHTS)
    graph, metadata = graph_and_metadata(cfg, model, meta)
    save(write_onnx(graph, metadata, OLDEST_OPSET), folder / ONNX)


def size_of(own: Preprocessing, name: str) -> tuple[int, int]:
    """Height and width of the largest image that comes out of ``own``.

    Raises:
        UserError: Images are as large as their files; ``name`` is named.
    """
    if own.size is not None:
        return own.size
    if own.scale is None:
        raise UserError(f"{name}: images are not resized, so give their size: --size HEIGHT WIDTH")
    return (min(own.scale), max(own.scale)) if own.keep_ratio else own.scale[::-1]


def _size_of(pipeline: list[dict], model: BaseModel) -> tuple[int, int]:
    for transform in pipeline:
        scale = transform.get("scale")
        if kind_of(transform) == "Resize" and scale is not None:
            scale = (scale, scale) if isinstance(scale, int) else tuple(scale)
            own = Preprocessing(scale=scale, keep_ratio=bool(transform.get("keep_ratio", False)))
            break
    else:
        faces = isinstance(model, FaceRecognizer)
        own = Preprocessing(size=face_size(model, None) if faces else None)
    return size_of(own, "the test pipeline of the config")


def _resizing_to(size: tuple[int, int], pipeline: list[dict]) -> list[Mapping[str, Any]]:
    """``pipeline`` for pictures of ``size``; its Resize stays, since it tells of its factors."""
    return [
        {"type": transform["type"], "scale": size[::-1], "keep_ratio": False}
        if kind_of(transform) == "Resize"
        else transform
        for transform in pipeline
    ]
