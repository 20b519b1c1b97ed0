"""Refuse to resume a checkpoint that another training has written."""

from collections.abc import Iterator, Mapping
from typing import Any

from torch import nn
from torch.optim import Optimizer

from negvision.engine.checkpoints.fitting import fit, last_step_weights, shapes_of
from negvision.errors import CheckpointError, listed


def state_to_resume(
    checkpoint: Mapping[str, Any],
    source: str,
    model: nn.Module,
    optimizers: list[Optimizer],
    metainfo: Mapping[str, Any] | None,
    averages: bool,
) -> dict[str, Any]:
    """``checkpoint`` with weights under the names of ``model``, which they fit exactly.

    Args:
        checkpoint: What the file holds.
        source: Name of the file.
        model: Without a wrapper.
        optimizers: Of the run; none if their states are not resumed.
        metainfo: Of the training set.
        averages: The run averages weights (EMA). If it does not, but the checkpoint's run did, the
            weights of its last step are taken, which the state of the optimizer belongs to.

    Raises:
        CheckpointError: It has no training state, or another training has written it.
    """
    meta = checkpoint.get("meta") or {}
    absent = [name for name in ("epoch", "iter") if name not in meta]
    absent += [name for name in ("optimizer", "message_hub") if name not in checkpoint]
    if absent:
        raise CheckpointError(
            f"--resume {source}: it holds weights, but no state of a training: "
            f"{', '.join(absent)} missing. {_instead(source)}"
        )
    last = None if averages else last_step_weights(checkpoint)
    weights = fit(model, checkpoint if last is None else last, source).state
    differences = [
        *_other_data(meta.get("dataset_meta") or {}, metainfo or {}),
        *_other_weights(weights, model),
        *(_other_optimizers(checkpoint["optimizer"], optimizers) if optimizers else ()),
    ]
    if differences:
        lines = "\n".join(f"  {line}" for line in differences)
        raise CheckpointError(
            f"--resume {source}: another training has written it, which this one cannot continue."
            f"\n{lines}\nResume with the config and the data of the checkpoint. " + _instead(source)
        )
    return {**checkpoint, "state_dict": weights}


def _instead(source: str) -> str:
    return (
        "To start a new training from its weights, leave out --resume and set\n"
        f"  --cfg-options load_from={source}"
    )


def _other_data(saved: Mapping[str, Any], own: Mapping[str, Any]) -> Iterator[str]:
    for key, what in (("classes", "classes"), ("num_classes", "identities")):
        before, now = (_plain(meta.get(key)) for meta in (saved, own))
        if before is not None and now is not None and before != now:
            yield f"{what} of the checkpoint:  {_shown(before)}"
            yield f"{what} of the data now:    {_shown(now)}"
    digests = [meta.get("identities") for meta in (saved, own)]
    same_number = saved.get("num_classes") == own.get("num_classes")
    if None not in digests and digests[0] != digests[1] and same_number:
        yield "identities:  as many as before, but other names or labels"


def _plain(value: Any) -> Any:
    return list(map(str, value)) if isinstance(value, list | tuple) else value


def _shown(value: Any) -> str:
    if not isinstance(value, list):
        return f"{value:,}"
    # A longer list ends with its length.
    return listed(value, 20) + (f" ({len(value)})" if len(value) <= 20 else "")


def _other_weights(weights: Mapping[str, Any], model: nn.Module) -> Iterator[str]:
    shapes = shapes_of(model)
    other = [
        f"{name} {tuple(weights[name].shape)}, in the model {shape}"
        for name, shape in shapes.items()
        if name in weights and tuple(weights[name].shape) not in _written_as(shape)
    ]
    missing = [name for name in shapes if name not in weights]
    left = [name for name in weights if name not in shapes]
    for what, names in (
        ("weights of another shape", other),
        ("weights that it lacks", missing),
        ("weights that the model has not", left),
    ):
        if names:
            yield f"{what}:  {listed(names, 3)}"


def _written_as(shape: tuple[int, ...]) -> set[tuple[int, ...]]:
    # A scalar may have a dimension.
    return {shape} if shape not in ((), (1,)) else {(), (1,)}


def _other_optimizers(saved: Mapping[str, Any], optimizers: list[Optimizer]) -> Iterator[str]:
    # A wrapper of several optimizers saves a state for each.
    states = [saved] if "param_groups" in saved else list(saved.values())
    if len(states) != len(optimizers):
        yield f"optimizers:  {len(states)}, now {len(optimizers)}"
        return
    for state, optimizer in zip(states, optimizers, strict=True):
        before, now = state["param_groups"], optimizer.param_groups
        saved_sizes, sizes = ([len(group["params"]) for group in g] for g in (before, now))
        if saved_sizes != sizes:
            groups = f"{listed(saved_sizes, 4)}, now {listed(sizes, 4)}"
            yield f"parameters in the groups of the optimizer:  {groups}"
            continue
        # Versions of torch add settings; only an exchange tells another optimizer.
        unknown = set(before[0]) - set(now[0]) - {"initial_lr"}
        absent = set(optimizer.defaults) - set(before[0])
        if unknown and absent:
            yield (
                f"settings of the optimizer:  {listed(sorted(unknown), 4)}, in "
                f"{type(optimizer).__name__} {listed(sorted(absent), 4)}"
            )
