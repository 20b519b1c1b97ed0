"""An import hook for ``mmcv._ext``, asked only after every other finder has failed."""

import importlib.abc
import importlib.machinery
import importlib.util
import sys


class MMCVExtFinder(importlib.abc.MetaPathFinder):
    """Serve :mod:`negvision.compat.mmcv_ext` under the name ``mmcv._ext``.

    Standing last on ``sys.meta_path``, it is reached only where mmcv has no compiled extension:
    a compiled one always wins.
    """

    def find_spec(self, fullname, path=None, target=None):
        if fullname != "mmcv._ext":
            return None
        substitute = importlib.util.find_spec("negvision.compat.mmcv_ext")
        return importlib.util.spec_from_file_location(
            fullname, substitute.origin, submodule_search_locations=None
        )


def provide_mmcv_ext() -> None:
    """Install the hook once. Cheap: neither mmcv nor torch is imported here."""
    if not any(isinstance(finder, MMCVExtFinder) for finder in sys.meta_path):
        sys.meta_path.append(MMCVExtFinder())
