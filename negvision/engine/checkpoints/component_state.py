"""State that the parts of a training keep in plain attributes, which no state dict holds.

mmdet's ``BatchSyncRandomResize`` keeps the size it drew, the head of Dynamic R-CNN the overlaps it
saw, ``EarlyStoppingHook`` its count; a preprocessor may draw from a generator of its own.
"""

import random
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

import numpy as np
import torch
from mmengine.hooks import EarlyStoppingHook, Hook
from torch import Tensor, nn

# Hooks of these packages draw nothing and save what they need, or compute it anew; the attributes
# of EarlyStoppingHook are saved here.
_STOCK_PACKAGES = ("mmengine", "mmdet", "mmseg", "negvision")
# Objects of these packages are no parts of a model: functions, loggers, message hubs.
_NO_PARTS = ("builtins", "functools", "logging", "threading", "torch", "mmengine")
_MODULE_ATTRIBUTES = frozenset(vars(nn.Module()))
# An assigner is an attribute of a head, and its overlap calculator one of the assigner.
_DEPTH = 3

# A path, a value, and the function that sets it.
_Leaf = tuple[str, Any, Callable[[Any], Any]]


class ComponentState:
    """Numbers and generators in attributes of modules and hooks, as far as they change.

    Attributes that are as they were at construction are not saved, so changes of the config count
    in a resumed run. Of hooks of other packages, as of modules, numbers and containers of numbers
    are saved, and generators of Python, NumPy and PyTorch; flags, text and tensors are not.

    Args:
        model: Not wrapped.
        hooks: Of the runner.

    Example:
        >>> model = nn.Sequential(nn.Dropout(0.5))
        >>> state = ComponentState(model, [])
        >>> model[0].p = 0.25
        >>> state.changed()
        {'model.0.p': 0.25}
    """

    def __init__(self, model: nn.Module, hooks: Iterable[Hook]) -> None:
        self._model, self._hooks = model, list(hooks)
        self._initial = {path: value for path, value, _ in self._leaves()}

    def changed(self) -> dict[str, object]:
        """Values by path that differ from those at construction."""
        missing = object()
        initial = self._initial
        return {p: v for p, v, _ in self._leaves() if not _equal(initial.get(p, missing), v)}

    def restore(self, saved: dict[str, object]) -> None:
        """Set what :meth:`changed` returned; paths that do not exist any more are left out."""
        # An attribute may be None until it is first drawn, so it is no leaf yet.
        for path, _, put in list(self._leaves(absent=saved)):
            if path in saved:
                put(saved[path])

    def _leaves(self, absent: Iterable[str] = ()) -> Iterator[_Leaf]:
        absent, seen = set(absent), set()
        for name, module in self._model.named_modules():
            path = f"model.{name}" if name else "model"
            yield from _attributes(module, path, _DEPTH, seen, absent)
        count: Counter[str] = Counter()
        for hook in self._hooks:
            kind = type(hook)
            name = f"hook.{kind.__name__}.{count[kind.__name__]}"
            count[kind.__name__] += 1
            if _package(hook) not in _STOCK_PACKAGES or isinstance(hook, EarlyStoppingHook):
                yield from _attributes(hook, name, 0, seen, absent)


def _attributes(
    owner: object, path: str, depth: int, seen: set[int], absent: set[str]
) -> Iterator[_Leaf]:
    if id(owner) in seen:
        return
    seen.add(id(owner))
    for name, value in list(vars(owner).items()):
        if not isinstance(owner, nn.Module) or name not in _MODULE_ATTRIBUTES:
            put = partial(setattr, owner, name)
            yield from _values(value, f"{path}.{name}", put, depth, seen, absent)


def _values(
    value: object,
    path: str,
    put: Callable[[Any], Any],
    depth: int,
    seen: set[int],
    absent: set[str],
) -> Iterator[_Leaf]:
    if value is None:
        if path in absent:
            yield path, None, put
    elif _is_numeric(value):
        as_deque = partial(deque, maxlen=value.maxlen) if isinstance(value, deque) else None
        yield path, _copied(value), (lambda v: put(as_deque(v))) if as_deque else put
    elif isinstance(value, random.Random) and not isinstance(value, random.SystemRandom):
        yield path, value.getstate(), value.setstate
    elif isinstance(value, np.random.RandomState):
        yield path, value.get_state(legacy=False), value.set_state
    elif isinstance(value, np.random.Generator):
        bits = value.bit_generator
        yield path, bits.state, partial(setattr, bits, "state")
    elif isinstance(value, torch.Generator):
        yield path, value.get_state(), lambda state: value.set_state(state.cpu())
    elif depth and isinstance(value, list | tuple):
        for number, item in enumerate(value):
            if not _is_numeric(item):
                yield from _values(item, f"{path}.{number}", put, depth, seen, set())
    elif depth and _is_part(value):
        yield from _attributes(value, path, depth - 1, seen, absent)


def _is_part(value: object) -> bool:
    """Whether ``value`` is an object such as an assigner; modules are visited by themselves."""
    is_object = hasattr(value, "__dict__") and not isinstance(value, nn.Module | Tensor | type)
    return is_object and _package(value) not in _NO_PARTS


def _package(value: object) -> str:
    return type(value).__module__.partition(".")[0]


def _is_numeric(value: object) -> bool:
    # Not of derived types, such as a named tuple, which a copy would lose.
    if type(value) in (list, tuple, deque):
        return all(map(_is_numeric, value))  # ty: ignore[invalid-argument-type]
    if type(value) is dict:
        return all(isinstance(k, int | str) and _is_numeric(v) for k, v in value.items())
    numbers = int | float | np.integer | np.floating
    return isinstance(value, numbers) and not isinstance(value, bool)


def _copied(value):
    """A copy in Python's types, which a checkpoint may hold."""
    if isinstance(value, dict):
        return {key: _copied(item) for key, item in value.items()}
    if isinstance(value, tuple):
        return tuple(map(_copied, value))
    if isinstance(value, list | deque):
        return list(map(_copied, value))
    return int(value) if isinstance(value, int | np.integer) else float(value)


def _equal(first: object, second: object) -> bool:
    if isinstance(first, Tensor) and isinstance(second, Tensor):
        return torch.equal(first, second)
    if isinstance(first, dict) and isinstance(second, dict):
        return first.keys() == second.keys() and all(_equal(first[k], second[k]) for k in first)
    if isinstance(first, np.ndarray) or isinstance(second, np.ndarray):
        return np.array_equal(first, second)  # ty: ignore[invalid-argument-type]
    return type(first) is type(second) and first == second
