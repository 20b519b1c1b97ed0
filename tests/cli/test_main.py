import sys
from types import ModuleType

import pytest

from negvision.cli.main import COMMANDS, main


@pytest.mark.parametrize("argv", [[], ["--help"], ["help"]])
def test_help_lists_every_command(capsys, argv):
    assert main(argv) == 0
    printed = capsys.readouterr().out
    for command in COMMANDS:
        assert command in printed


def test_unknown_command_names_the_nearest(capsys):
    assert main(["trian"]) == 2
    assert "no command 'trian'; nearest: 'train'" in capsys.readouterr().err


def test_command_gets_the_rest_of_the_line(monkeypatch):
    seen = []
    module = ModuleType("negvision.cli.browse_dataset")
    module.main = lambda argv: seen.append(argv) or 7
    monkeypatch.setitem(sys.modules, "negvision.cli.browse_dataset", module)
    assert main(["browse-dataset", "a.py", "--count", "3"]) == 7
    assert seen == [["a.py", "--count", "3"]]
