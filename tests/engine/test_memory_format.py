"""The layout of weights in memory, and the memory of freed tensors, which is used again."""

import logging
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
from mmengine.config import Config
from torch import nn

from negvision.engine.memory_format import ChannelsLastHook, lay_out_as_asked

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


def layers(channels: int, kernel: int = 1, stride: int = 2) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, channels, 3), nn.Conv2d(channels, 32, kernel, stride))


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        (layers(16), True),
        (layers(15), False),
        (layers(15, kernel=3), True),
        (layers(15, stride=1), True),
    ],
)
def test_layout_is_left_as_it_is_where_onednn_could_crash(model, expected, caplog):
    runner = SimpleNamespace(model=model, logger=logging.getLogger("layout"))
    cfg = Config({"custom_hooks": [{"type": "negvision.ChannelsLastHook"}]})
    with caplog.at_level("INFO", "layout"):
        lay_out_as_asked(model, cfg)
        ChannelsLastHook().before_run(runner)
    weight = model[0].weight
    assert weight.is_contiguous(memory_format=torch.channels_last) == expected
    assert ("can crash in 1," in caplog.text) != expected
