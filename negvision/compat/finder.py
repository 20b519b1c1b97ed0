"""An import hook for ``mmcv._ext``, used only after every other finder has failed."""

import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import sys

SUBSTITUTE = "negvision.compat.mmcv_ext"


class SubstituteLoader(importlib.abc.Loader):
    """Fill ``mmcv._ext`` with the functions of :mod:`negvision.compat.mmcv_ext`.

    The functions are copied into a new module. With an alias, the import machinery would write the
    name ``mmcv._ext`` into the substitute's spec.
    """

    def exec_module(self, module):
        substitute = importlib.import_module(SUBSTITUTE)
        module.__doc__ = substitute.__doc__
        module.__file__ = substitute.__file__
        module.__getattr__ = substitute.__getattr__
        for name in substitute.__all__:
            setattr(module, name, getattr(substitute, name))


class MMCVExtFinder(importlib.abc.MetaPathFinder):
    """Serve :mod:`negvision.compat.mmcv_ext` under the name ``mmcv._ext``.

    It is last on ``sys.meta_path``, so a compiled extension of mmcv always wins.
    """

    def find_spec(self, fullname, path=None, target=None):
        if fullname != "mmcv._ext":
            return None
        found = importlib.util.find_spec(SUBSTITUTE)
        origin = None if found is None else found.origin
        return importlib.machinery.ModuleSpec(fullname, SubstituteLoader(), origin=origin)


def provide_mmcv_ext() -> None:
    """Install the hook once. Cheap: neither mmcv nor torch is imported here."""
    if not any(isinstance(finder, MMCVExtFinder) for finder in sys.meta_path):
        sys.meta_path.append(MMCVExtFinder())
