"""What `from negvision import NAME` offers: every name of the docs, cheaply."""

import re
import subprocess
import sys

import pytest
from helpers import ROOT

import negvision

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
# Names that a page defines itself, to show how a component of one's own is written.
OWN = re.compile(r"^class (\w+)", re.MULTILINE)


def names_in(text: str) -> set[str]:
    """Components and functions that a page takes directly from `negvision`."""
    names = set(re.findall(r"\bnegvision\.([A-Z][A-Za-z0-9]\w*)\b(?!\.)", text))
    for one, several in re.findall(r"from negvision import (?:([\w, ]+)|\(([^)]*)\))", text):
        names |= set(re.findall(r"\w+", one or several))
    return names - set(OWN.findall(text)) - {"NAME", "X"}


def test_names_are_collected_from_prose_and_imports():
    text = (
        "`negvision.ATSSHead`, type='negvision.UNPGLoss'\nfrom negvision import Inferencer, x_y\n"
    )
    assert names_in(text) == {"ATSSHead", "UNPGLoss", "Inferencer", "x_y"}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_name_in_the_docs_can_be_imported(page):
    for name in sorted(names_in(page.read_text())):
        assert getattr(negvision, name), name


def test_every_listed_name_exists_and_is_documented():
    for name in negvision._exports():
        value = getattr(negvision, name)
        if callable(value):
            assert value.__doc__, name


def test_every_registered_component_is_public():
    registered = set()
    for path in (ROOT / "negvision").rglob("*.py"):
        registered |= set(re.findall(r"register_module\([^)]*\)\nclass (\w+)", path.read_text()))
    assert len(registered) > 50
    assert registered <= set(dir(negvision))


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="ATSSAsigner"):
        negvision.ATSSAsigner  # noqa: B018
    assert not hasattr(negvision, "__path_of_nothing__")


def test_import_loads_no_library():
    code = "import sys, negvision; dir(negvision); print(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    loaded = {name.partition(".")[0] for name in run.stdout.split()}
    assert "negvision" in loaded
    assert not loaded & {"torch", "numpy", "mmengine", "mmdet", "mmcv", "cv2", "onnxruntime"}
