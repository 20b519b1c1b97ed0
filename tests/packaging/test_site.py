"""The documentation site builds strictly, is complete, and needs no network."""

import importlib.util
import json
import re
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import pytest
from helpers import ROOT
from helpers.chromium import start_chromium

from negvision.cli.main import COMMANDS

DOCS = ROOT / "docs"


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    for name in ("zensical", "mkdocstrings"):
        if importlib.util.find_spec(name) is None:
            pytest.skip(f"{name} is not installed (requirements/docs.txt)")
    out = tmp_path_factory.mktemp("site")
    command = [sys.executable, "docs/build_site.py", "--out", out]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stdout + done.stderr
    return out


def test_every_page_is_on_the_site_and_in_the_navigation(site):
    nav = str(tomllib.loads((ROOT / "zensical.toml").read_text())["project"]["nav"])
    for page in DOCS.glob("*.md"):
        assert f"'{page.name}'" in nav, f"{page.name} is not in zensical.toml"
        assert (site / f"{page.stem}.html").is_file()


def test_links_of_the_first_pages_lead_somewhere(site):
    for page in ("index.html", "readme.html", "contributing.html"):
        text = (site / page).read_text()
        for target in re.findall(r'(?:href|src)="([^"#:?]+)(?:#[^"]*)?"', text):
            assert (site / target).exists(), f"{page}: {target}"


def test_reference_documents_every_public_name(site):
    shown = "".join(path.read_text() for path in (site / "api").glob("*.html"))
    stub = (ROOT / "negvision" / "__init__.pyi").read_text()
    names = re.findall(r"^from \S+ import (\w+) as", stub, re.MULTILINE)
    assert len(names) > 100
    missing = [name for name in names if f'id="negvision.{name}"' not in shown]
    assert missing == []
    assert not re.findall(r":(?:class|func|meth|mod|attr|data):`", shown)


def test_nothing_is_fetched_from_elsewhere(site):
    for page in site.rglob("*.html"):
        found = re.findall(r'<(?:script|link|img)[^>]+(?:src|href)="https?://', page.read_text())
        assert not found, page.name


def test_search_works_from_disk(site, tmp_path):
    browser = start_chromium(tmp_path)
    try:
        browser.get((site / "index.html").as_uri())
        script = """
            const host = [...document.querySelectorAll("*")].find(e => e.shadowRoot);
            const input = host?.shadowRoot.querySelector("input");
            if (!input) { document.querySelector(".md-search__button").click(); return []; }
            if (!input.value) {
                input.value = "ATSSAssigner";
                input.dispatchEvent(new InputEvent("input", {bubbles: true, composed: true}));
            }
            return [...host.shadowRoot.querySelectorAll("a")].map(a => a.href);
        """
        end = time.monotonic() + 60
        while not (found := browser.execute_script(script)) and time.monotonic() < end:
            time.sleep(0.2)
    finally:
        browser.quit()
    assert found and "api/detection.html" in found[0] and "#negvision.ATSSAssigner" in found[0]


PRINT_PAGES = """
import json, runpy, sys
pages = runpy.run_path(sys.argv[1])["pages"]()
print(json.dumps({path.name: text for path, text in pages.items()}))
"""


@pytest.fixture(scope="module")
def reference_pages():
    """In a separate process: other tests leave components in the registries."""
    command = [sys.executable, "-c", PRINT_PAGES, str(DOCS / "write_reference.py")]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("page", ["config.md", "commands.md"])
def test_reference_pages_match_the_code(page, reference_pages):
    written = (DOCS / page).read_text()
    if page == "commands.md" and sys.version_info[:2] != (3, 11):
        # argparse words its help differently in each Python; the options are the same.
        options = [set(re.findall(r"--[a-z-]+", text)) for text in (written, reference_pages[page])]
        assert options[0] == options[1]
        return
    assert written == reference_pages[page], "run: python docs/write_reference.py"


def test_commands_page_has_every_command():
    text = (DOCS / "commands.md").read_text()
    assert re.findall(r"^## (.+)$", text.partition("<!-- generated")[2], re.MULTILINE) == [
        *COMMANDS
    ]
    assert re.findall(r"^\| `negvision ([\w-]+)`", text, re.MULTILINE) == [*COMMANDS]


def test_every_argument_in_the_reference_has_a_meaning():
    text = (DOCS / "config.md").read_text().partition("<!-- generated")[2]
    assert len(re.findall(r"^### negvision\.", text, re.MULTILINE)) > 60
    assert not re.findall(r"^\| `\w+` \|.*\|\s*\|$", text, re.MULTILINE)
