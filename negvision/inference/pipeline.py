"""The image preprocessing of a config: its test pipeline and the data preprocessor of its model."""

from collections.abc import Mapping
from typing import Any

from mmengine.config import Config
from torch import nn

from negvision.data.images.decoding import AS_STORED
from negvision.engine.config.data_files import leaf_datasets
from negvision.errors import ConfigError, ExportError
from negvision.inference.runtime.metadata import Preprocessing

# Transforms that do not change the image, without their prefixes.
_NO_PIXELS = (
    "LoadAnnotations", "LoadSegAnnotations", "LoadOODMap",
    "PackDetInputs", "PackSegInputs", "PackFaceInputs", "PackImageInputs",
)  # fmt: skip
# Options whose other values the runtime does not support.
_FIXED = {
    "Resize": {"scale_factor": None, "interpolation": "bilinear", "backend": "cv2"},
    "LoadImageFromFile": {"imdecode_backend": "cv2", "to_float32": False},
}


def test_pipeline(cfg: Config) -> list[dict]:
    """The transforms of the first dataset that the config tests on.

    Raises:
        ConfigError: There are none.
    """
    for dataset in leaf_datasets((cfg.get("test_dataloader") or {}).get("dataset")):
        if dataset.get("pipeline"):
            return [dict(transform) for transform in dataset["pipeline"]]
    raise ConfigError(
        "the config has no test_dataloader with a pipeline, which says how to prepare images. "
        "Add one"
    )


def image_pipeline(cfg: Config) -> list[dict]:
    """:func:`test_pipeline` for images without annotations."""
    kept = []
    for transform in test_pipeline(cfg):
        name = kind_of(transform)
        if name.startswith("Pack"):
            keys = ("img_path", "ori_shape", "img_shape", "scale_factor")
            kept.append({**transform, "meta_keys": keys})
        elif name not in (*_NO_PIXELS, "AlignFace"):
            kept.append(transform)
    return kept


def kind_of(transform: Mapping[str, Any]) -> str:
    """The name of a transform without its prefix, e.g. ``Resize``."""
    return str(transform.get("type")).rpartition(".")[2]


def read_preprocessing(cfg: Config, model: nn.Module) -> Preprocessing:
    """The preprocessing that the ONNX runtime has to do for ``model``.

    Raises:
        ExportError: The pipeline or the data preprocessor has a step that the runtime lacks.
    """
    scale, keep_ratio, size, as_stored = None, True, None, False
    for transform in test_pipeline(cfg):
        name = kind_of(transform)
        for key, value in _FIXED.get(name, {}).items():
            if transform.get(key, value) not in (value, None):
                raise ExportError(
                    f"{name} of the test pipeline has {key}={transform[key]!r}; exported models "
                    f"support {value!r} only"
                )
        if name == "LoadImageFromFile":
            color_type = transform.get("color_type", "color")
            as_stored = color_type == f"color{AS_STORED}"
            if color_type != "color" and not as_stored:
                raise ExportError(
                    f"LoadImageFromFile of the test pipeline has color_type={color_type!r}; "
                    f"exported models support 'color' and 'color{AS_STORED}' only"
                )
        elif name == "Resize":
            if scale is not None:
                raise ExportError("the test pipeline resizes twice; give it one Resize")
            scale, keep_ratio = _resize(transform)
        elif name == "AlignFace":
            # Landmarks are found elsewhere: the model takes aligned crops.
            size = (transform.get("size", 112),) * 2
        elif name not in _NO_PIXELS:
            raise ExportError(
                f"the test pipeline has {name}, which exported models do not support. Supported "
                "are LoadImageFromFile, Resize, annotations and the packing transform"
            )
    own = model.data_preprocessor
    normalized = getattr(own, "_enable_normalize", False)
    mean, std = (
        tuple(getattr(own, name).flatten().tolist()) if normalized else None
        for name in ("mean", "std")
    )
    divisor, value = _padding(own)
    return Preprocessing(
        scale=scale,
        keep_ratio=keep_ratio,
        rgb=bool(getattr(own, "_channel_conversion", False)),
        mean=mean,
        std=std,
        pad_divisor=divisor,
        pad_value=value,
        size=size,
        as_stored=as_stored,
    )


def _resize(transform: Mapping[str, Any]) -> tuple[tuple[int, int], bool]:
    scale = transform.get("scale")
    if isinstance(scale, int):
        scale = (scale, scale)
    if not scale or len(scale) != 2 or not all(isinstance(side, int) for side in scale):
        raise ExportError(f"Resize of the test pipeline has scale={scale!r}; give (width, height)")
    return (scale[0], scale[1]), bool(transform.get("keep_ratio", False))


def _padding(own) -> tuple[int, float]:
    """Divisor of the sides and value of the padding that a data preprocessor uses in tests."""
    if not hasattr(own, "size_divisor"):
        return int(getattr(own, "pad_size_divisor", 1)), float(getattr(own, "pad_value", 0))
    # In tests, mmseg pads only if test_cfg says so.
    cfg = dict(own.test_cfg or {})
    if cfg.get("size") is not None:
        raise ExportError(
            f"data_preprocessor.test_cfg.size is {cfg['size']!r}: images are padded to one size. "
            "Use size_divisor"
        )
    return int(cfg.get("size_divisor") or 1), float(own.pad_val)
