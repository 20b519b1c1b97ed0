"""Make MMEngine read data files without running what may be hidden in them."""

import yaml
from mmengine.fileio.handlers import PickleHandler, YamlHandler

from negvision.compat.patches import replace_file_handlers
from negvision.errors import DatasetError


class _NoPickles(PickleHandler):
    """Writes pickles as before, and reads none."""

    def load_from_fileobj(self, file, **kwargs):
        raise DatasetError(
            f"{getattr(file, 'name', 'a data file (.pkl)')}: was not loaded: it is a pickle, a "
            "program that can run any code. Convert it to JSON; if you know where it comes from, "
            "pass --trust-checkpoint"
        )


class _PlainYaml(YamlHandler):
    """Reads plain values; MMEngine's reader makes any Python object that a file names."""

    def load_from_fileobj(self, file, **kwargs):
        try:
            return yaml.load(file, yaml.SafeLoader)
        except (yaml.YAMLError, RecursionError) as error:
            name = getattr(file, "name", "a data file (.yaml)")
            raise DatasetError(f"{name}: is not YAML of plain values ({error}).") from None


def install_file_handlers(trust: bool = False) -> None:
    """Replace the readers that ``mmengine.fileio.load`` has for pickles and YAML.

    Annotation files, proposals and the like are read by it wherever a data set is MMEngine's or
    mmdet's own.

    Args:
        trust: Unpickle whatever a file holds, which can run any code.
    """
    pickles = PickleHandler() if trust else _NoPickles()
    replace_file_handlers(
        {"pkl": pickles, "pickle": pickles, "yaml": _PlainYaml(), "yml": _PlainYaml()}
    )
