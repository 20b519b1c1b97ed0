"""Build the documentation as a site: ``python docs/build_site.py`` writes it to site/.

The pages are docs/*.md, the files at the top of the repository, and a reference of the public
names that negvision/__init__.pyi lists. Zensical takes no hooks, so the pages are put together in
build/pages first.
"""

import argparse
import ast
import posixpath
import re
import shutil
import subprocess
import sys
from pathlib import Path

import griffe

ROOT = Path(__file__).parents[1]
PAGES = ROOT / "build" / "pages"
COPIES = {
    "README.md": "readme.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security-policy.md",
}
# Package -> title of its page in the reference.
REFERENCE = {
    "ops": "Operators",
    "ood": "OOD scores and metrics",
    "detection": "Detection",
    "face": "Faces",
    "segmentation": "Segmentation",
    "classification": "Classification",
    "audit": "Audit",
    "data": "Data",
    "engine": "Training",
    "inference": "Inference",
}
_LINK = re.compile(r"\]\((?!\w+://)([^)#\s]+)(#[^)\s]*)?\)")
_ROLE = re.compile(r":(?:class|func|meth|mod|attr|data):`~?(?:([^`<]*?)\s*<[^`>]*>|([^`]+))`")


class Roles(griffe.Extension):
    """Shows the Sphinx roles of docstrings as code, and their examples as Python sessions."""

    def on_object(self, *, obj: griffe.Object, **kwargs) -> None:
        if obj.docstring:
            obj.docstring.value = plain(obj.docstring.value)


def plain(text: str) -> str:
    """The text of a docstring as Markdown.

    Example:
        >>> plain("See :func:`negvision.atss_assign` and :class:`this <a.That>`.")
        'See `negvision.atss_assign` and `this`.'
    """
    text = _ROLE.sub(lambda match: f"`{match[1] or match[2]}`", text)
    return re.sub(r"^(\s*)Example:$", r"\1Examples:", text, flags=re.MULTILINE)


def public_names() -> dict[str, list[str]]:
    """The names that ``import negvision`` offers, by the package that defines them."""
    tree = ast.parse((ROOT / "negvision" / "__init__.pyi").read_text())
    found: dict[str, list[str]] = {}
    for node in tree.body:
        if isinstance(node, ast.ImportFrom) and node.module:
            package = node.module.partition(".")[0]
            found.setdefault(package, []).extend(alias.name for alias in node.names)
    return found


def write_pages(folder: Path = PAGES) -> None:
    """Write all pages of the site, and the files that they link to, into ``folder``."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(ROOT / "docs", folder, ignore=shutil.ignore_patterns("*.py", "__pycache__"))
    for page in folder.glob("*.md"):
        page.write_text(_relinked(page.read_text(), "docs", folder))
    for source, target in COPIES.items():
        (folder / target).write_text(_relinked((ROOT / source).read_text(), "", folder))
    names = public_names()
    rest = sorted(name for package in names.keys() - REFERENCE for name in names[package])
    (folder / "api").mkdir()
    for package, title in {**REFERENCE, "": "Other"}.items():
        listed = sorted(names.get(package, [])) if package else rest
        blocks = "".join(f"\n::: negvision.{name}\n" for name in listed)
        (folder / "api" / f"{package or 'other'}.md").write_text(f"# {title}\n{blocks}")


def _relinked(text: str, base: str, folder: Path) -> str:
    """Lead links of a page that lies in ``base`` to where the site has their targets."""

    def lead(match: re.Match) -> str:
        path = posixpath.normpath(posixpath.join(base, match[1]))
        if path in COPIES:
            found = COPIES[path]
        elif path.startswith("docs/"):
            found = path.removeprefix("docs/")
        else:
            # Zensical takes a file without a suffix for a folder.
            found = f"repository/{path}" + ("" if Path(path).suffix else ".txt")
            (folder / found).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / path, folder / found)
        return f"]({found}{match[2] or ''})"

    return _LINK.sub(lead, text)


def main() -> int:
    """Build the site; the exit status is Zensical's."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, help="where to copy the site to")
    args = parser.parse_args()
    write_pages()
    command = [sys.executable, "-m", "zensical", "build", "--strict", "--clean"]
    done = subprocess.run(command, cwd=ROOT, check=False)
    if done.returncode == 0 and args.out:
        shutil.copytree(ROOT / "site", args.out, dirs_exist_ok=True)
    return done.returncode


if __name__ == "__main__":
    sys.exit(main())
