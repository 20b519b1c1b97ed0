"""Prune single weights or whole channels, and protect a class while the rest is trained again."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
from mmengine.hooks import Hook
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd

from negvision.engine.config.model_parts import unwrapped
from negvision.errors import ConfigError, UserError, did_you_mean
from negvision.registry import HOOKS

# Heads whose outputs are traced; what any other head takes keeps its channels.
_HEADS = ("bbox_head", "rpn_head", "decode_head", "auxiliary_head")
# Shares of the channels that are tried, until the target is reached.
_SHARES = [step / 64 for step in range(1, 64)]
_LAYERS = (_ConvNd, nn.Linear)
_NORMS = (_BatchNorm, nn.GroupNorm, nn.LayerNorm)


def ranking_loss(scores: Tensor, positive: Tensor) -> Tensor:
    """Squared hinge of each positive below the highest negative: what ranks wrongly costs.

    Args:
        scores: (N,), probabilities of the class.
        positive: (N,) bool.

    Returns:
        The sum over the P positives divided by P + 1; 0 without positives or negatives. Gradients
        go through the positives alone. The one highest negative would take as much as all of them
        together, and the class would be predicted less often (docs/results.md, "Compression").

    Source: Entezari and Saukh, "Class-dependent Pruning of Deep Neural Networks", SenSys-ML 2020,
    whose code detaches all scores, so that the loss has no gradient, and multiplies it by 0.

    Example:
        >>> scores = torch.tensor([0.5, 0.9, 0.7, 0.1])
        >>> ranking_loss(scores, torch.tensor([True, True, False, False]))  # (0.7 - 0.5)² / 3
        tensor(0.0133)
    """
    above, below = scores[positive], scores[~positive]
    if not len(above) or not len(below):
        return scores.sum() * 0
    return (below.max().detach() - above).clamp(min=0).square().sum() / (len(above) + 1)


@HOOKS.register_module()
class ProtectedClassHook(Hook):
    """Adds :func:`ranking_loss` of some classes to the classification losses of a training.

    For ``loss_cls`` of mmdet's and negvision's heads except RPN, where priors without a weight do
    not count, ``loss_decode`` of mmseg, and ``loss`` of negvision's classifiers. The rows of one
    call of the loss are ranked, such as those of a level.

    Args:
        classes: Names of the classes that are protected.
        weight: Factor of the ranking loss, above 0.

    Raises:
        ConfigError: A class is unknown, ``weight`` is not above 0, or no loss of the model fits.

    Source: As of :func:`ranking_loss`.

    Example:
        >>> custom_hooks = [dict(type="negvision.ProtectedClassHook", classes=["Platelets"])]
    """

    def __init__(self, classes: Sequence[str], weight: float = 1.0) -> None:
        if not weight > 0:
            raise ConfigError(
                f"negvision.ProtectedClassHook: weight is {weight!r}; give one above 0"
            )
        self.classes, self.weight = list(classes), weight
        self._handles: list[Any] = []

    def before_train(self, runner) -> None:
        """Attach to the losses."""
        known = tuple((runner.train_dataloader.dataset.metainfo or {}).get("classes") or ())
        for name in self.classes:
            if name not in known:
                raise ConfigError(
                    f"negvision.ProtectedClassHook: the training set has no class {name!r}"
                    f"{did_you_mean(name, known)}"
                )
        labels = [known.index(name) for name in self.classes]
        losses = classification_losses(unwrapped(runner.model))
        if not losses:
            raise ConfigError(
                "negvision.ProtectedClassHook: no loss of the model is loss_cls of a detector, "
                "loss_decode of a segmentor or loss of a classifier, so nothing would change"
            )

        def add(loss: nn.Module, args: tuple, kwargs: dict, value: Any) -> Any:
            if not isinstance(value, Tensor) or value.dim():
                return value
            return value + self.weight * protected_loss(loss, labels, *args, **kwargs)

        self._handles = [loss.register_forward_hook(add, with_kwargs=True) for loss in losses]

    def after_train(self, runner) -> None:
        """Detach."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()


def classification_losses(model: nn.Module) -> list[nn.Module]:
    """The losses of the classes of ``model``, without that of an RPN."""
    found: dict[int, nn.Module] = {}
    for path, module in model.named_modules():
        *above, name = path.split(".")
        if "rpn_head" in above or (name == "loss" and above):
            continue
        if name in ("loss_cls", "loss_decode", "loss"):
            parts = module if isinstance(module, nn.ModuleList) else [module]
            # A loss around another one, such as that of AbeT, gives it the scores of the classes.
            inner = [getattr(part, "loss", part) for part in parts]
            found |= {id(part): part for part in inner if isinstance(part, nn.Module)}
    return list(found.values())


def protected_loss(
    loss: nn.Module,
    labels: Sequence[int],
    scores: Tensor,
    target: Any,
    weight: Tensor | None = None,
    **kwargs: Any,
) -> Tensor:
    """The sum of :func:`ranking_loss` over some labels, from what a loss was called with.

    Args:
        loss: Its ``use_sigmoid`` tells how scores become probabilities.
        labels: Those that are protected.
        scores: Logits (N, C) or (N, C, H, W).
        target: Labels (N,) or (N, H, W), where a number outside of the classes is background, and
            255 of a label image no class at all; (N, C) of a soft loss; or a tuple that begins
            with labels.
        weight: (N,), (N, C) or (N, H, W): rows of weight 0 do not count.
        kwargs: Not used.
    """
    target = target[0] if isinstance(target, tuple | list) else target
    counted = torch.ones(len(scores), dtype=torch.bool, device=scores.device)
    if scores.dim() > 2:
        scores = scores.movedim(1, -1).flatten(0, -2)
        target = target.flatten()
        counted = target != 255
        weight = None if weight is None else weight.flatten()
    if weight is not None and len(weight) == len(counted):
        counted = counted & (weight if weight.dim() == 1 else weight.amax(1)).bool()
    sigmoid = bool(getattr(loss, "use_sigmoid", False))
    scores = scores.float()
    scores = (scores.sigmoid() if sigmoid else scores.softmax(1))[counted]
    target = target[counted]
    total = scores.sum() * 0
    for label in labels:
        if label < scores.shape[1]:
            positive = target == label if target.dim() == 1 else target[:, label] > 0
            total = total + ranking_loss(scores[:, label], positive)
    return total


@HOOKS.register_module()
class KeepZerosHook(Hook):
    """Keeps the weights of convolutions and linear layers that are 0 when a training begins.

    That is what pruning of single weights leaves. Layers without a weight of 0, or of nothing else,
    are trained as usual.

    Example:
        >>> custom_hooks = [dict(type="negvision.KeepZerosHook")]
    """

    # Before averages of the weights and checkpoints.
    priority = "VERY_HIGH"

    def __init__(self) -> None:
        self._kept: list[tuple[Tensor, Tensor]] = []

    def before_train(self, runner) -> None:
        """Remember which weights are 0; in a resumed training they still are."""
        weights = prunable(unwrapped(runner.model)).values()
        masks = [(weight, weight.detach() != 0) for weight in weights]
        self._kept = [(weight, mask) for weight, mask in masks if mask.any() and not mask.all()]

    @torch.no_grad()
    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        """Set them to 0 again."""
        for weight, mask in self._kept:
            weight.mul_(mask)


def prunable(model: nn.Module) -> dict[str, Tensor]:
    """The weights of convolutions and linear layers, by name."""
    return {
        f"{name}.weight": module.weight
        for name, module in model.named_modules()
        if isinstance(module, _LAYERS)
    }


def check_sparsity(weights: Mapping[str, Tensor], sparsity: float) -> None:
    """Check that a share of the weights of each layer can be pruned.

    Raises:
        UserError: There is nothing to prune, or a layer would have no weight left.
    """
    if not weights:
        raise UserError(
            "the model has no convolution and no linear layer: there is nothing to prune"
        )
    name, least = min(weights.items(), key=lambda item: item[1].numel())
    count = least.numel()
    if not any(_zeros(weight.numel(), sparsity) for weight in weights.values()):
        raise UserError(f"--sparsity {sparsity:g}: no layer is large enough to lose a weight")
    if _zeros(count, sparsity) >= count:
        raise UserError(
            f"--sparsity {sparsity:g} leaves nothing of the layer {name.removesuffix('.weight')}, "
            f"which has {count:,} weights. Give at most {1 - 1 / count:.4g}"
        )


def _zeros(count: int, sparsity: float) -> int:
    return round(count * sparsity)


def sparse_masks(
    now: Mapping[str, Tensor], start: Mapping[str, Tensor] | None, sparsity: float
) -> dict[str, Tensor]:
    """Which weights of each layer stay: those whose magnitude grew most.

    Args:
        now: Weights by name. Those that are 0 stay so.
        start: The same when the training began, or None: the smallest weights go.
        sparsity: Share of the weights of each layer that is 0 afterwards.

    Returns:
        Bool, by name.

    Source: Entezari and Saukh, as of :func:`ranking_loss`; the criterion is "magnitude increase"
    of Zhou, Lan, Liu and Yosinski, "Deconstructing Lottery Tickets", NeurIPS 2019.

    Example:
        >>> now, start = torch.tensor([0.5, -3.0, 2.0]), torch.tensor([0.1, 3.0, 1.0])
        >>> sparse_masks({"w": now}, {"w": start}, 0.34)  # -3 is as large as it was
        {'w': tensor([ True, False,  True])}
    """
    masks = {}
    for name, weight in now.items():
        size = weight.abs().flatten().double()
        growth = size if start is None else size - start[name].abs().flatten()
        growth = growth.masked_fill(size == 0, -torch.inf)
        # Weights that were frozen have not grown at all: of equal ones the smallest go.
        order = torch.from_numpy(np.lexsort((size.numpy(), growth.numpy())))
        kept = torch.ones(len(order), dtype=torch.bool)
        kept[order[: _zeros(len(order), sparsity)]] = False
        masks[name] = kept.view_as(weight)
    return masks


def require_torch_pruning() -> None:
    """Raise UserError if torch-pruning, which prunes channels, is not installed."""
    if find_spec("torch_pruning") is None:
        raise UserError(
            "torch-pruning is not installed; --flops and --size need it\n"
            "  pip install -r requirements/compress.txt -c requirements/constraints.txt\n"
            "--sparsity does not"
        )


def prune_channels(
    model: nn.Module, images: Tensor, reached: Callable[[nn.Module], bool], left: float = 1.0
) -> bool:
    """Remove channels, in every layer the same share of those with the smallest weights.

    Channels that one layer passes to several, as residual blocks, feature pyramids and heads of
    several levels do, are removed from all of them; a group of a normalization keeps its share. The
    outputs of the network, and what it passes to parts that are not traced, keep their channels.

    Args:
        model: A detector, segmentor or classifier on the CPU; changed in place.
        images: (1, 3, H, W), for tracing.
        reached: Asked before every step whether to stop.
        left: About how much of the weights or operations is to stay; the first steps, which cannot
            reach that, are skipped.

    Returns:
        Whether ``reached`` became true.

    Raises:
        UserError: torch-pruning is missing, or the network cannot be traced.

    Source: Fang, Ma, Song, Mi and Wang, "DepGraph: Towards Any Structural Pruning", CVPR 2023.
    """
    require_torch_pruning()
    torch_pruning: Any = import_module("torch_pruning")
    # The cost of a layer falls with the square of the share of the channels that stay.
    shares = [share for share in _SHARES if (1 - share) ** 2 <= 1.2 * left]
    model.requires_grad_(True).eval()
    try:
        with _plain_layers(model):
            traced = _Traced(model, images)
            others = [
                parameter
                for module in model.modules()
                if not isinstance(module, (*_LAYERS, *_NORMS))
                for parameter in module.parameters(recurse=False)
            ]
            pruner = torch_pruning.pruner.BasePruner(
                traced,
                images,
                importance=torch_pruning.importance.GroupMagnitudeImportance(p=2),
                iterative_steps=len(shares),
                iterative_pruning_ratio_scheduler=lambda *_: [0.0, *shares],
                ignored_layers=[*traced.ends, *others],
                # The defaults are shared by all pruners of a process.
                in_channel_groups={},
                out_channel_groups={},
            )
            for _ in shares:
                if reached(model):
                    return True
                pruner.step()
                with torch.no_grad():
                    traced(images)
    except UserError:
        raise
    except Exception as error:  # torch-pruning and networks may raise anything
        reason = (str(error).strip().splitlines() or [""])[0] or type(error).__name__
        raise UserError(
            f"the channels of {type(model).__name__} cannot be pruned: {reason}. --sparsity prunes "
            "the weights of any model"
        ) from error
    return reached(model)


class _Traced(nn.Module):
    """A model whose outputs end in normalizations that keep their channels.

    So does what goes into modules with weights of their own that are neither layers nor
    normalizations: nobody knows which channel each of their weights belongs to.
    """

    def __init__(self, model: nn.Module, images: Tensor) -> None:
        super().__init__()
        self.model = model
        self._unknown: list[Tensor] = []
        for module in model.modules():
            own = module.parameters(recurse=False)
            if not isinstance(module, (*_LAYERS, *_NORMS)) and any(one.dim() for one in own):
                module.register_forward_hook(self._cut)
        self.ends = nn.ModuleList(
            (nn.BatchNorm2d if one.dim() == 4 else nn.BatchNorm1d)(one.shape[1])
            for one in self._outputs(images)
        )
        self.eval()

    def forward(self, images: Tensor) -> list[Tensor]:
        return [end(one) for end, one in zip(self.ends, self._outputs(images), strict=True)]

    def _outputs(self, images: Tensor) -> list[Tensor]:
        self._unknown = []
        with torch.enable_grad():
            outputs = list(_tensors(_outputs(self.model, images)))
        return [*outputs, *self._unknown]

    def _cut(self, module: nn.Module, args: tuple, output: Any) -> Any:
        self._unknown += _tensors(args)
        return _detached(output)


def _detached(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.detach()
    if isinstance(value, tuple | list):
        parts = map(_detached, value)
        return type(value)(*parts) if hasattr(value, "_fields") else type(value)(parts)
    return value


def _outputs(model: Any, images: Tensor) -> list[Any]:
    """What the network computes from images, up to where another part takes over."""
    if not hasattr(model, "extract_feat"):
        features = model.backbone(images)
        feature = features[-1] if isinstance(features, tuple | list) else features
        pooled = feature.mean((2, 3)) if feature.dim() == 4 else feature
        return [model.head(pooled)]
    features = model.extract_feat(images)
    outputs, heads = [], [name for name, _ in model.named_children() if "head" in name]
    if not heads or any(name not in _HEADS for name in heads):
        outputs.append(features)
    for name in heads:
        if name in _HEADS:
            head = getattr(model, name)
            parts = head if isinstance(head, nn.ModuleList) else [head]
            outputs += [part(features) for part in parts]
    return outputs


def _tensors(values: Any) -> Iterator[Tensor]:
    if isinstance(values, tuple | list):
        for value in values:
            yield from _tensors(value)
    elif isinstance(values, Tensor) and values.dim() in (2, 4) and values.requires_grad:
        yield values


@contextlib.contextmanager
def _plain_layers(model: nn.Module) -> Iterator[None]:
    """Inside the block, layers compute what their base class does, each by itself.

    A linear layer with a score as second output is one with a single output, and convolutions of
    EfficientNet-Lite call their normalization instead of multiplying its factors into the weights.
    """
    before = [(module, type(module)) for module in model.modules()]
    for module, kind in before:
        if kind is nn.BatchNorm2d:
            module.__class__ = _SeparateNorm
        elif isinstance(module, nn.Linear) and kind is not nn.Linear:
            module.__class__ = nn.Linear
    try:
        yield
    finally:
        for module, kind in before:
            module.__class__ = kind


class _SeparateNorm(nn.BatchNorm2d):
    pass
