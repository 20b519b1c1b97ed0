"""Files that services and packagers read: they parse, and name what exists."""

import re

import yaml
from helpers import ROOT

import negvision

TEMPLATES = ROOT / ".github" / "ISSUE_TEMPLATE"


def test_citation_names_the_papers_of_the_readme():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["cff-version"] == "1.2.0" and citation["license"] == "Apache-2.0"
    assert len(citation["references"]) == 3
    # The same papers that README names.
    readme = (ROOT / "README.md").read_text()
    assert all(reference["url"] in readme for reference in citation["references"])


def test_changes_begin_with_this_version():
    versions = re.findall(r"^## (\d+\.\d+\.\d+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert versions[0] == negvision.__version__


def test_issue_templates_have_what_a_form_needs():
    forms = {path.stem: yaml.safe_load(path.read_text()) for path in TEMPLATES.glob("*.yml")}
    assert forms.keys() == {"bug", "config", "documentation", "feature"}
    for name in forms.keys() - {"config"}:
        form = forms[name]
        assert form["name"] and form["description"]
        assert all(item["attributes"]["label"] for item in form["body"])
        assert form["body"][0]["validations"]["required"]


def test_dockerfile_names_what_exists():
    text = (ROOT / "Dockerfile").read_text()
    named = re.findall(r"(?:requirements|tools|configs)/[\w./-]+\.\w+", text)
    assert {"requirements/runtime.txt", "requirements/constraints.txt"} <= set(named)
    assert all((ROOT / name).is_file() for name in named)
    copied = re.findall(r"^COPY (\S+) ", text, re.MULTILINE)
    assert copied == ["requirements", "."]
    # What is left out of the image is not needed to build it.
    ignored = (ROOT / ".dockerignore").read_text().split()
    assert not {"requirements", "negvision", "setup.py", "pyproject.toml"} & set(ignored)
    base = re.search(r"python:(3\.\d+)-", text)[1]
    assert f"python{base}" in (ROOT / "Makefile").read_text()


def test_source_distribution_includes_no_file_that_is_missing():
    for line in (ROOT / "MANIFEST.in").read_text().splitlines():
        words = line.split()
        if words and words[0] in ("include", "graft"):
            assert all((ROOT / name).exists() for name in words[1:]), line
