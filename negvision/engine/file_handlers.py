"""Make MMEngine read data files without running code that may be hidden in them."""

import yaml
from mmengine.fileio.handlers import PickleHandler, YamlHandler

from negvision.compat.patches import replace_file_handlers
from negvision.errors import DatasetError


class _NoPickles(PickleHandler):
    """Writes pickles, but refuses to read them."""

    def load_from_fileobj(self, file, **kwargs):
        raise DatasetError(
            f"{getattr(file, 'name', 'a data file (.pkl)')}: not loaded: a pickle can run any "
            "code. Convert it to JSON, or, if you trust its source, pass --trust-checkpoint"
        )


class _PlainYaml(YamlHandler):
    """Reads plain values; MMEngine's reader creates any Python object that a file names."""

    def load_from_fileobj(self, file, **kwargs):
        try:
            return yaml.load(file, yaml.SafeLoader)
        except (yaml.YAMLError, RecursionError) as error:
            name = getattr(file, "name", "a data file (.yaml)")
            raise DatasetError(f"{name}: is not YAML with plain values only ({error})") from None


def install_file_handlers(trust: bool = False) -> None:
    """Replace the readers of ``mmengine.fileio.load`` for pickles and YAML.

    The datasets of MMEngine and mmdet read annotation files and proposals by it.

    Args:
        trust: Unpickle any object, which can run any code.
    """
    pickles = PickleHandler() if trust else _NoPickles()
    replace_file_handlers(
        {"pkl": pickles, "pickle": pickles, "yaml": _PlainYaml(), "yml": _PlainYaml()}
    )
