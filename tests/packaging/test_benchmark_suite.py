"""The run of all benchmarks of a device: each part by itself, within a time, and a table."""

import importlib.util
import json
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def suite(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    spec = importlib.util.spec_from_file_location("suite", BENCHMARKS / "suite.py")
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "suite", module)  # where its dataclass looks for itself
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "RESULTS", tmp_path)
    return module


def test_parts_that_succeed_fail_and_take_too_long(suite, monkeypatch, tmp_path, capsys):
    (tmp_path / "fast.json").write_text(json.dumps({"ms": 12}))
    parts = {
        "fast": suite.Part(["-c", "print('{device}')"], "fast", lambda of: f"{of['ms']} ms"),
        "missing": suite.Part(["-c", ""], needs="no-such-program"),
        "broken": suite.Part(["-c", "import sys; print('why'); sys.exit(3)"]),
        "slow": suite.Part(["-c", "import time; print('so far', flush=True); time.sleep(60)"]),
        "late": suite.Part(["-c", "print('never')"]),
    }
    monkeypatch.setattr(suite, "PARTS", parts)
    out = tmp_path / "suite.json"
    arguments = ["--device", "cpu", "--minutes", "0.1", "--out", str(out)]
    assert suite.main(arguments) == 1
    content = json.loads(out.read_text())
    found = {name: (row["outcome"], row["figure"]) for name, row in content["parts"].items()}
    assert found == {
        "fast": ("ok", "12 ms"),
        "missing": ("not run", "no-such-program is not installed"),
        "broken": ("failed", "why"),
        "slow": ("cut off", "so far"),
        "late": ("not run", "the time was up"),
    }
    assert content["machine"]["versions"]["torch"] and "driver" in content["machine"]
    table = capsys.readouterr().out
    assert "--- fast\ncpu\n" in table and "never" not in table
    assert suite.main([*arguments, "--part", "fast", "missing"]) == 0


def test_every_part_names_what_is_there(suite):
    """A part's figure reads what its benchmark wrote on this project's machine."""
    results = BENCHMARKS / "results"
    for name, part in suite.PARTS.items():
        script = Path(part.command[0])
        if script.suffix == ".py":
            assert script.is_file(), name
        if part.results:
            stem = part.results.removesuffix("_bfloat16")  # not measured here
            text = part.figure(json.loads((results / f"{stem}.json").read_text()))
            assert isinstance(text, str)
            assert name == "abet" or any(letter.isdigit() for letter in text)
