"""Compare the classes of data sets and model: labels are places in a list, and nothing else."""

from collections.abc import Iterator, Sequence

from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from torch import nn

from negvision.errors import ConfigError
from negvision.registry import HOOKS

# Names of the modules, or of the lists they are in, whose classes are those of the data set.
_HEADS = {"bbox_head", "mask_head", "decode_head", "auxiliary_head"}


@HOOKS.register_module()
class ClassCheckHook(Hook):
    """Refuse to train or test where the classes of data and model are not the same.

    Otherwise, no error would come up: of a head with too few classes, objects of the last ones
    are trained as background, and a class that the annotations of ``val`` do not list moves all
    labels behind it. Data sets without names of classes, such as faces, are left alone.

    Raises:
        ConfigError: ``num_classes`` of a head is not the number of classes of the training set;
            those of ``val``, or in a test those that the checkpoint was trained on, are others or
            in another order.

    Example:
        >>> default_hooks = dict(classes=dict(type="negvision.ClassCheckHook"))
    """

    def before_train(self, runner) -> None:
        classes = _classes_of(runner.train_loop)
        if not classes:
            return
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
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
            f"the classes of {split} are not those of {source}, or in another order:\n"
            f"  {source}: {_shown(trained)}\n  {split}: {_shown(evaluated)}\n"
            "A label is a place in this list. Let the annotation files list all classes, with the "
            "same ids, and give all datasets the same metainfo = dict(classes=(...)) where the "
            "order differs"
        )


def _shown(classes: Sequence[str]) -> str:
    rest = f", ... ({len(classes)})" if len(classes) > 20 else ""
    return ", ".join(map(str, classes[:20])) + rest
