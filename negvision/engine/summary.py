"""The header that a run prints before its first iteration."""

from collections.abc import Mapping

import torch
from mmengine.model import is_model_wrapper


def run_summary(runner) -> str:
    """Config, work dir, devices, model size, dataset sizes and length of a run, a line each.

    Reads only what is already built: a loop that is still a dict is left alone.
    """
    model = runner.model.module if is_model_wrapper(runner.model) else runner.model
    total = sum(p.numel() for p in model.parameters())
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    rows = {
        "config": runner.cfg.filename or "(not from a file)",
        "work dir": runner.work_dir,
        "device": _devices(runner),
        "model": type(model).__name__,
    }
    if total:  # an exported model keeps its own to itself
        rows["model"] += f", {total / 1e6:.2f} M parameters, {trained / 1e6:.2f} M trained"
    loops = {
        "train": runner._train_loop,
        "val": runner._val_loop,
        "test": runner._test_loop,
    }
    built = {name: loop for name, loop in loops.items() if _is_built(loop)}
    for name, loop in built.items():
        batch = loop.dataloader.batch_size or runner.cfg.get(f"{name}_dataloader", {}).get(
            "batch_size"
        )
        row = f"{len(loop.dataloader.dataset)} images"
        row += f", {batch} a batch" if batch else ""
        row += f" on each of {runner.world_size} processes" if runner.world_size > 1 else ""
        rows[name] = row
    if "train" in built:
        loop = built["train"]
        rows["length"] = f"{loop.max_iters} iterations"
        if runner.log_processor.by_epoch:
            rows["length"] = f"{loop.max_epochs} epochs of {len(loop.dataloader)} iterations"
    width = max(map(len, rows))
    return "\n".join(f"{name:<{width}}  {value}" for name, value in rows.items()) + "\n"


def _is_built(loop) -> bool:
    return loop is not None and not isinstance(loop, Mapping)


def _devices(runner) -> str:
    if torch.cuda.is_available():
        name = torch.cuda.get_device_name()
    else:
        name = f"CPU, {torch.get_num_threads()} threads"
    if runner.world_size == 1:
        return name
    return f"{runner.world_size} x {name}"
