"""Nothing that Windows lacks is needed to import the package."""

import ast
from collections.abc import Iterator
from pathlib import Path

import negvision

PACKAGE = Path(negvision.__file__).parent
LACKING = {
    *("fcntl", "resource", "pwd", "grp", "termios"),
    *("signal.SIGUSR1", "signal.SIGUSR2", "signal.SIGHUP", "signal.SIGKILL", "signal.SIGBUS"),
    *("os.EX_TEMPFAIL", "os.statvfs", "os.getuid", "os.sched_getaffinity"),
}
# The launcher of several processes, which needs Linux or macOS.
LAUNCHER = PACKAGE / "engine" / "parallel" / "torchrun.py"


def run_at_import(node: ast.AST) -> Iterator[ast.AST]:
    """The nodes that an import of the module runs and in which it may fail."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.With) and "suppress" in ast.unparse(child.items[0]):
            continue
        if not isinstance(child, ast.FunctionDef | ast.Lambda):
            yield child
            yield from run_at_import(child)


def needs(text: str) -> set[str]:
    found = set()
    for node in run_at_import(ast.parse(text)):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            found.add(node.module)
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            found.add(f"{node.value.id}.{node.attr}")
    return found & LACKING


def test_importing_needs_nothing_that_windows_lacks():
    assert needs("import fcntl\nX = signal.SIGUSR1") == {"fcntl", "signal.SIGUSR1"}
    files = set(PACKAGE.rglob("*.py"))
    assert LAUNCHER in files
    found = {file.name: needs(file.read_text("utf-8")) for file in files - {LAUNCHER}}
    assert {name: lacking for name, lacking in found.items() if lacking} == {}
