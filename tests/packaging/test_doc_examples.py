"""Code of the documentation, run as it stands."""

import ast
import doctest
import re
import textwrap
from pathlib import Path

import mmseg
import pytest
from helpers import ROOT
from mmengine.registry import MODELS, init_default_scope

from negvision.engine.config.check import accepted_keywords, check_config
from negvision.engine.config.components import find_components
from negvision.engine.config.reading import load_config

DOCS = ROOT / "docs"
# A page whose components are its own is run by test_add_a_component.py.
PAGES = [p for p in (ROOT / "README.md", *sorted(DOCS.glob("*.md"))) if p.stem != "add-a-component"]
SWAPS = DOCS / "swap.md"


def python_blocks(page: Path) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)


def _configs() -> list:
    blocks = [block for block in python_blocks(SWAPS) if block.startswith("_base_")]
    assert len(blocks) >= 8
    return [pytest.param(b, id=re.search(r"negvision\.(\w+)", b)[1]) for b in blocks]


@pytest.mark.parametrize("block", _configs())
def test_swap_is_a_config_whose_model_can_be_built(block, tmp_path):
    block = block.replace("mmsegmentation/configs", f"{Path(mmseg.__file__).parent}/.mim/configs")
    (tmp_path / "swap.py").write_text(block)
    cfg = load_config(tmp_path / "swap.py")
    check_config(cfg)
    if "model = " not in block:
        return
    init_default_scope(cfg.default_scope)
    model = cfg.model.copy()
    model.backbone.pop("init_cfg", None)  # is downloaded
    model.pop("pretrained", None)
    model = MODELS.build(model)
    parts = [model, *model.modules()]
    parts += [value for part in parts for value in vars(part).values()]
    found = {type(part).__name__ for part in parts}
    assert set(re.findall(r"negvision\.(\w+)", block)) <= found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_component_in_code_takes_the_arguments_it_is_given(page):
    """Also where a block is a part of a config that nothing runs."""
    text = page.read_text()
    spans = [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", text)]
    for code in [*python_blocks(page), *spans]:
        try:
            tree = ast.parse(textwrap.dedent(code))
        except SyntaxError:
            continue
        for call in ast.walk(tree):
            if isinstance(call, ast.Call) and getattr(call.func, "id", "") == "dict":
                _check_call(call, page.name)


def _check_call(call: ast.Call, page: str) -> None:
    given = {keyword.arg: keyword.value for keyword in call.keywords if keyword.arg}
    kind = given.get("type")
    if not (isinstance(kind, ast.Constant) and str(kind.value).startswith("negvision.")):
        return
    found = find_components(kind.value, "mmdet", "model")
    assert found, f"{page}: {kind.value} is not registered"
    for _, component in found:
        names, complete = accepted_keywords(component)
        unknown = set(given) - names - {"type", "_delete_", "priority"}
        assert not complete or not unknown, f"{page}: {kind.value} takes no {unknown}"


def test_plain_code_of_the_pages_runs():
    ran = 0
    for page in (SWAPS, DOCS / "operators.md"):
        for block in python_blocks(page):
            if block.startswith("import torch"):
                exec(compile(block, page.name, "exec"), {})
                ran += 1
    assert ran >= 2


def test_results_in_operators_page_are_those_of_the_code():
    results = doctest.testfile(
        str(DOCS / "operators.md"), module_relative=False, optionflags=doctest.NORMALIZE_WHITESPACE
    )
    assert results.attempted >= 5 and not results.failed
