"""``negvision serve``: its options and errors."""

import socket
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from helpers.commands import command

main = command("serve")

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--port", "70000"], "--port: '70000' is not a port from 0 to 65535"),
        (["--max-pixels", "0"], "--max-pixels: '0' is not an integer above 0"),
        (["--max-upload-mb", "0"], "--max-upload-mb: '0' is not a number above 0"),
        (["--max-upload-mb", "nan"], "--max-upload-mb: 'nan' is not a number above 0"),
        (["--score-threshold", "1.5"], "--score-threshold: '1.5' is not a number from 0 to 1"),
        (["--root-path", "demo"], "--root-path: 'demo' is not a path such as /demo, or a URL"),
        (["--allowed-host", "https://a.b"], "'https://a.b' is not a name without scheme and port"),
        (["--allowed-host", "ab:80"], "--allowed-host: 'ab:80' is not a name without scheme"),
        (["--host", "192.0.2.1"], "cannot listen on 192.0.2.1, port 7860: "),
    ],
)
def test_invalid_options(capsys, options, message):
    assert main(["no_such_model.onnx", *options]) == 2
    assert message in capsys.readouterr().err


def test_port_in_use_is_reported_before_loading(capsys):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        assert main(["no_such_model.onnx", "--port", str(port)]) == 2
    assert f"127.0.0.1, port {port}: Address already in use" in capsys.readouterr().err


def test_missing_gradio_is_reported_with_the_command(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "gradio", None)
    assert main(["no_such_model.onnx", "--port", "0"]) == 2
    said = capsys.readouterr().err
    assert "gradio is not installed" in said and "-r requirements/serve.txt" in said


def test_missing_model_is_an_error(capsys, tmp_path):
    pytest.importorskip("gradio", reason="gradio is not installed (requirements/serve.txt)")
    # In a process of its own: Gradio reads the environment that the command sets.
    command = [sys.executable, "-m", "negvision", "serve", tmp_path / "no.onnx", "--port", "0"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, cwd=ROOT)
    assert done.returncode == 2 and "no.onnx' does not exist" in done.stderr
    assert done.stdout == ""


def test_exported_models_are_served_without_torch():
    script = """
        import sys
        import negvision.cli.serve, negvision.cli.serving.page
        found = {name.partition(".")[0] for name in sys.modules}
        print(sorted(found & {"torch", "mmengine", "mmcv", "mmdet", "mmseg"}))
    """
    pytest.importorskip("gradio", reason="gradio is not installed (requirements/serve.txt)")
    command = [sys.executable, "-c", textwrap.dedent(script)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, cwd=ROOT)
    assert done.stdout == "[]\n", done.stderr
