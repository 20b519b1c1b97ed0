"""The model inside a wrapper, and the modules of it that a config names."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from mmengine.model import BaseModel, is_model_wrapper
from torch import nn

from negvision.errors import ConfigError, did_you_mean

_CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)


def unwrapped(model: nn.Module) -> BaseModel:
    """``model`` without its wrapper for several processes."""
    return model.module if is_model_wrapper(model) else model


def replace_method(owner: Any, name: str, function: Callable) -> Callable[[], None]:
    """Let an object call ``function`` as ``name``; returns what undoes it.

    Another function may have been put on top since. It then stays, with this one below it, so a
    function must be of no effect once it is not wanted.

    Example:
        >>> words, parrot = [], nn.Identity()
        >>> undo = replace_method(parrot, "say", words.append)
        >>> parrot.say("hello"), undo(), words, hasattr(parrot, "say")
        (None, None, ['hello'], False)
    """
    before = vars(owner).get(name)
    setattr(owner, name, function)

    def undo() -> None:
        if vars(owner).get(name) is function:
            delattr(owner, name)
            if before is not None:
                setattr(owner, name, before)

    return undo


def model_parts(model: nn.Module, names: Iterable[str], key: str) -> list[nn.Module]:
    """The modules that ``names`` stand for, each once, none inside another.

    A name is a path such as ``"neck"``. A container (``Sequential``, ``ModuleList``) stands
    for its modules, since some models call them one by one. ``"backbone"`` stands for its blocks.

    Args:
        model: Without a wrapper.
        names: Paths.
        key: The config's key, for error messages.

    Raises:
        ConfigError: The model has no such module.

    Example:
        >>> block = lambda: nn.Sequential(nn.Linear(2, 2), nn.ReLU())
        >>> model = nn.ModuleDict(dict(stage=nn.Sequential(block(), block()), neck=nn.Linear(2, 2)))
        >>> [len(list(part.children())) for part in model_parts(model, ["stage", "neck"], "shard")]
        [2, 2, 0]
    """
    parts: dict[nn.Module, None] = {}
    for name in names:
        try:
            module = model.get_submodule(name)
        except AttributeError:
            known = [path for path, _ in model.named_modules() if path]
            top = ", ".join(name for name, _ in model.named_children())
            raise ConfigError(
                f"{key} names {name!r}, but {type(model).__name__} has no such module"
                + (did_you_mean(name, known) or f"; it has {top}")
            ) from None
        inside = _blocks(module) if name.rpartition(".")[2] == "backbone" else _in_a_row(module)
        parts.update(dict.fromkeys(inside or [module]))
    nested = {inner for part in parts for inner in part.modules() if inner is not part}
    return [part for part in parts if part not in nested]


def _blocks(module: nn.Module) -> list[nn.Module]:
    """The outermost modules inside ``module`` that have children."""
    return [block for child in module.children() if not _is_leaf(child) for block in _row(child)]


def _in_a_row(module: nn.Module) -> list[nn.Module]:
    return list(_row(module)) if isinstance(module, _CONTAINERS) else []


def _row(module: nn.Module) -> Iterator[nn.Module]:
    children = list(module.children())
    made_of_layers = isinstance(module, nn.Sequential) and all(map(_is_leaf, children))
    if made_of_layers or not isinstance(module, _CONTAINERS):
        yield module
        return
    for child in children:
        if not _is_leaf(child):
            yield from _row(child)


def _is_leaf(module: nn.Module) -> bool:
    return next(module.children(), None) is None
