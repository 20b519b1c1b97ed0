"""Only the known lines are dropped, and only inside of the block."""

import subprocess
import sys

import pytest

from negvision.compat import quiet_imports
from negvision.compat.quiet import KNOWN_LINES


def test_known_lines_are_dropped_and_others_pass(capsys):
    """Also if the block ends in an exception."""
    with pytest.raises(ImportError), quiet_imports():
        print("first")
        print(KNOWN_LINES[0])
        print("no newline at the end", end="")
        raise ImportError
    print(f"\n{KNOWN_LINES[0]}")
    assert capsys.readouterr().out == f"first\nno newline at the end\n{KNOWN_LINES[0]}\n"


def test_mmdet_is_imported_without_a_line():
    code = """if True:
        from negvision.compat import quiet_imports
        with quiet_imports():
            import mmdet.datasets, mmdet.evaluation, mmdet.models
            from mmdet.utils import register_all_modules
            register_all_modules()
        """
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=600
    )
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
