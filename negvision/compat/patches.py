"""Every place where the behavior of another package is changed, with the reason.

Each function imports the package that it patches, so this module itself is cheap. Patches without
an issue number have no upstream report that we know of.
"""

from __future__ import annotations

import contextlib
import functools
import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any


@contextlib.contextmanager
def _replaced(owner: Any, name: str, value: Any) -> Iterator[None]:
    """``owner.name`` is ``value`` inside the block."""
    before = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, before)


def replace_checkpoint_loaders(
    local: Callable,
    url: Callable,
    torchvision: Callable,
    backend: Callable,
    into: Callable,
    prefixed: Callable,
) -> None:
    """MMEngine: load every checkpoint through these functions.

    MMEngine's loaders try ``weights_only=True`` and, if that is refused, unpickle the file after
    all, with a warning only (compare open-mmlab/mmengine#1655).
    ``CheckpointLoader.register_scheme`` is the documented way to replace a loader. The loaders of
    ``openmmlab://``, ``mmcls://``, ``s3://`` and others call two module functions in the end,
    which have to be replaced by name.

    MMEngine takes what happens to fit a model, nothing at all included, and prints the rest; the
    last two functions decide instead.

    Args:
        local, url, torchvision: Called with ``(filename, map_location)``. MMEngine names a loader
            in its log by the end of the function's name.
        backend: Called with ``(file, map_location, weights_only)`` for an open file.
        into: Called with a model and what a loader returned, for ``load_checkpoint``.
        prefixed: Called with ``(prefix, filename, map_location)``; the weights of a part.
    """
    from mmengine.runner import checkpoint
    from mmengine.runner.checkpoint import CheckpointLoader

    CheckpointLoader.register_scheme("", local, force=True)
    CheckpointLoader.register_scheme(["http://", "https://"], url, force=True)
    CheckpointLoader.register_scheme(["torchvision://", "modelzoo://"], torchvision, force=True)
    checkpoint.load_from_http = url
    checkpoint._safe_torch_load = backend
    checkpoint._load_checkpoint_to_model = into
    checkpoint._load_checkpoint_with_prefix = prefixed


def replace_file_handlers(handlers: Mapping[str, Any]) -> None:
    """MMEngine: ``mmengine.fileio.load`` reads files of these suffixes through these handlers.

    Its own handlers unpickle ``.pkl`` and build any Python object that a YAML file names.
    """
    from mmengine.fileio.handlers import file_handlers

    file_handlers.update(handlers)


@contextlib.contextmanager
def configs_opened_by(opener: Callable) -> Iterator[None]:
    """MMEngine: read config files through ``opener``, a function like ``open``.

    MMEngine reads them as UTF-8 without a byte order mark, which editors on Windows write, and does
    not name the file of another encoding. A module's own ``open`` precedes the built-in one.
    """
    from mmengine.config import config

    setattr(config, "open", opener)  # noqa: B010
    try:
        yield
    finally:
        delattr(config, "open")


def format_each_config_once() -> None:
    """MMEngine: a config is formatted once for its log, its file, visualizers and checkpoints.

    ``Config.pretty_text`` formats it anew for each of them, which takes longer than all else before
    a short training.
    """
    from yapf.yapflib import yapf_api

    if hasattr(yapf_api.FormatCode, "cache"):
        return
    format_code = yapf_api.FormatCode

    @functools.lru_cache(maxsize=8)
    def formatted(source: str, options: str) -> tuple[str, bool]:
        return format_code(source, **json.loads(options))

    def format_once(source: str, **options: Any) -> tuple[str, bool]:
        return formatted(source, json.dumps(options))

    format_once.cache = formatted  # ty: ignore[missing-attribute]
    yapf_api.FormatCode = format_once  # ty: ignore[invalid-assignment]


def replace_activation_checkpointing(
    turn_on: Callable,
) -> contextlib.AbstractContextManager[None]:
    """MMEngine: the runner applies ``activation_checkpointing`` with ``turn_on(model, names)``.

    MMEngine uses torch's reentrant form, which loses gradients if the input needs none, as that of
    a first block does, and updates running statistics twice (compare open-mmlab/mmengine#1539).
    """
    import mmengine.runner.runner

    return _replaced(mmengine.runner.runner, "turn_on_activation_checkpointing", turn_on)


def refuse_empty_datasets(error: Callable[[str], Exception]) -> None:
    """MMEngine: raise ``error(message)`` for a data set of which no sample is left.

    Its own error, numpy's "need at least one array to concatenate", names neither file nor filter.
    """
    from mmengine.dataset import BaseDataset

    serialize = getattr(BaseDataset._serialize_data, "replaced", BaseDataset._serialize_data)

    def serialize_some(self) -> tuple:
        if not self.data_list:
            source = getattr(self, "ann_file", "") or type(self).__name__
            filters = f" filter_cfg is {self.filter_cfg}." if self.filter_cfg else ""
            raise error(f"{source}: no sample is left.{filters}")
        return serialize(self)

    setattr(serialize_some, "replaced", serialize)  # noqa: B010
    BaseDataset._serialize_data = serialize_some


_PYCOCOTOOLS_STEPS = (
    "loading annotations into memory",
    "creating index",
    "index created",
    "Loading and preparing results",
    "DONE",
    "Done",
    "Running per image evaluation",
    "Evaluate annotation type",
    "Accumulating evaluation results",
)


@contextlib.contextmanager
def captured_pycocotools() -> Iterator[None]:
    """pycocotools: hide the lines that it prints about its own steps; results are printed.

    It has no logger and no switch for them (cocodataset/cocoapi#456). A module's own ``print``
    precedes the built-in one.
    """
    from pycocotools import coco, cocoeval

    def print_results(*args, **kwargs):
        if not str(args[0] if args else "").startswith(_PYCOCOTOOLS_STEPS):
            print(*args, **kwargs)

    coco.print = cocoeval.print = print_results
    try:
        yield
    finally:
        del coco.print, cocoeval.print


def replace_category_lookup(check: Callable) -> None:
    """pycocotools: call ``check(categories, names)`` before ids of categories are found by names.

    It leaves out names that the file does not have, and returns ids in the order of the file. mmdet
    numbers its labels by what is left, so labels and names no longer belong together.
    """
    from pycocotools.coco import COCO

    original = COCO.getCatIds
    if hasattr(original, "__wrapped__"):
        return

    @functools.wraps(original)
    def checked(self, catNms=(), *rest, **named):
        if isinstance(catNms, list | tuple) and catNms:
            check(self.dataset["categories"], catNms)
        return original(self, catNms, *rest, **named)

    COCO.getCatIds = checked


def keep_a_pixel(warn: Callable[[str], None]) -> None:
    """mmcv: resizing leaves a pixel of each side, however long and thin an image is.

    Its rounding makes such a side 0, which OpenCV refuses without naming the image. ``Resize`` and
    the transforms and masks of mmdet and mmseg resize through these functions.

    Args:
        warn: Called with a message where a side would be 0.
    """
    import mmcv
    from mmcv.image import geometric

    if hasattr(geometric.rescale_size, "__wrapped__"):
        return
    own_size, own_resize = geometric.rescale_size, geometric.imresize

    @functools.wraps(own_size)
    def rescale_size(old_size, scale, return_scale=False):
        size, factor = own_size(old_size, scale, return_scale=True)
        size = kept(size, old_size)
        return (size, factor) if return_scale else size

    @functools.wraps(own_resize)
    def imresize(img, size, *args, **kwargs):
        return own_resize(img, kept(size, img.shape[1::-1]), *args, **kwargs)

    def kept(size: tuple[int, int], before: tuple[int, int]) -> tuple[int, int]:
        if min(size) > 0:
            return size
        width, height = (max(side, 1) for side in size)
        warn(
            f"an image of {before[0]} x {before[1]} pixels is so thin that it is resized to "
            f"{width} x {height}; hardly anything can be found in it. negvision check-dataset "
            "names such images"
        )
        return width, height

    for owner in (mmcv, mmcv.image, geometric):
        owner.rescale_size, owner.imresize = rescale_size, imresize


def replace_pool_size_rule() -> contextlib.AbstractContextManager[None]:
    """torch.onnx: the output size of a pool is a formula that holds for even and odd inputs.

    torch distinguishes a case for negative remainders, which cannot occur. Testing for it ties the
    graph to sizes with the remainder of the example. Python's ``//`` needs no such case.
    """
    import torch._meta_registrations as shape_rules

    if not hasattr(shape_rules, "div_rtn"):
        return contextlib.nullcontext()
    return _replaced(shape_rules, "div_rtn", lambda number, divisor: number // divisor)


def refuse_gradio_downloads() -> None:
    """Gradio: fail if a request names a URL instead of an uploaded file.

    Gradio downloads such a URL into its cache, for anybody who sends a request, and has no option
    against it.
    """
    from gradio import processing_utils

    async def refuse(url: str, cache_dir: str) -> str:
        raise ValueError(f"only uploaded files are read, not {url}")

    setattr(processing_utils, "async_ssrf_protected_download", refuse)  # noqa: B010
