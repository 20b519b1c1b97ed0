"""Refuse a training that cannot learn.

:mod:`negvision.engine.loops` calls this before the first iteration, in any config. Counting ends at
the first object, so it takes no time where there is one.
"""

import contextlib
import copy
import itertools
import logging
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np
from mmengine.evaluator import Evaluator
from mmengine.logging import print_log
from mmengine.runner import EpochBasedTrainLoop
from torch import nn

from negvision.data.formats.label_files import VOID
from negvision.engine.checkpoints.training_state import random_state_kept
from negvision.engine.config.model_parts import unwrapped
from negvision.engine.data_order import is_endless
from negvision.engine.image_check import leaf_datasets
from negvision.engine.parallel.sharded import optim_wrappers_of
from negvision.errors import ConfigError, DatasetError, Problems, counted
from negvision.ood.abet import LearnedTemperature

# Samples that go through the pipeline until one shows an object.
_MOST_DRAWS = 200
_DROPPED, _NOT_LOADED = "dropped by", "no transform loads boxes"
# Label images that are read, and that are read until a second class is found.
_FEW_LABEL_IMAGES = 4
_MOST_LABEL_IMAGES = 2000


def check_training(loop) -> None:
    """Check before the first step that there is something to learn, and a step to learn it.

    Args:
        loop: The training loop, at the place where it starts or resumes.

    Raises:
        ConfigError: More trained than announced, no trained weight, a learning rate of 0, a batch
            of one image for batch normalization, or fewer classes in the head than identities.
        DatasetError: No object, no labeled pixel, or only one class or identity.
    """
    _check_rest(loop)
    _check_weights(loop.runner)
    leaves = _leaves(loop.dataloader.dataset)
    records = [_first_record(leaf) for leaf in leaves]
    if any("instances" in record for record in records):
        _check_objects(leaves)
    elif any(record.get("seg_map_path") for record in records):
        _check_label_images(leaves)
    elif any(_label_of(record) is not None for record in records):
        _check_labels(leaves, unwrapped(loop.runner.model))
    of_images = any(_label_of(record) is not None for record in records)
    _check_normalization(loop, of_images)


def check_length(loop) -> None:
    """Check that a training loop has an iteration, before schedules are built on its length.

    Raises:
        DatasetError: No image.
        ConfigError: No full batch, or ``train_cfg`` asks for no epoch or iteration.
    """
    loader = loop.dataloader
    images = len(loader.dataset)
    if not images:
        raise DatasetError("the training set has no image.")
    total, _, key = announced(loop)
    if total < 1:
        raise ConfigError(f"train_cfg.{key} is {total}: there is nothing to train")
    if not len(loader) and not (is_endless(loader) and loop.max_iters):
        size, dropped = _batch_size(loader), getattr(loader.batch_sampler, "drop_last", False)
        raise ConfigError(
            f"an epoch has 0 iterations: {counted(images, 'image')} in the training set, "
            f"batch_size {size}{', drop_last=True' if dropped else ''}. "
            "Lower train_dataloader.batch_size, set drop_last=False, or add images"
        )


def _check_rest(loop) -> None:
    """Compare what a checkpoint has trained with what is announced."""
    total, done, key = announced(loop)
    unit = key.removeprefix("max_")
    if done > total:
        raise ConfigError(
            f"the checkpoint has trained {done:,} {unit}, more than train_cfg.{key} = {total:,}. "
            "Train longer, name an earlier checkpoint (--resume FILE), or train anew in another "
            "folder (--work-dir DIR)"
        )
    if done == total:
        _warn(f"nothing is left to train: the checkpoint has trained all {total:,} {unit}")


def announced(loop) -> tuple[int, int, str]:
    """Epochs or iterations of a training, those that are done, and the key of the former."""
    if isinstance(loop, EpochBasedTrainLoop):
        return loop.max_epochs, loop.epoch, "max_epochs"
    return loop.max_iters, loop.iter, "max_iters"


def _check_weights(runner) -> None:
    if not any(parameter.requires_grad for parameter in unwrapped(runner.model).parameters()):
        raise ConfigError("no weight of the model is trained: all are frozen (requires_grad=False)")
    rates = [group.get("lr") for group in _groups(runner)]
    if not runner.param_schedulers and rates and not any(rate is None or rate for rate in rates):
        raise ConfigError("the learning rate is 0: set optim_wrapper.optimizer.lr")


def _groups(runner) -> list[dict]:
    wrappers = optim_wrappers_of(runner.optim_wrapper)
    return [group for wrapper in wrappers for group in wrapper.optimizer.param_groups]


# Objects of detection.


def _check_objects(leaves: list) -> None:
    shown = [leaf for leaf in leaves if _has_object(leaf)]
    if not shown:
        raise DatasetError(_no_object(leaves))
    for leaf in leaves:
        left, annotated = getattr(leaf, "objects", 0), getattr(leaf, "annotated", 0)
        if 2 * left < annotated and getattr(leaf, "_indices", None) is None:
            _warn(
                f"{leaf.ann_file}: {left:,} of {annotated:,} annotations are left to train. Left "
                f"out:\n{leaf.left_out.report()}"
            )
    with random_state_kept():
        _check_pipelines(shown)


def _has_object(leaf) -> bool:
    return any(_objects_of(record) for _, record in _records(leaf))


def _objects_of(record: dict) -> int:
    return sum(not item.get("ignore_flag") for item in record.get("instances", ()))


def _no_object(leaves: list) -> str:
    reasons = Problems()
    for leaf in leaves:
        if getattr(leaf, "left_out", None):
            reasons.merge(leaf.left_out)
            continue
        for number, record in _records(leaf):
            ignored = len(record.get("instances", ()))
            name = str(record.get("img_path", f"sample {number}"))
            if ignored:
                reasons.add("crowd, or marked ignore", name, count=ignored)
            else:
                reasons.add("image without a usable annotation of the classes", name)
    files = dict.fromkeys(
        str(getattr(leaf, "ann_file", "") or type(leaf).__name__) for leaf in leaves
    )
    images = sum(map(len, leaves))
    return (
        f"{', '.join(files)}: no object is left to train in {counted(images, 'image')}:\n"
        f"{reasons.report()}\nBoxes are x, y, width, height in pixels, not fractions of the image; "
        'an object has iscrowd 0 (some tools mark all masks as crowds) and no "ignore".'
    )


def _check_pipelines(leaves: list) -> None:
    """Let samples with objects through the pipelines until one keeps an object."""
    lost: Counter[str] = Counter()
    for leaf in leaves:
        try:
            # A copy, since some have a memory, such as a cached Mosaic.
            steps = copy.deepcopy(leaf.pipeline.transforms)
            shown = (record for _ in range(_MOST_DRAWS) for _, record in _records(leaf))
            for record in itertools.islice(filter(_objects_of, shown), _MOST_DRAWS):
                left, reason = _drawn(steps, record)
                if left:
                    return
                lost[reason] += 1
        except Exception:  # the training reports it, with the sample, or skips the sample
            return
    reasons = "\n".join(f"  {count} x {reason}" for reason, count in lost.most_common())
    message = (
        f"the pipeline of the training set leaves no object in {lost.total()} samples that had "
        f"some:\n{reasons}\n"
    )
    if all(reason.startswith((_DROPPED, _NOT_LOADED)) for reason in lost):
        raise DatasetError(message + "Change train_pipeline.")
    _warn(message + "Change train_pipeline, unless objects are that rare.")


def _drawn(steps: Iterable, record: dict) -> tuple[int, str]:
    """Objects of a sample after the pipeline, and what took the last one.

    Raises:
        LookupError: The sample does not say.
    """
    results: Any = record
    last = 0
    reason = f"{_NOT_LOADED}: add LoadAnnotations with_bbox=True"
    for step in steps:
        results = step(results)
        name = type(step).__name__
        if results is None:
            return 0, f"{_DROPPED} {name}"
        if "gt_bboxes" in results:
            number = len(results["gt_bboxes"])
            if last and not number:
                reason = f"objects lost in {name}"
            last = number
    instances = getattr(results["data_samples"], "gt_instances", None)
    if instances is None:
        raise LookupError
    return len(instances), reason if not last else "left as crowds only"


# Label images of segmentation.


class _Labels(NamedTuple):
    """What the label images show of which ``read`` of ``total`` were read."""

    found: frozenset[int]
    read: int
    total: int
    void: float  # share of the pixels

    def __str__(self) -> str:
        classes = f"class {min(self.found)} alone" if self.found else "no class"
        return (
            f"{self.read:,} of {counted(self.total, 'label image')} show {classes}; "
            f"{self.void:.0%} of their pixels are void (255)"
        )


def check_evaluated_labels(dataset: Any, evaluator: Evaluator, split: str) -> None:
    """Warn if the label images of an evaluation show one class, which makes any mIoU perfect.

    Args:
        dataset: Of the data loader, wrapped or not.
        evaluator: Its metrics; only those of overlap are looked at.
        split: "val" or "test", for the message.
    """
    if any("IoU" in type(metric).__name__ for metric in evaluator.metrics):
        labels = _labels(_leaves(dataset))
        if labels.read and len(labels.found) < 2:
            _warn(f"{split}: {labels}. A mean IoU of them says nothing")


def _check_label_images(leaves: list) -> None:
    labels = _labels(leaves)
    if not labels.read:
        return
    if len(labels.found) > 1:
        if labels.void > 0.5:
            _warn(f"{labels.void:.0%} of the pixels of {labels.read} label images are void (255)")
        return
    if labels.read < labels.total and not labels.void:
        _warn(str(labels))
        return
    hint = (
        "\nAre these masks of 0 and 255? 255 is void, which no loss counts. Write the label of the "
        "class, such as 1, instead."
    )
    raise DatasetError(
        f"the training set shows nothing to tell apart: {labels}.{hint if labels.void else ''}"
    )


def _labels(leaves: list) -> _Labels:
    """Read a few label images, and many only while they show a single class."""
    found: set[int] = set()
    read = total = pixels = void = 0
    for leaf in leaves:
        steps = getattr(getattr(leaf, "pipeline", None), "transforms", None) or []
        names = [(step, type(step).__name__) for step in steps]
        loading = [step for step, name in names if name.startswith("Load") and "Annot" in name]
        total += len(leaf)
        for _, record in _records(leaf) if loading else ():
            if read >= (_FEW_LABEL_IMAGES if len(found) > 1 else _MOST_LABEL_IMAGES):
                break
            counts = _pixels_of(loading, record)
            if counts is None:
                continue
            read += 1
            pixels += counts.total()
            void += counts.pop(VOID, 0)
            found.update(counts)
    return _Labels(frozenset(found), read, total, void / max(pixels, 1))


def _pixels_of(loading: list, record: dict) -> Counter[int] | None:
    """Pixels of each label of a label image, read without its image; None if it is unreadable."""
    results: Any = {**record, "ori_shape": None}
    try:
        for step in loading:
            results = step(results)
        labels, counts = np.unique(results["gt_seg_map"], return_counts=True)
    except Exception:  # the training reports it, or skips it
        return None
    return Counter(dict(zip(labels.tolist(), counts.tolist(), strict=True)))


# Labels of faces and of classified images.


def _check_labels(leaves: list, model: nn.Module) -> None:
    found: set[int] = set()
    for leaf in leaves:
        if hasattr(leaf, "labels"):  # faces: millions of images
            labels = np.asarray(leaf.labels)
            found |= {int(labels.min()), int(labels.max())} if len(labels) else set()
            continue
        for _, record in _records(leaf):
            label = _label_of(record)
            found |= set() if label is None else {label}
            if len(found) > 1:
                break
    if len(found) == 1:
        raise DatasetError(
            f"all {sum(map(len, leaves)):,} images of the training set have the label "
            f"{found.pop()}: with one class, or one identity, there is nothing to tell apart."
        )
    head = getattr(model, "head", None)
    classes = getattr(head, "num_classes", None)
    if isinstance(classes, int) and found and max(found) >= classes:
        raise ConfigError(
            f"model.head.num_classes is {classes}, but the training set has labels up to "
            f"{max(found)}. Set num_classes={max(found) + 1}"
        )


def _label_of(record: dict) -> int | None:
    label = record.get("label", record.get("gt_label"))
    return int(label) if isinstance(label, int | np.integer) else None


# Batch normalization.


def _check_normalization(loop, of_images: bool) -> None:
    """Refuse a batch of one image where batch normalization has one value per image."""
    loader = loop.dataloader
    size, smallest = _batch_size(loader), _smallest_batch(loader)
    if smallest != 1:
        return
    model = unwrapped(loop.runner.model).train()
    single = _single_value_norm(model, of_images)
    if single:
        batch = "every batch" if size == 1 else "the last batch of an epoch"
        raise ConfigError(
            f"{batch} has one image ({counted(len(loader.dataset), 'image')}, batch_size {size}), "
            f"and model.{single} normalizes over the images of a batch: one value has no variance. "
            "Set train_dataloader.drop_last=True, or another batch_size"
        )
    if size == 1 and any(map(_normalizes_batches, model.modules())):
        _warn("batch normalization over batches of one image: its statistics will be noisy")


def _normalizes_batches(module: nn.Module) -> bool:
    over_ranks = isinstance(module, nn.SyncBatchNorm) or getattr(module, "over_ranks", False)
    return (
        isinstance(module, nn.modules.batchnorm._BatchNorm) and module.training and not over_ranks
    )


def _single_value_norm(model: nn.Module, of_images: bool) -> str | None:
    """The name of a layer that normalizes one value of each image, if there is one."""
    exempt = {
        id(part)
        for module in model.modules()
        if isinstance(module, LearnedTemperature)
        for part in module.modules()
    }
    for name, module in model.named_modules():
        vectors = of_images and isinstance(module, nn.BatchNorm1d) and id(module) not in exempt
        if vectors and _normalizes_batches(module):
            return name
        if not isinstance(module, nn.Sequential):
            continue
        pooled = False
        for part_name, part in module.named_children():
            if isinstance(part, nn.AdaptiveAvgPool2d) and part.output_size in (1, (1, 1)):
                pooled = True
            elif pooled and any(map(_normalizes_batches, part.modules())):
                return f"{name}.{part_name}".lstrip(".")
    return None


@contextlib.contextmanager
def single_values_explained(iteration: int) -> Iterator[None]:
    """Inside the block, torch's error of batch normalization over one value says what to do.

    :func:`check_training` finds what layers tell in advance; this is for all others.
    """
    try:
        yield
    except ValueError as error:
        if not re.match("Expected more than 1 (value|spatial element)", str(error)):
            raise
        raise ConfigError(
            f"iteration {iteration}: {error}. A layer normalizes over one value, which has no "
            "variance: set train_dataloader.drop_last=True, another batch_size, or larger images"
        ) from error


# Parts of datasets and loaders.


def _leaves(dataset: Any) -> list:
    return [part for part in leaf_datasets(dataset) if hasattr(part, "get_data_info")]


def _first_record(leaf) -> dict:
    return next((record for _, record in _records(leaf)), {})


def _records(leaf) -> Iterator[tuple[int, dict]]:
    """(index, record) of all samples, far apart first: files are often sorted by class."""
    number = len(leaf)
    stride = _coprime_stride(number)
    for turn in range(number):
        index = turn * stride % number
        try:
            record = leaf.get_data_info(index)
        except Exception:  # the training reports it, or skips it
            continue
        if isinstance(record, dict):
            yield index, record


def _coprime_stride(number: int) -> int:
    """About 0.62 of ``number``, such that its multiples reach every remainder."""
    stride = max(round(number * 0.618), 1)
    while np.gcd(stride, number) != 1:
        stride += 1
    return stride


def _batch_size(loader) -> int | None:
    return loader.batch_size or getattr(loader.batch_sampler, "batch_size", None)


def _smallest_batch(loader) -> int | None:
    """Images in the smallest batch of an epoch; None if unknown."""
    size = _batch_size(loader)
    if (
        not isinstance(size, int)
        or is_endless(loader)
        or getattr(loader.batch_sampler, "drop_last", False)
    ):
        return size if isinstance(size, int) else None
    sampler = getattr(loader.batch_sampler, "sampler", None)
    return len(sampler) % size or size if sampler is not None else None


def _warn(message: str) -> None:
    print_log(message, logger="current", level=logging.WARNING)
