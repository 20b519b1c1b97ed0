"""Compare the classes of datasets and model: a label is only a position in a list."""

from collections.abc import Iterator, Sequence

from mmengine.hooks import Hook
from torch import nn

from negvision.data.formats.coco_file import shortened
from negvision.engine.config.model_parts import unwrapped
from negvision.engine.image_check import leaf_datasets
from negvision.errors import ConfigError
from negvision.registry import HOOKS

# Modules, or lists of modules, whose classes are those of the dataset.
_HEADS = {
    "bbox_head", "mask_head", "mask_iou_head", "point_head", "segm_head", "decode_head",
    "auxiliary_head",
}  # fmt: skip
_PANOPTIC = {"panoptic_head", "panoptic_fusion_head"}


@HOOKS.register_module()
class ClassCheckHook(Hook):
    """Refuse to train or test if the classes of data and model differ.

    These mistakes raise no error otherwise: a head with too few classes trains objects of the last
    classes as background, and a class missing in the annotations of ``val`` shifts all labels
    after it. Datasets without class names, such as faces, are not checked.

    The runner adds it to every config; ``default_hooks = dict(classes=None)`` removes it.

    Raises:
        ConfigError: ``num_classes`` of a head is not the number of classes of the training set (in
            a test: of the test set), the classes of ``val`` (in a test: of the checkpoint) differ
            or have another order, or so do those of the parts of a concatenated set.
    """

    def before_train(self, runner) -> None:
        classes = _classes_of(runner.train_loop, "train")
        if not classes:
            return
        parts = leaf_datasets(runner.train_loop.dataloader.dataset)
        parents = [getattr(part, "parents_left_out", str)() for part in parts]
        _check_heads(runner.model, classes, "the training set", next(filter(None, parents), ""))
        _compare(classes, "the training set", _classes_of(runner.val_loop, "val"), "val")

    def before_test(self, runner) -> None:
        trained = (getattr(runner, "_loaded_meta", {}).get("dataset_meta") or {}).get("classes")
        classes = _classes_of(runner.test_loop, "test")
        _compare(trained, "the checkpoint", classes, "test")
        if classes:
            _check_heads(runner.model, classes, "the test set")


def _classes_of(loop, split: str) -> tuple[str, ...]:
    dataset = getattr(getattr(loop, "dataloader", None), "dataset", None)
    metainfo = getattr(dataset, "metainfo", None) or {}
    if isinstance(metainfo, list | tuple):
        # mmdet's ConcatDataset has one for each part, if they differ.
        first, *others = (tuple(part.get("classes") or ()) for part in metainfo)
        for number, classes in enumerate(others, 1):
            _compare(first, f"{split}, datasets.0", classes, f"{split}, datasets.{number}")
        return first
    return tuple(metainfo.get("classes") or ())


def _check_heads(model: nn.Module, classes: Sequence[str], source: str, remedy: str = "") -> None:
    remedy = remedy or (
        f"Set num_classes={len(classes)}; if these are not your classes, set metainfo = "
        "dict(classes=(...)) of the data sets"
    )
    for name, number in _class_counts(unwrapped(model)):
        if number != len(classes):
            raise ConfigError(
                f"{name} is {number}, but {source} has {len(classes)} classes: "
                f"{shortened(classes)}. {remedy}"
            )


def _class_counts(model: nn.Module) -> Iterator[tuple[str, int]]:
    # The heads of a panoptic model have the things or the stuff only; what fuses them has both.
    heads = _PANOPTIC if hasattr(model, "panoptic_fusion_head") else _HEADS
    for name, module in model.named_modules():
        parts = [part for part in name.split(".") if not part.isdigit()]
        count = getattr(module, "num_classes", None)
        # Heads that compare with words, or predict one mask for all classes, have no such layer.
        open_ended = getattr(module, "class_agnostic", False) or any(
            hasattr(module, name) for name in ("text_masks", "contrastive_cfg")
        )
        # A classifier has the number itself.
        is_head = not name or (parts and parts[-1] in heads)
        if is_head and isinstance(count, int) and not open_ended:
            yield ".".join(filter(None, ("model", name, "num_classes"))), count


def _compare(
    trained: Sequence[str] | None, source: str, evaluated: Sequence[str], split: str
) -> None:
    if trained and evaluated and list(trained) != list(evaluated):
        raise ConfigError(
            f"the classes of {split} differ from those of {source}, or are in another order:\n"
            f"  {source}: {shortened(trained)}\n  {split}: {shortened(evaluated)}\n"
            "A label is a position in this list. List all classes with the same ids in all "
            "annotation files. If the order differs, give all datasets the same "
            "metainfo = dict(classes=(...))"
        )
