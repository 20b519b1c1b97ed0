"""Short trainings of which nothing is kept: how long a step takes, how many images fit."""

from __future__ import annotations

import contextlib
import math
import os
import re
import statistics
import tempfile
import time
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.hooks import Hook

from negvision.engine.prepare import build_runner
from negvision.engine.recipes.planning import set_length
from negvision.errors import ConfigError

# Steps that are timed, after those that warm up.
_WARM, _MEASURED = 3, 5
# Images of the steps whose memory is measured: batch normalization needs two.
_FEW, _MORE = 2, 4
# Of the free memory; evaluations and other programs need some too.
_SHARE = 0.8


def seconds_per_step(cfg: Config) -> float:
    """Seconds per iteration of a training."""
    timer = _StepTimer()
    _train(cfg, _WARM + _MEASURED, timer)
    pairs = zip(timer.ends[_WARM - 1 :], timer.ends[_WARM:], strict=False)
    return statistics.median(later - earlier for earlier, later in pairs)


def fitting_batch(cfg: Config) -> tuple[int, str]:
    """The batch of ``cfg``, halved until its memory is free, and the reason.

    The memory of steps with two and four images tells what each image adds.

    Raises:
        ConfigError: Not even two images fit.
    """
    wanted = cfg.train_dataloader.batch_size
    free, used = _free_memory(), _memory()
    if not free or not used:
        return wanted, "of the model: how much memory is free cannot be told on this system"
    few = _peak(cfg, _FEW)
    more = _peak(cfg, _MORE) if few is not None else None
    if few is None:
        raise ConfigError(
            f"--batch auto: not even {_FEW} images fit into the {_gb(free)} of memory that are "
            "free. Choose a smaller --imgsz or another --model"
        )

    def need(images: int) -> float:
        # Beyond what is in use anyway.
        if images <= _FEW:
            return few - used
        each = math.inf if more is None else max(more - few, 0) / (_MORE - _FEW)
        return few - used + (images - _FEW) * each

    batch = wanted
    while batch > _FEW and need(batch) > _SHARE * free:
        batch = max(batch // 2, _FEW)
    if batch == wanted:
        return batch, f"it needs {_gb(need(batch))}, {_gb(free)} are free"
    lacking = f"{_MORE} images do not fit"
    if more is not None:
        lacking = f"{wanted} images need {_gb(need(wanted))}"
    return batch, f"{lacking}, {_gb(free)} are free"


def _gb(size: float) -> str:
    return f"{max(size, 0) / 1e9:.1f} GB"


def _peak(cfg: Config, images: int) -> float | None:
    """The most memory in use in steps with so many images; None if they do not fit."""
    trial = Config(cfg.to_dict())
    trial.train_dataloader.batch_size = images
    _reset_peak()
    try:
        _train(trial, _WARM)
    except torch.OutOfMemoryError:
        return None
    return _memory(peak=True)


def _memory(peak: bool = False) -> float:
    """Bytes in use, or the most since :func:`_reset_peak`; 0 where it cannot be told."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() if peak else torch.cuda.memory_allocated()
    return 1024 * _value("VmHWM" if peak else "VmRSS", Path("/proc/self/status"))


def _reset_peak() -> None:
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    else:
        with contextlib.suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")


def _free_memory() -> float:
    """Bytes that this process can still take; 0 where it cannot be told."""
    if torch.cuda.is_available():
        return torch.cuda.mem_get_info()[0]
    free = 1024 * _value("MemAvailable", Path("/proc/meminfo"))
    group = Path("/sys/fs/cgroup")
    with contextlib.suppress(OSError, ValueError):  # no limit is "max"
        limit, used = (int((group / f"memory.{name}").read_text()) for name in ("max", "current"))
        free = min(free, limit - used)
    return free


def _value(name: str, file: Path) -> int:
    content = file.read_text(encoding="utf-8") if file.is_file() else ""
    found = re.search(rf"^{name}:\s+(\d+) kB", content, re.MULTILINE)
    return int(found[1]) if found else 0


class _StepTimer(Hook):
    """Keeps when each iteration ended."""

    priority = "LOWEST"

    def __init__(self) -> None:
        self.ends: list[float] = []

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        self.ends.append(time.monotonic())


def _train(cfg: Config, steps: int, *hooks: Hook) -> None:
    """Train for some steps in a folder of its own, and print nothing."""
    trial = Config(cfg.to_dict())
    set_length(trial, steps)
    for split in ("val", "test"):
        for part in ("dataloader", "evaluator", "cfg"):
            trial[f"{split}_{part}"] = None
    trial.default_hooks.checkpoint.save_best = None
    # A signal ends it as it ends all else before the training: there is nothing to save.
    trial.default_hooks.interruption = None
    trial.custom_hooks = [
        h
        for h in trial.get("custom_hooks", [])
        if "Layout" in h["type"] or "ChannelsLast" in h["type"]
    ]
    # No tracker hears of it.
    trial.visualizer.vis_backends = None
    trial.experiment_name = f"negvision_tries_{time.monotonic_ns()}"
    with (
        tempfile.TemporaryDirectory() as folder,
        open(os.devnull, "w", encoding="utf-8") as nowhere,
    ):
        trial.work_dir = folder
        with contextlib.redirect_stdout(nowhere), contextlib.redirect_stderr(nowhere):
            runner = build_runner(trial, ("train",))
            for hook in hooks:
                runner.register_hook(hook)
            runner.train()
