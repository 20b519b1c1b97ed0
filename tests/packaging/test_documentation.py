"""What README and docs name exists: files, headings, commands, options, tests."""

import re
from functools import cache
from pathlib import Path

import pytest
from helpers import ROOT

from negvision.cli.main import COMMANDS

TOP = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md")]
PAGES = [*TOP, *sorted((ROOT / "docs").glob("*.md"))]
by_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)


def _prose(page: Path) -> str:
    return re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)


def _anchors(page: Path) -> set[str]:
    """The anchors that GitHub gives the headings of a page."""
    headings = re.findall(r"^#+ (.+)$", _prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def _code(page: Path) -> list[str]:
    """Code as a reader would type it: lines of blocks and what stands in backquotes."""
    text = page.read_text()
    blocks = re.findall(r"^```\w*\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    return lines + [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", _prose(page))]


@cache
def _options() -> set[str]:
    """Every option that a command of negvision or a benchmark takes."""
    folders = ("negvision/cli", "negvision/engine", "benchmarks")
    files = [file for folder in folders for file in (ROOT / folder).rglob("*.py")]
    return set(re.findall(r'"(--[a-z-]+)"', "".join(file.read_text() for file in files)))


@by_page
def test_links_lead_to_files_and_headings(page):
    for target in re.findall(r"\]\(([^)]+)\)", page.read_text()):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        linked = (page.parent / path).resolve() if path else page
        assert linked.exists(), f"{page.name} links to {target}"
        assert not anchor or anchor in _anchors(linked), f"{page.name}: no heading for {target}"


def test_every_page_is_reached_from_the_readme_and_the_index():
    readme, index = ROOT / "README.md", ROOT / "docs" / "index.md"
    assert index in _linked(readme)
    assert {page for page in PAGES if page not in (readme, index)} <= _linked(index)


def _linked(page: Path) -> set[Path]:
    targets = re.findall(r"\]\(([^)#]+)", page.read_text())
    return {(page.parent / target).resolve() for target in targets if "://" not in target}


@by_page
def test_named_files_exist(page):
    pattern = r"(?<![\w/.])(?:tools|configs|benchmarks|requirements|docs|negvision)/[\w./-]+\.\w+"
    for line in _code(page):
        for name in re.findall(pattern, line):
            name = name.replace("negvision/configs/", "configs/")  # a clone seen from beside it
            if not name.endswith(".so"):
                assert (ROOT / name).exists(), f"{page.name}: {name}, in: {line}"


@by_page
def test_named_commands_and_options_exist(page):
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for line in _code(page):
        for target in re.findall(r"(?:^|\s)make (\w+)(?=\s|$)", line):
            assert target in targets, f"{page.name}: make {target}"
        for command in re.findall(r"^negvision ([a-z][\w-]+)", line):
            assert command in COMMANDS, f"{page.name}: negvision {command}"
        if re.match(r"(python )?(tools|benchmarks)/|negvision |--", line):
            for option in re.findall(r"(?:^|\s)(--[a-z-]+)", line):
                known = _options() | {"--help", "--no-build-isolation"}  # argparse's and pip's
                assert option in known, f"{page.name}: {option}, in: {line}"


def test_tests_of_the_reliability_page_exist():
    names = [path.name for path in (ROOT / "tests").rglob("test_*.py")]
    named = re.findall(r"`(test_\w+\.py)`", (ROOT / "docs" / "reliability.md").read_text())
    assert len(named) > 50
    assert [name for name in named if names.count(name) != 1] == []
