"""Samples with rare classes more often, and weights for them."""

import copy
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from mmengine.dist import get_dist_info, sync_random_seed
from torch.utils.data import Sampler

from negvision.engine.image_check import leaf_datasets
from negvision.errors import ConfigError
from negvision.registry import DATA_SAMPLERS

_VOID = 255


@DATA_SAMPLERS.register_module()
class ClassBalancedSampler(Sampler):
    """Draws images of rare classes more often, by the square-root rule.

    For detection, segmentation, classification and faces. With f(c) the share of images that show
    class c, an image is drawn r times an epoch in the mean, the largest
    ``max(1, sqrt(threshold / f(c)))`` of its classes; images without one once. Fractions are drawn
    anew in each epoch: each image comes floor(r) or ceil(r) times. All epochs have the same length,
    and all ranks share one order, so resumed runs and other numbers of ranks see the same images.

    Args:
        dataset: Of records (``get_data_info``) with ``instances``, ``label`` or ``seg_map_path``,
            or with an array ``labels``; may be wrapped in MMEngine's or mmdet's ``ConcatDataset``.
            Label images are read once, when training begins.
        threshold: Share of images, in (0, 1], below which a class is rare; None: that of the most
            frequent class, so that all others are.
        seed: The same on all ranks; None agrees on a random one.

    Raises:
        ConfigError: ``threshold`` is out of its range, or no image shows a class.

    Source: Gupta, Dollár, Girshick, CVPR 2019, "LVIS: A Dataset for Large Vocabulary Instance
    Segmentation", section "repeat factor sampling".

    Example:
        >>> class Data:
        ...     labels = np.array([0, 0, 0, 0, 1])
        ...     def __len__(self):
        ...         return 5
        >>> sampler = ClassBalancedSampler(Data(), seed=0)
        >>> sampler.repeats.tolist()  # a fourth of the images, so twice as often
        [1.0, 1.0, 1.0, 1.0, 2.0]
        >>> sorted(sampler)
        [0, 1, 2, 3, 4, 4]
    """

    def __init__(
        self, dataset: Any, threshold: float | None = None, seed: int | None = None
    ) -> None:
        if threshold is not None and not 0 < threshold <= 1:
            raise ConfigError(
                f"negvision.ClassBalancedSampler: threshold is {threshold!r}; it must be above 0 "
                "and at most 1"
            )
        self.rank, self.world_size = get_dist_info()
        self.seed = sync_random_seed() if seed is None else seed
        self.epoch = 0
        classes = [np.unique(of) for of in sample_classes(dataset)]
        known, images = np.unique(np.concatenate([*classes, []]), return_counts=True)
        if not len(known):
            raise ConfigError(
                "negvision.ClassBalancedSampler: no image of the training set shows a class, so "
                "there is nothing to balance. Check the annotations, or use another sampler"
            )
        shares = images / len(classes)
        limit = shares.max() if threshold is None else threshold
        factors = np.maximum(1.0, np.sqrt(limit / shares))
        self.repeats = np.array(
            [factors[np.searchsorted(known, of)].max(initial=1.0) for of in classes]
        )
        self._own = -(-int(np.ceil(self.repeats.sum() - 1e-6)) // self.world_size)

    def __len__(self) -> int:
        """The number of samples on this rank."""
        return self._own

    def __iter__(self) -> Iterator[int]:
        """Indices of the dataset, for this rank and epoch."""
        rng = np.random.default_rng([self.seed, self.epoch])
        total = self._own * self.world_size
        # An even comb over the images, in random order: as many teeth as places.
        order = rng.permutation(len(self.repeats))
        ends = np.cumsum(self.repeats[order])
        teeth = (np.arange(total) + rng.random()) * (ends[-1] / total)
        drawn = order[np.searchsorted(ends, teeth, side="right").clip(max=len(order) - 1)]
        yield from rng.permutation(drawn)[self.rank :: self.world_size].tolist()

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch, which determines the order and the draws."""
        self.epoch = epoch


def sample_classes(dataset: Any) -> Iterator[np.ndarray]:
    """The class of each object, or pixel, or the one of the image, for every sample of a set.

    Negative labels, void pixels (255) and objects to be ignored are left out.

    Raises:
        ConfigError: The records of the set have no classes.
    """
    parts = getattr(dataset, "datasets", None)
    if parts is not None:
        for part in parts:
            yield from sample_classes(part)
        return
    labels = getattr(dataset, "labels", None)
    for index in range(len(dataset)):
        if labels is not None:
            yield _known([labels[index]])
            continue
        record = dataset.get_data_info(index)
        if "instances" in record:
            used = [one["bbox_label"] for one in record["instances"] if not one.get("ignore_flag")]
            yield _known(used)
        elif "seg_map_path" in record:
            yield _known(_loaded(next(leaf_datasets(dataset)), record))
        elif "label" in record:
            yield _known([record["label"]])
        else:
            raise ConfigError(
                f"{type(dataset).__name__} has neither boxes, label images nor labels, so its "
                "samples have no classes to balance. Use another sampler"
            )


def without_auto_weights(config: Any) -> tuple[Any, list[tuple]]:
    """The config of a model with None for each ``class_weight="auto"``, and their places.

    Example:
        >>> without_auto_weights({"head": {"loss": [{"class_weight": "auto"}]}})
        ({'head': {'loss': [{'class_weight': None}]}}, [('head', 'loss', 0)])
    """
    places = list(_auto_places(config, ()))
    if not places:
        return config, places
    config = copy.deepcopy(config)
    for place in places:
        _at(config, place)["class_weight"] = None
    return config, places


def set_auto_weights(model: Any, places: list[tuple], dataset: Any) -> list[float]:
    """Set ``class_weight`` of losses to the inverse frequency of each class in a training set.

    Frequencies are those of boxes, images or pixels. The mean weight over them is 1; a class
    without any gets 1, and so does the background of a softmax over boxes.

    Args:
        model: Not wrapped.
        places: Of the losses, from :func:`without_auto_weights`.
        dataset: As in :class:`ClassBalancedSampler`.

    Returns:
        The weight of each class.

    Raises:
        ConfigError: A loss has no ``class_weight``, or the data set no classes.
    """
    classes = getattr(next(leaf_datasets(dataset)), "metainfo", {}).get("classes") or ()
    counts = np.zeros(len(classes), np.int64)
    for found in sample_classes(dataset):
        own = np.bincount(found, minlength=len(counts))
        own[: len(counts)] += counts
        counts = own
    shown = counts > 0
    weights = np.ones(len(counts))
    weights[shown] = counts.sum() / (shown.sum() * counts[shown])
    boxes = "instances" in next(leaf_datasets(dataset)).get_data_info(0)
    for place in places:
        module = _at(model, place)
        if not hasattr(module, "class_weight"):  # a loss around the one of the config
            module = getattr(module, "loss", module)
        if not hasattr(module, "class_weight") or not shown.any():
            raise ConfigError(
                f"model.{'.'.join(map(str, place))}.class_weight is 'auto', but "
                + (
                    f"{type(module).__name__} takes no weights"
                    if shown.any()
                    else "nothing is labeled"
                )
                + ". Remove class_weight, or give numbers"
            )
        background = boxes and not getattr(module, "use_sigmoid", False)
        module.class_weight = [*weights.tolist(), *([1.0] if background else [])]
    return weights.tolist()


def _auto_places(config: Any, place: tuple) -> Iterator[tuple]:
    if isinstance(config, Mapping):
        if isinstance(config.get("class_weight"), str) and config["class_weight"] == "auto":
            yield place
        for key, value in config.items():
            yield from _auto_places(value, (*place, key))
    elif isinstance(config, list | tuple):
        for key, value in enumerate(config):
            yield from _auto_places(value, (*place, key))


def _at(owner: Any, place: tuple) -> Any:
    for key in place:
        inner = isinstance(owner, Mapping) or isinstance(key, int)
        owner = owner[key] if inner else getattr(owner, key)
    return owner


def _known(labels: Any) -> np.ndarray:
    labels = np.asarray(labels, np.int64).ravel()
    return labels[labels >= 0]


def _loaded(dataset: Any, record: dict) -> np.ndarray:
    """Labels of the pixels, as the pipeline loads them."""
    steps = dataset.pipeline.transforms
    load = next(s for s in steps if "Load" in type(s).__name__ and "Ann" in type(s).__name__)
    labels = load({**record, "seg_fields": [], "ori_shape": None})["gt_seg_map"]
    return labels[labels != _VOID]
