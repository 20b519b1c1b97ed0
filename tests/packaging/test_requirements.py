"""The pins, the version, and what pip makes of them."""

import re
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from negvision.compat.versions import check_versions

ROOT = Path(__file__).parents[2]
REQUIREMENTS = ROOT / "requirements"


def _lines(name: str) -> list[str]:
    lines = (REQUIREMENTS / name).read_text().splitlines()
    return [line for line in lines if line.strip() and not line.startswith("#")]


def _requirements(name: str) -> list[Requirement]:
    """The requirements of a file and of the files it names with ``-r``."""
    found = []
    for line in _lines(name):
        if line.startswith("-r "):
            found += _requirements(line.removeprefix("-r ").strip())
        else:
            found.append(Requirement(line))
    return found


@pytest.fixture(scope="module")
def pins() -> dict[str, str]:
    pins = {}
    for line in _lines("constraints.txt"):
        match = re.fullmatch(r"([A-Za-z0-9._-]+)==([A-Za-z0-9.!+]+)", line)
        assert match, f"not an exact pin: {line!r}"
        name = canonicalize_name(match[1])
        assert name not in pins, f"pinned twice: {name}"
        pins[name] = match[2]
    return pins


def test_every_requirement_is_pinned_to_a_version_it_allows(pins):
    for requirement in _requirements("dev.txt"):
        name = canonicalize_name(requirement.name)
        assert name in pins, f"{name} has no pin"
        assert pins[name] in requirement.specifier, f"{requirement} excludes its pin {pins[name]}"


def test_what_the_requirements_need_is_pinned_too(pins):
    """Follow the metadata of what is installed, so that nothing floats below the first level."""
    by_torch = re.compile(r"(nvidia|cuda)-|triton$")  # torch pins these itself, by platform
    queue = [(r.name, frozenset(r.extras)) for r in _requirements("dev.txt")]
    seen, unpinned = set(), set()
    while queue:
        name, extras = queue.pop()
        name = canonicalize_name(name)
        if (name, extras) in seen or by_torch.match(name):
            continue
        seen.add((name, extras))
        if name not in pins:
            unpinned.add(name)
            continue
        for text in metadata.requires(name) or []:
            needed = Requirement(text)
            environments = [{"extra": extra} for extra in ("", *extras)]
            if not needed.marker or any(needed.marker.evaluate(e) for e in environments):
                queue.append((needed.name, frozenset(needed.extras)))
    assert len(seen) > 50  # it did follow
    assert not unpinned


def test_the_doctor_finds_no_problem_in_the_pinned_versions(pins):
    assert check_versions(pins) == []


def test_documentation_names_the_pinned_torch(pins):
    wanted = f"pip install torch=={pins['torch']} torchvision=={pins['torchvision']}"
    assert wanted in (ROOT / "README.md").read_text()
    assert wanted in (ROOT / "docs" / "install.md").read_text()
