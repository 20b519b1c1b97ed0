"""The memory of freed tensors is used again."""

import subprocess
import sys

import pytest

_PAGES_OF_20_TENSORS = """
import resource, torch
from negvision.engine.memory_format import keep_freed_memory
{call}
for _ in range(10):
    torch.ones(1 << 24)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    torch.ones(1 << 24)  # 64 MiB
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def pages(call):
    code = _PAGES_OF_20_TENSORS.format(call=call)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return int(done.stdout)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="a setting of glibc")
def test_freed_memory_is_not_asked_for_again():
    # Without the setting the system clears thousands of pages (of 4 KiB or 2 MiB) for each tensor.
    assert pages("keep_freed_memory()") < pages("") / 5
