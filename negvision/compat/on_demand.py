"""Import the modules of OpenMMLab's packages when something of them is used.

``import mmdet.models`` runs hundreds of modules, which import scikit-learn, SciPy, Matplotlib and
pandas; that takes longer than a prediction. With the hook of this module

* ``from .module import name`` in the ``__init__`` of a package is carried out when the name is
  used;
* registries take the names of their components from the text of the modules, and import a module
  when one of its components is looked up;
* the package ``imagecorruptions``, which compiles with Numba, is imported at the first call.

This changes when a module is imported, and nothing else.
"""

from __future__ import annotations

import ast
import contextlib
import importlib
import importlib.abc
import importlib.util
import os
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from functools import cache
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any, NamedTuple

from negvision.compat.quiet import quiet_imports

_PACKAGES = {"mmengine", "mmdet", "mmseg"}
# Parts of them whose modules register components and nothing else when they are imported.
_PARTS = {
    *("models", "datasets", "engine", "evaluation", "utils", "visualization"),
    *("model", "optim", "runner", "hooks", "_strategy", "infer"),
}
_SCOPES = {*_PACKAGES, "negvision"}
# Folders without components: scripts, and classes for MMEngine's own tests.
_LEFT_OUT = {".mim", "testing", "__pycache__"}
# These register optimizers of the packages that they are named after.
_STRATEGIES = ("mmengine._strategy.deepspeed", "mmengine._strategy.colossalai")
_REGISTRY = "mmengine.registry.registry"
_CORRUPTIONS = "imagecorruptions"
# `from mmdet.registry import MODELS, TRANSFORMS as T`, also over several lines. LOSSES, an old name
# of MODELS, comes from elsewhere.
_IMPORT = re.compile(
    r"^from (?:\.+registry|(\w+)(?:\.registry)?) import (\([^)]*\)|(?:.*\\\n)*.*)", re.MULTILINE
)
_NAME = re.compile(r"(\w+)(?: as (\w+))?")
# A class or function below a decorator: the registry, and the name if one is given.
_DECORATED = re.compile(
    r"^@(\w+)\.register_module\(\s*(?:name=)?(?:['\"](\w+)['\"])?[^)\[]*\)\s*\n"
    r"(?:@.*\n)*(?:class|def) (\w+)",
    re.MULTILINE,
)
_CALL = ".register_module("


def import_on_demand() -> None:
    """Install the hook once, unless MMEngine is imported already. Cheap: it imports nothing."""
    if "mmengine" not in sys.modules and not any(isinstance(f, _Finder) for f in sys.meta_path):
        sys.meta_path.insert(0, _Finder())


class _Finder(importlib.abc.MetaPathFinder):
    def find_spec(self, fullname, path=None, target=None) -> ModuleSpec | None:
        package, _, inner = fullname.partition(".")
        execute = _execute_package
        if fullname == _REGISTRY:
            execute = _execute_registry
        elif fullname == _CORRUPTIONS:
            execute = _execute_at_first_call
        elif package not in _PACKAGES or inner.partition(".")[0] not in _PARTS:
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is None or spec.loader is None:
            return None
        if execute is _execute_package and spec.submodule_search_locations is None:
            return None
        spec.loader = _Loader(spec.loader, execute)
        return spec


class _Loader(importlib.abc.Loader):
    def __init__(self, loader: Any, execute: Callable[[Any, ModuleType], None]) -> None:
        self._loader, self._execute = loader, execute

    def __getattr__(self, name: str) -> Any:  # get_source, get_data and others
        return getattr(self._loader, name)

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        with quiet_imports():
            self._execute(self._loader, module)


def _execute_package(loader: Any, module: ModuleType) -> None:
    """Run an ``__init__`` without what :func:`_deferred` puts off."""
    tree = ast.parse(loader.get_source(module.__name__))
    tree.body = [_deferred(statement) for statement in tree.body]
    module.__class__ = _Package
    vars(module)["_later"] = later = {}
    exec(compile(ast.fix_missing_locations(tree), module.__file__ or "", "exec"), vars(module))
    if "__all__" not in vars(module):
        public = {*vars(module), *later}
        vars(module)["__all__"] = [name for name in public if not name.startswith("_")]


def _deferred(statement: ast.stmt) -> ast.stmt:
    """The statement; an import from a module of the package is only noted down."""
    if isinstance(statement, ast.If):
        statement.body = [_deferred(each) for each in statement.body]
    # `from . import module` stays, and so does what stands in `try`, whose errors it handles.
    if not isinstance(statement, ast.ImportFrom) or not (statement.level and statement.module):
        return statement
    names = {alias.asname or alias.name: alias.name for alias in statement.names}
    source = "." * statement.level + statement.module
    note = f"__import__('sys').modules[__name__]._put_off({source!r}, {names!r})"
    return ast.parse(note).body[0]


class _Package(ModuleType):
    """A package that imports its names when they are used."""

    _later: dict[str, tuple[str, str]]  # name -> module, and name in it

    def _put_off(self, source: str, names: dict[str, str]) -> None:
        source = importlib.util.resolve_name(source, self.__name__)
        if "*" in names:
            names = {name: name for name in importlib.import_module(source).__all__}
        self._later.update({name: (source, original) for name, original in names.items()})

    def __getattr__(self, name: str) -> Any:
        if name in self._later:
            source, original = self._later[name]
            value = getattr(importlib.import_module(source), original)
        elif name.startswith("__") or not importlib.util.find_spec(f"{self.__name__}.{name}"):
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        else:  # a module, which would have been imported by another one
            value = importlib.import_module(f"{self.__name__}.{name}")
        vars(self)[name] = value
        return value

    def __setattr__(self, name: str, value: Any) -> None:
        # Python sets imported modules as attributes; `from .nms import nms` means the function.
        if not (isinstance(value, ModuleType) and name in self._later):
            super().__setattr__(name, value)

    def __dir__(self) -> list[str]:
        return sorted({*vars(self), *self._later})


def _execute_at_first_call(loader: Any, module: ModuleType) -> None:
    def corrupt(*args: Any, **kwargs: Any) -> Any:
        if vars(module)["corrupt"] is corrupt:
            loader.exec_module(module)
        return vars(module)["corrupt"](*args, **kwargs)

    vars(module)["corrupt"] = corrupt


def _execute_registry(loader: Any, module: ModuleType) -> None:
    """Run ``mmengine.registry.registry``, and give its registries :class:`_Components`."""
    loader.exec_module(module)
    registry: Any = vars(module)["Registry"]
    import_locations, register = registry.import_from_location, registry._register_module

    def import_from_location(self) -> None:
        if self.scope not in _SCOPES:
            import_locations(self)

    def register_module(self, module, module_name=None, force=False) -> None:
        names = [module_name] if isinstance(module_name, str) else module_name
        with self.module_dict.registering(names or [module.__name__], _registering_package()):
            register(self, module, module_name, force)

    registry.import_from_location = import_from_location
    registry._register_module = register_module
    # Registries set this attribute to an empty dict.
    registry._module_dict = property(
        lambda self: self._components,
        lambda self, empty: setattr(self, "_components", _Components(self)),
    )


def _registering_package() -> str:
    """The package of the module that registers a component."""
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_globals["__name__"] in (__name__, _REGISTRY):
        frame = frame.f_back
    return frame.f_globals["__name__"].partition(".")[0]


class _Components(dict):
    """Components by name, imported when they are looked up.

    The names are complete; ``values()`` are the components that are imported, since nothing is an
    instance of another one.
    """

    def __init__(self, registry: Any) -> None:
        super().__init__()
        self._registry = registry
        self._modules: dict[str, list[str]] | None = None
        self._is_complete = False

    @contextlib.contextmanager
    def registering(self, names: list[str], package: str) -> Iterator[None]:
        """Inside, only names that have been registered exist."""
        if package not in {*_SCOPES, "mmcv"}:
            # As if everything were imported: the name is taken, or replaced for good.
            for name in names:
                self.get(name)
        before, self._is_complete = self._is_complete, True
        try:
            yield
        finally:
            self._is_complete = before

    def _names(self) -> dict[str, list[str]]:
        """The names in the modules of the packages, and where they are."""
        if self._modules is None:
            self._modules = {}  # already while the modules below are imported
            if self._registry.scope in _SCOPES:
                others = _find_components(self._registry, self._modules)
                for module in others:
                    importlib.import_module(module)
        return self._modules

    def __contains__(self, name: object) -> bool:
        if not super().__contains__(name) and not self._is_complete:
            for module in self._names().get(name, ()):
                # Packages leave out components whose own dependencies are missing.
                with contextlib.suppress(ImportError):
                    importlib.import_module(module)
        return super().__contains__(name)

    def __getitem__(self, name: str) -> Any:
        if name not in self:
            raise KeyError(name)
        return super().__getitem__(name)

    def get(self, name: str, default: Any = None) -> Any:
        return super().get(name, default) if name in self else default

    def __iter__(self) -> Iterator[str]:
        names = self._names()  # which may import modules
        return iter(dict.fromkeys([*super().__iter__(), *names]))

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def keys(self):
        return dict.fromkeys(self).keys()

    def items(self):
        return {name: self[name] for name in self if name in self}.items()


# The package of a registry, and its constant there.
_Where = tuple[str, str]


class _Module(NamedTuple):
    """A module that registers components."""

    name: str
    named: list[tuple[_Where, str]]  # components whose names are known from the text
    other: set[_Where]  # registries that get others too


def _find_components(registry: Any, names: dict[str, list[str]]) -> list[str]:
    """Add the names of ``registry`` to ``names``; modules that register others."""
    scope = registry.scope
    constants = vars(importlib.import_module(f"{scope}.registry")).items()
    own = {(scope, constant) for constant, value in constants if value is registry}
    # All packages fill the registries of MMEngine.
    packages = ("mmengine", "mmcv", "mmdet", "mmseg") if scope == "mmengine" else (scope,)
    others = []
    for module in (module for package in packages for module in _registering_modules(package)):
        for where, name in module.named:
            if where in own:
                names.setdefault(name, []).append(module.name)
        if module.other & own:
            others.append(module.name)
    return others


@cache
def _registering_modules(package: str) -> list[_Module]:
    spec = importlib.util.find_spec(package)
    if spec is None or spec.submodule_search_locations is None:
        return []
    root = spec.submodule_search_locations[0]
    found = []
    for folder, folders, files in os.walk(root):
        folders[:] = [name for name in folders if name not in _LEFT_OUT]
        for file in (os.path.join(folder, name) for name in files if name.endswith(".py")):
            with open(file, "rb") as opened:
                content = opened.read()
            if _CALL.encode() in content:
                inner = file[len(root) : -len(".py")].replace(os.sep, ".")
                name = package + inner.removesuffix(".__init__")
                found.append(_read_module(package, name, content.decode()))
    return found


def _read_module(package: str, name: str, text: str) -> _Module:
    origins: dict[str, _Where] = {}
    for source, constants in _IMPORT.findall(text):
        for constant, alias in _NAME.findall(constants):
            origins[alias or constant] = (source or package, constant)

    def where(constant: str) -> _Where:
        return origins.get(constant, (package, "MODELS" if constant == "LOSSES" else constant))

    named = [(where(each[1]), each[2] or each[3]) for each in _DECORATED.finditer(text)]
    calls = Counter(map(where, _called_registries(text)))
    calls.subtract(where for where, _ in named)
    if name in _STRATEGIES and importlib.util.find_spec(name.rpartition(".")[2]) is None:
        calls.clear()
    return _Module(name, named, {where for where, count in calls.items() if count > 0})


def _called_registries(text: str) -> Iterator[str]:
    """The constant of each call that is not an example of a docstring."""
    start = -1
    while (start := text.find(_CALL, start + 1)) >= 0:  # an expression would search much longer
        line = text[text.rfind("\n", 0, start) + 1 : start]
        if ">>>" not in line and (constant := re.search(r"\w+$", line)):
            yield constant[0]
