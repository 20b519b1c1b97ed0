"""Networks whose layers have fewer channels than their config says, as pruning leaves them.

The config of such a network has a key ``pruned_channels``: the name of each changed layer and its
sizes. It travels in the checkpoint with the rest of the config, and is read as data.
"""

from collections.abc import Mapping
from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from negvision.errors import CheckpointError

KEY = "pruned_channels"


def sizes_of(module: nn.Module) -> tuple[int, ...] | None:
    """Of a convolution: channels out and in, and groups; of a linear layer: features out and in;
    of a normalization: channels. None for other modules.

    Example:
        >>> sizes_of(nn.Conv2d(3, 8, 1)), sizes_of(nn.ReLU())
        ((8, 3, 1), None)
    """
    if isinstance(module, _ConvNd):
        return module.out_channels, module.in_channels, module.groups
    if isinstance(module, nn.Linear):
        return module.out_features, module.in_features
    if isinstance(module, _BatchNorm):
        return (module.num_features,)
    if isinstance(module, nn.GroupNorm):
        return (module.num_channels,)
    if isinstance(module, nn.LayerNorm) and len(module.normalized_shape) == 1:
        return (module.normalized_shape[0],)
    return None


def changed_channels(model: nn.Module, full: nn.Module) -> dict[str, list[int]]:
    """The layers of ``model`` that have other sizes than in ``full``, and their sizes."""
    before = {name: sizes_of(module) for name, module in full.named_modules()}
    return {
        name: list(sizes)
        for name, module in model.named_modules()
        if (sizes := sizes_of(module)) is not None and sizes != before.get(name)
    }


def apply_channels(model: nn.Module, channels: Mapping[str, Any] | None) -> nn.Module:
    """Give layers fewer channels; each keeps the first of its weights.

    Args:
        model: As its config builds it; changed in place.
        channels: From :func:`changed_channels`, or None for no change.

    Raises:
        CheckpointError: A layer is not in the model, or cannot have these sizes.

    Example:
        >>> net = nn.Sequential(nn.Conv2d(3, 8, 1), nn.BatchNorm2d(8))
        >>> apply_channels(net, {"0": [4, 3, 1], "1": [4]})[1].running_mean.shape
        torch.Size([4])
    """
    modules = dict(model.named_modules()) if channels else {}
    for name, sizes in (channels or {}).items():
        full = sizes_of(modules[name]) if name in modules else None
        if full is None or not _fits(modules[name], full, sizes):
            raise CheckpointError(
                f"{KEY} of the config: {name!r} cannot have the sizes {sizes!r}; "
                + (f"in the model it has {list(full)}" if full else "the model has no such layer")
                + ". The checkpoint is of another model, or damaged"
            )
        _resize(modules[name], tuple(sizes))
    return model


def require_channels(model: nn.Module, meta: object, source: str) -> None:
    """Check that ``model`` has the channels that the ``meta`` of a pruned checkpoint names.

    Raises:
        CheckpointError: It was built from another config than that in the checkpoint.
    """
    channels = meta.get("channels") if isinstance(meta, Mapping) else None
    if not isinstance(channels, Mapping):
        return
    modules = dict(model.named_modules())
    for name, sizes in channels.items():
        own = sizes_of(modules[name]) if name in modules else None
        if own is not None and list(own) != sizes:
            raise CheckpointError(
                f"{source} holds a pruned model: its layer {name} has the sizes {sizes!r}, and "
                f"{list(own)} by the config. Leave the config out: the file has one of its own"
            )


def _fits(module: nn.Module, full: tuple[int, ...], sizes: Any) -> bool:
    if not isinstance(sizes, list | tuple) or len(sizes) != len(full):
        return False
    if not all(
        type(one) is int and 1 <= one <= most for one, most in zip(sizes, full, strict=True)
    ):
        return False
    if isinstance(module, _ConvNd):
        return sizes[0] % sizes[2] == 0 and sizes[1] % sizes[2] == 0
    return not isinstance(module, nn.GroupNorm) or sizes[0] % module.num_groups == 0


def _resize(module: nn.Module, sizes: tuple[int, ...]) -> None:
    shape = sizes
    if isinstance(module, _ConvNd):
        module.out_channels, module.in_channels, module.groups = sizes
        shape = (sizes[0], sizes[1] // sizes[2])
        if isinstance(module, _ConvTransposeNd):
            shape = (sizes[1], sizes[0] // sizes[2])
    elif isinstance(module, nn.Linear):
        module.out_features, module.in_features = sizes
    elif isinstance(module, _BatchNorm):
        module.num_features = sizes[0]
    elif isinstance(module, nn.GroupNorm):
        module.num_channels = sizes[0]
    elif isinstance(module, nn.LayerNorm):
        module.normalized_shape = sizes
    # A module replaces what it has under the name of a parameter or buffer.
    for name, value in [*module.named_parameters(), *module.named_buffers()]:
        if value.dim():
            cut = shape if name == "weight" else sizes[:1]
            part = value.detach()[tuple(slice(size) for size in cut)].clone()
            trained = isinstance(value, nn.Parameter)
            setattr(module, name, nn.Parameter(part, value.requires_grad) if trained else part)
