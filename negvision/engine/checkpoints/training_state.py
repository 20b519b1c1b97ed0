"""What a resumed run needs besides what mmengine saves: random states and pending gradients."""

import contextlib
import random
from collections.abc import Iterator

import numpy as np
import torch
import torch.distributed as dist
from mmengine.dist import get_dist_info
from mmengine.optim import OptimWrapper
from torch import Tensor, nn

from negvision.engine.config.model_parts import unwrapped
from negvision.engine.parallel.sharded import find_shards


def random_state() -> dict:
    """States of Python's, NumPy's and PyTorch's generators, as tensors and plain numbers.

    Checkpoints that hold it load without running code.
    """
    version, numbers, gauss = random.getstate()
    numpy = np.random.get_state(legacy=False)  # noqa: NPY002
    twister = numpy["state"]
    keys = torch.from_numpy(twister["key"].astype(np.int64))
    state = {
        "python": (version, torch.tensor(numbers, dtype=torch.int64), gauss),
        "numpy": (
            numpy["bit_generator"], keys, twister["pos"], numpy["has_gauss"], numpy["gauss"],
        ),
        "torch": torch.get_rng_state(),
    }  # fmt: skip
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        state["cuda"] = torch.cuda.get_rng_state()
    return state


def set_random_state(state: dict) -> None:
    """Restore what :func:`random_state` returned."""
    version, numbers, gauss = state["python"]
    random.setstate((version, tuple(numbers.tolist()), gauss))
    kind, keys, position, has_gauss, cached = state["numpy"]
    np.random.set_state((kind, keys.numpy().astype(np.uint32), position, has_gauss, cached))  # noqa: NPY002
    # Loading a checkpoint may have moved it to a GPU.
    torch.set_rng_state(state["torch"].cpu())
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"].cpu())


@contextlib.contextmanager
def random_state_kept() -> Iterator[dict]:
    """Restore the random state at the end of the block; yields that state."""
    state = random_state()
    try:
        yield state
    finally:
        set_random_state(state)


def pending_gradients(model: nn.Module, optim_wrapper: OptimWrapper) -> dict[str, Tensor] | None:
    """Gradients in the middle of an accumulation, by parameter name; None at its end.

    They are in full on the first rank: the mean over ranks of gradients that each rank accumulated
    for itself. All ranks must call this.
    """
    count = getattr(optim_wrapper, "_accumulative_counts", 1)
    if count == 1 or optim_wrapper._inner_count % count == 0:
        return None
    model = unwrapped(model)
    shards = find_shards(model)
    world_size = get_dist_info()[1]
    gradients = {}
    for name, parameter in model.named_parameters():
        if parameter.grad is None:
            continue
        gradient = parameter.grad.detach()
        if parameter in shards:  # of DTensors the mean already
            gradient = shards[parameter].gather(gradient)
        else:
            gradient = gradient.clone()
            if world_size > 1:
                dist.all_reduce(gradient)
                gradient = gradient / world_size
        if gradient is not None:
            gradients[name] = gradient.cpu()
    return gradients


def restore_gradients(model: nn.Module, gradients: dict[str, Tensor] | None) -> None:
    """Restore what :func:`pending_gradients` returned on the first rank."""
    model = unwrapped(model)
    shards = find_shards(model)
    for name, parameter in model.named_parameters():
        gradient = (gradients or {}).get(name)
        if gradient is not None:
            gradient = gradient.to(parameter.device, parameter.dtype)
            shard = shards.get(parameter)
            parameter.grad = gradient if shard is None else shard.take(gradient)
