"""The program: help, usage errors, and the price of both."""

import subprocess
import sys

import pytest

from negvision.cli import doctor
from negvision.cli.main import COMMANDS, main
from negvision.errors import DatasetError, UserError

HEAVY = {"torch", "mmengine", "mmcv", "mmdet", "mmseg", "numpy", "cv2", "onnxruntime", "gradio"}


@pytest.mark.parametrize("argv", [[], ["--help"]])
def test_help_lists_every_command(capsys, argv):
    if argv:
        with pytest.raises(SystemExit, match="0"):
            main(argv)
    else:
        assert main(argv) == 0
    printed = capsys.readouterr().out
    assert all(command in printed for command in COMMANDS)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["trian"], "no command 'trian'; nearest: 'train'"),
        (
            ["train", "a", "--wrok-dir", "b"],
            "--wrok-dir is not an option; nearest: '--work-dir'",
        ),
        (["predict", "a.onnx", "b.png", "--uot=c"], "--uot is not an option; nearest: '--out'"),
        (["browse-dataset", "a.py", "--out-dir", "b"], "--out-dir is not an option; it is --out"),
        (["predict", "a.onnx", "b.png", "--conf", "1"], "it is --score-threshold here"),
        (["train", "a.py", "--cfg-options", "lr"], "--cfg-options: 'lr' is not KEY=VALUE"),
        (["train", "--accumulate", "a.py"], "the config comes before the options"),
        (["make-ood-split", "boxes"], "invalid choice: 'boxes'"),
    ],
)
def test_usage_errors(capsys, argv, message):
    with pytest.raises(SystemExit, match="2"):
        main(argv)
    assert message in capsys.readouterr().err


class MarkedElsewhere(ValueError):
    is_user_error = True


@pytest.mark.parametrize("kind", [UserError, MarkedElsewhere, DatasetError])
def test_user_errors_are_one_block_and_status_2(monkeypatch, capsys, kind):
    def fail(args):
        raise kind("box 3 is wrong")

    monkeypatch.setattr(doctor, "run", fail)
    assert main(["doctor"]) == 2
    assert capsys.readouterr().err == f"\n{kind.__name__}: box 3 is wrong\n\n"


def test_any_other_error_is_one_block_and_status_2(monkeypatch, capsys):
    monkeypatch.setattr(doctor, "run", lambda args: [][0])
    assert main(["doctor"]) == 2
    printed = capsys.readouterr().err
    assert printed.startswith("\nIndexError: list index out of range\n--debug prints the traceback")
    assert "Traceback" not in printed
    assert main(["doctor", "--debug"]) == 2
    assert "Traceback (most recent call last)" in capsys.readouterr().err


def test_debug_is_an_option_of_the_commands_of_commands(tmp_path, capsys):
    argv = ["detection", str(tmp_path / "a.json"), "--held-out", "cat", "--out", str(tmp_path)]
    for words in (["--debug", *argv], [*argv, "--debug"]):
        assert main(["make-ood-split", *words]) == 2
        assert "MissingDataError: " in (printed := capsys.readouterr().err)
        assert "Traceback (most recent call last)" in printed


@pytest.mark.parametrize("last", ["--help", "--no-such-option"])
def test_help_and_usage_errors_import_nothing_heavy(last):
    """All commands in one new process, whose modules are listed at the end."""
    code = f"""
import contextlib, io, sys
from negvision.cli import doctor
from negvision.cli.main import COMMANDS, main
from negvision.errors import DatasetError, UserError
for command in COMMANDS:
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        try:
            main([command, {last!r}])
        except SystemExit as end:
            assert end.code == {0 if last == "--help" else 2}, (command, end.code)
print(sorted({HEAVY!r} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=600)
    assert done.stdout == "[]\n", done.stdout + done.stderr


@pytest.mark.parametrize("command", ["train", "test"])
def test_first_line_is_printed_before_the_slow_imports(tmp_path, command):
    """With torch hidden, the line is all that is printed before the import fails."""
    (tmp_path / "a.pth").touch()
    argv = [command, "a.py", *([str(tmp_path / "a.pth")] if command == "test" else [])]
    code = (
        "import sys; sys.modules['torch'] = sys.modules['mmengine'] = None\n"
        f"from negvision.cli.main import main; sys.exit(main({argv!r}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=600)
    assert done.returncode == 2 and "activate the environment" in done.stderr
    assert done.stdout.startswith("negvision ") and done.stdout.endswith(": loading a.py\n")


def test_python_m_negvision():
    command = [sys.executable, "-m", "negvision", "--version"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=True)
    assert done.stdout.strip().count(".") == 2
