"""The documentation as a site: built strictly, complete, and in step with the code."""

import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from negvision.cli.main import COMMANDS

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"


def _load(name: str):
    spec = importlib.util.spec_from_file_location(name, DOCS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    for name in ("material", "mkdocstrings"):
        if importlib.util.find_spec(name) is None:
            pytest.skip(f"{name} is not installed (requirements/docs.txt)")
    out = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", out]
    done = subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return out


def test_every_page_is_on_the_site(site):
    for page in DOCS.glob("*.md"):
        assert (site / f"{page.stem}.html").is_file(), f"{page.name} is not in nav of mkdocs.yml"


def test_front_page_is_the_readme_with_links_that_lead_somewhere(site):
    text = (site / "index.html").read_text()
    assert "<h1" in text and 'href="train-your-own-data.html"' in text
    for target in re.findall(r'href="([^"#:?]+)(?:#[^"]*)?"', text):
        assert (site / target).exists(), target


def test_reference_has_what_configs_and_users_name(site):
    pages = {path.stem: path.read_text() for path in (site / "api").glob("*.html")}
    for page, name in (
        ("ops", "negvision.ops.atss.atss_assign"),
        ("ood", "negvision.ood.metrics.ood_metrics"),
        ("detection", "negvision.detection.heads.atss_head.ATSSHead"),
        ("face", "negvision.face.losses.UNPGLoss"),
        ("segmentation", "negvision.segmentation.segmentors.AbeTEncoderDecoder"),
        ("classification", "negvision.classification.classifier.AbeTClassifier"),
        ("engine", "negvision.engine.loss_guard.LossGuardHook"),
        ("engine", "negvision.engine.config.options.add_training_arguments"),
        ("images", "negvision.data.images.loading.LoadImageFromFile"),
    ):
        assert f'id="{name}"' in pages[page], name


def test_docstrings_are_shown_without_the_marks_of_sphinx(site):
    shown = "".join(path.read_text() for path in (site / "api").glob("*.html"))
    assert not re.findall(r":(?:class|func|meth|mod|attr|data):", shown)
    assert "&gt;&gt;&gt;" in shown  # examples are code


def test_nothing_is_fetched_from_elsewhere(site):
    for page in site.rglob("*.html"):
        text = page.read_text()
        assert not re.findall(r'<(?:script|link|img)[^>]+(?:src|href)="https?://', text), page.name


def test_there_is_a_nav_entry_for_each_page():
    """Also where the site cannot be built."""
    text = (ROOT / "mkdocs.yml").read_text()
    nav = yaml.safe_load(text[text.index("nav:") : text.index("plugins:")])["nav"]
    listed = set(re.findall(r"[\w-]+\.md", str(nav)))
    assert {page.name for page in DOCS.glob("*.md")} <= listed


PRINT_PAGES = """
import json, runpy, sys
pages = runpy.run_path(sys.argv[1])["pages"]()
print(json.dumps({path.name: text for path, text in pages.items()}))
"""


@pytest.fixture(scope="module")
def reference_pages():
    """In a process of its own: other tests leave components in the registries."""
    command = [sys.executable, "-c", PRINT_PAGES, str(DOCS / "write_reference.py")]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=DOCS.parent)
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("page", ["config.md", "commands.md"])
def test_reference_pages_are_those_of_the_code(page, reference_pages):
    written = (DOCS / page).read_text()
    if page == "commands.md" and sys.version_info[:2] != (3, 11):
        # Each Python words the help of argparse in its own way; the options are the same.
        options = [set(re.findall(r"--[a-z-]+", text)) for text in (written, reference_pages[page])]
        assert options[0] == options[1]
        return
    assert written == reference_pages[page], "run: python docs/write_reference.py"


def test_commands_page_has_every_command():
    headings = re.findall(r"^## (.+)$", (DOCS / "commands.md").read_text(), re.MULTILINE)
    assert headings == list(COMMANDS)


def test_every_argument_in_the_reference_has_a_meaning():
    text = (DOCS / "config.md").read_text().partition("<!-- generated")[2]
    assert len(re.findall(r"^### negvision\.", text, re.MULTILINE)) > 60
    assert not re.findall(r"^\| `\w+` \|.*\|\s*\|$", text, re.MULTILINE)


def test_roles_of_sphinx_become_code():
    pytest.importorskip("griffe")
    plain = _load("griffe_roles").plain
    text = "See :func:`negvision.ops.a`, :class:`that <b.That>` and :mod:`c\n<d.c>`."
    assert plain(text) == "See `negvision.ops.a`, `that` and `c`."
    assert plain("Example:\n    >>> 1") == "Examples:\n    >>> 1"
