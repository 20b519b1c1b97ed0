"""What the site has beside docs/*.md: README, the reference of Python, files that pages link to."""

import ast
import posixpath
import re
from pathlib import Path

from mkdocs.structure.files import File

ROOT = Path(__file__).parents[1]
COPIES = {
    "README.md": "index.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
}
# Page of the reference -> what is on it: packages, whose public modules follow, or single modules.
REFERENCE = {
    "ops": ("Operators", ["negvision.ops"]),
    "ood": ("Scores and figures of the unknown", ["negvision.ood"]),
    "detection": ("Detection", ["negvision.detection"]),
    "face": ("Faces", ["negvision.face"]),
    "segmentation": ("Segmentation", ["negvision.segmentation"]),
    "classification": ("Classification", ["negvision.classification"]),
    "images": ("Images and data", ["negvision.data.images", "negvision.data"]),
    "splits": ("Splits and checks", ["negvision.data.splits", "negvision.data.check"]),
    "engine": ("Engine", ["negvision.engine"]),
    "inference": ("Inference and export", ["negvision.inference", "negvision.inference.runtime"]),
    "report": (
        "Reports and drawing",
        ["negvision.report", "negvision.visualization"],
    ),
    "errors": ("Errors and registries", ["negvision.errors", "negvision.registry"]),
}


def on_files(files, config):
    """Add the pages that are made here, and the files of the repository that pages link to."""
    for source, target in COPIES.items():
        text = (ROOT / source).read_text()
        files.append(File.generated(config, target, content=_moved(text, source)))
    titles = [f"- [{title}]({name}.md)" for name, (title, _) in REFERENCE.items()]
    content = "# Reference of Python\n\n" + "\n".join(titles) + "\n"
    files.append(File.generated(config, "api/index.md", content=content))
    for name, (title, packages) in REFERENCE.items():
        modules = [module for package in packages for module in _modules(package)]
        blocks = "\n".join(f"\n::: {module}\n" for module in modules)
        files.append(File.generated(config, f"api/{name}.md", content=f"# {title}\n{blocks}"))
    pages = [page for page in files if page.src_uri.endswith(".md")]
    linked = {path for page in pages for path in _linked_files(page.content_string, page.src_uri)}
    for path in sorted(linked):
        files.append(File.generated(config, _outside(path), abs_src_path=str(ROOT / path)))
    return files


def on_page_markdown(markdown, page, config, files):
    """Lead links to files outside of docs/ to their copies."""
    top = posixpath.relpath(".", posixpath.dirname(page.file.src_uri) or ".")

    def lead(match: re.Match) -> str:
        path, anchor = match[1], match[2] or ""
        source = posixpath.join("docs", posixpath.dirname(page.file.src_uri), path)
        found = _outside(posixpath.normpath(source))
        return f"]({top}/{found}{anchor})" if found else match[0]

    return re.sub(r"\]\((\.\./[^)#\s]+)(#[^)\s]*)?\)", lead, markdown)


def _outside(path: str) -> str | None:
    """Where the site has a file of the repository that is not in docs/."""
    if path in COPIES:
        return COPIES[path]
    # Without a suffix it would be taken for a folder.
    suffix = "" if Path(path).suffix else ".txt"
    return f"repository/{path}{suffix}" if (ROOT / path).is_file() else None


def _moved(text: str, source: str) -> str:
    """The text of a page at the top of the repository, as if it stood in docs/."""

    def lead(match: re.Match) -> str:
        path = match[1]
        if "://" in path:
            return match[0]
        return f"]({path.removeprefix('docs/')}" if path.startswith("docs/") else f"](../{path}"

    return re.sub(r"\]\(([^)#\s]+)", lead, text)


def _linked_files(text: str, page: str) -> set[str]:
    """Files outside of docs/ to which a page links."""
    found = set()
    for path in re.findall(r"\]\((\.\./[^)#\s]+)", text):
        path = posixpath.normpath(posixpath.join("docs", posixpath.dirname(page), path))
        if (_outside(path) or "").startswith("repository/"):
            found.add(path)
    return found


def _modules(package: str) -> list[str]:
    """A package, or a module, and all public modules in it that define something public."""
    folder = ROOT / package.replace(".", "/")
    if not folder.is_dir():
        return [package]
    found = []
    for path in sorted(folder.rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        if not any(part.startswith("_") for part in parts) and _defines_something(path):
            found.append(".".join(parts))
    return found


def _defines_something(path: Path) -> bool:
    kinds = (ast.ClassDef, ast.FunctionDef)
    body = ast.parse(path.read_text()).body
    return any(isinstance(node, kinds) and not node.name.startswith("_") for node in body)
