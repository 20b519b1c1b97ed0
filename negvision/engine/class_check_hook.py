"""Compare the classes of datasets and model: a label is only a position in a list."""

from collections.abc import Iterator, Sequence

from mmengine.hooks import Hook
from torch import nn

from negvision.engine.config.model_parts import unwrapped
from negvision.errors import ConfigError
from negvision.registry import HOOKS

# Modules, or lists of modules, whose classes are those of the dataset.
_HEADS = {"bbox_head", "mask_head", "decode_head", "auxiliary_head"}


@HOOKS.register_module()
class ClassCheckHook(Hook):
    """Refuse to train or test if the classes of data and model differ.

    These mistakes raise no error otherwise: a head with too few classes trains objects of the last
    classes as background, and a class missing in the annotations of ``val`` shifts all labels
    after it. Datasets without class names, such as faces, are not checked.

    Raises:
        ConfigError: ``num_classes`` of a head is not the number of classes of the training set, or
            the classes of ``val`` (in a test: of the checkpoint) differ or have another order.

    Example:
        >>> default_hooks = dict(classes=dict(type="negvision.ClassCheckHook"))
    """

    def before_train(self, runner) -> None:
        classes = _classes_of(runner.train_loop)
        if not classes:
            return
        model = unwrapped(runner.model)
        for name, number in _class_counts(model):
            if number != len(classes):
                raise ConfigError(
                    f"model.{name}.num_classes is {number}, but the training set has "
                    f"{len(classes)} classes: {_shown(classes)}. Set num_classes={len(classes)}"
                )
        _compare(classes, "the training set", _classes_of(runner.val_loop), "val")

    def before_test(self, runner) -> None:
        trained = (getattr(runner, "_loaded_meta", {}).get("dataset_meta") or {}).get("classes")
        _compare(trained, "the checkpoint", _classes_of(runner.test_loop), "test")


def _classes_of(loop) -> tuple[str, ...]:
    dataset = getattr(getattr(loop, "dataloader", None), "dataset", None)
    return tuple((getattr(dataset, "metainfo", None) or {}).get("classes") or ())


def _class_counts(model: nn.Module) -> Iterator[tuple[str, int]]:
    for name, module in model.named_modules():
        parts = [part for part in name.split(".") if not part.isdigit()]
        if parts and parts[-1] in _HEADS and isinstance(getattr(module, "num_classes", None), int):
            yield name, module.num_classes


def _compare(
    trained: Sequence[str] | None, source: str, evaluated: Sequence[str], split: str
) -> None:
    if trained and evaluated and list(trained) != list(evaluated):
        raise ConfigError(
            f"the classes of {split} differ from those of {source}, or are in another order:\n"
            f"  {source}: {_shown(trained)}\n  {split}: {_shown(evaluated)}\n"
            "A label is a position in this list. List all classes with the same ids in all "
            "annotation files. If the order differs, give all datasets the same "
            "metainfo = dict(classes=(...))"
        )


def _shown(classes: Sequence[str]) -> str:
    rest = f", ... ({len(classes)})" if len(classes) > 20 else ""
    return ", ".join(map(str, classes[:20])) + rest
