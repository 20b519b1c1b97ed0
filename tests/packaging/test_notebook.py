"""docs/first_model.ipynb: its cells run in order, and its outputs are of one run."""

import json
import re
import shlex

import pytest
from helpers import ROOT

from negvision.cli.main import main
from negvision.engine.recipes.models import LITE0

CELLS = json.loads((ROOT / "docs" / "first_model.ipynb").read_text())["cells"]
CODE = [cell for cell in CELLS if cell["cell_type"] == "code"]


@pytest.mark.slow
def test_cells_run_in_order_in_a_shorter_time(tmp_path, monkeypatch, capsys):
    pytest.importorskip(LITE0.replace("-", "_"))
    monkeypatch.chdir(tmp_path)

    def command(line: str) -> None:
        # The exporter of torch before 2.9 takes a fraction of the time.
        assert main([*shlex.split(line)[1:], "--legacy"]) == 0, line

    names = {"command": command}
    for cell in CODE:
        # Lines for the shell.
        text = re.sub(r"^!(.+)$", r'command(f"\1")', "".join(cell["source"]), flags=re.MULTILINE)
        for long, short in (("iters=60", "iters=8"), ("score_threshold=0.3", "score_threshold=0")):
            text = text.replace(long, short)
        exec(compile(text, "first_model.ipynb", "exec"), names)
    assert "compared with PyTorch: 20 images" in capsys.readouterr().out
    exported = names["exported"](names["photo"])
    assert names["counts"].total() and names["found"].names == exported.names


def test_outputs_are_of_one_run_without_errors():
    assert [cell["execution_count"] for cell in CODE] == list(range(1, len(CODE) + 1))
    outputs = [output for cell in CODE for output in cell["outputs"]]
    assert {output["output_type"] for output in outputs} == {"stream", "execute_result"}
    assert all(output.get("name") != "stderr" for output in outputs)
    text = json.dumps(outputs)
    assert "image/png" in text and "trained for 60 of 60 iters" in text and '"/' not in text
