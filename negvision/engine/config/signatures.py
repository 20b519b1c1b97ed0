"""Which keyword arguments a component's constructor takes."""

import ast
import inspect
import textwrap
from collections.abc import Callable
from functools import cache


@cache
def accepted_keywords(component: Callable) -> tuple[frozenset[str], bool]:
    """The keyword arguments of a constructor, those its ``**kwargs`` pass on to parents included.

    Returns:
        The names, and whether the list is complete. It is not where ``**kwargs`` are used for
        anything but a parent's constructor, or where no parent ends the chain.

    Example:
        >>> class Base:
        ...     def __init__(self, depth): ...
        >>> class Child(Base):
        ...     def __init__(self, width, **kwargs):
        ...         super().__init__(**kwargs)
        >>> names, complete = accepted_keywords(Child)
        >>> sorted(names), complete
        (['depth', 'width'], True)
    """
    if not inspect.isclass(component):
        names, closed = _keywords(component)
        return frozenset(names), closed
    names: set[str] = set()
    complete = False
    # With several bases `super(Other, self)` may skip a class in line: then all of them count.
    one_line = all(len(cls.__bases__) <= 1 for cls in component.__mro__)
    for cls in component.__mro__:
        if cls is object or "__init__" not in vars(cls):
            continue
        own, closed = _keywords(cls.__init__)
        names |= own
        complete = complete or closed
        if closed and one_line:
            break
        if not closed and not _passes_kwargs_on(cls.__init__):
            return frozenset(names), False
    return frozenset(names), complete


def _keywords(function: Callable) -> tuple[set[str], bool]:
    if hasattr(function, "__wrapped__"):
        # A decorator may take more than it shows, as mmcv's does for arguments of old names.
        return set(), False
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return set(), False
    names = {p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
    return names - {"self"}, not any(p.kind is p.VAR_KEYWORD for p in parameters)


def _passes_kwargs_on(function: Callable) -> bool:
    """Whether every use of ``**kwargs`` in ``function`` is in a call of ``X.__init__``."""
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    except (OSError, TypeError, SyntaxError):
        return False
    kwarg = tree.body[0].args.kwarg and tree.body[0].args.kwarg.arg
    uses = sum(isinstance(node, ast.Name) and node.id == kwarg for node in ast.walk(tree))
    passed_on = sum(
        isinstance(keyword.value, ast.Name) and keyword.value.id == kwarg
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr == "__init__"
        for keyword in node.keywords
        if keyword.arg is None
    )
    return 0 < uses == passed_on
