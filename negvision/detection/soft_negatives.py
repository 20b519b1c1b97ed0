"""Background that looks like an object loses weight in the loss."""

from __future__ import annotations

import functools
from typing import Any

import torch
from mmengine.hooks import Hook
from torch import Tensor, nn

from negvision.engine.config.model_parts import unwrapped
from negvision.errors import ConfigError
from negvision.registry import HOOKS


@HOOKS.register_module()
class SoftNegatives(Hook):
    """Negatives whose score is still high late in a training lose weight in classification losses.

    Where objects lack boxes, some of what trains as background is one. A detector finds such places
    early, and goes on finding them although every pass pushes their scores down; noise does not
    last. From ``warmup`` on, a negative with the score s > ``threshold`` weighs
    (1 - s) / (1 - ``threshold``): 1 at the threshold, 0 for a certain object. The score is the
    largest of all classes; no gradient goes through the weight. Positives, ignored priors, and the
    training before ``warmup`` stay as they are, bit for bit.

    It works for every part of the model with a ``loss_cls`` that takes predictions, labels and
    weights: mmdet's and negvision's dense heads, RPN and the heads of two-stage detectors.

    Args:
        threshold: Score in [0, 1) from which a negative is doubted.
        warmup: Share of the training, in [0, 1], in which every negative is believed.

    Raises:
        ConfigError: An argument is out of range, or the model has no such loss.

    Source: Zhang et al., "Solving Missing-Annotation Object Detection with Background Recalibration
    Loss", ICASSP 2020, for the idea, which mirrors the loss of such negatives. The weight, and the
    warm-up in place of a sampling of regions, are ours.

    Example:
        >>> custom_hooks = [dict(type="negvision.SoftNegatives", threshold=0.4)]
        >>> SoftNegatives(threshold=0.5).weights(torch.tensor([[0.0, -2.0], [3.0, 0.0]]),
        ...                                      torch.tensor([2, 2]), True).tolist()
        [1.0, 0.0948...]
    """

    def __init__(self, threshold: float = 0.3, warmup: float = 0.3) -> None:
        if not 0 <= threshold < 1 or not 0 <= warmup <= 1:
            raise ConfigError(
                "negvision.SoftNegatives: threshold must be from 0 to below 1 and warmup from 0 to "
                f"1, got {threshold!r} and {warmup!r}"
            )
        self.threshold, self.warmup = threshold, warmup
        self._active = False
        self._handles: list[Any] = []

    def before_train(self, runner) -> None:
        """Attach to the losses."""
        heads = [m for m in unwrapped(runner.model).modules() if hasattr(m, "loss_cls")]
        losses = {id(head.loss_cls): head.loss_cls for head in heads}
        usable = [loss for loss in losses.values() if isinstance(loss, nn.Module)]
        if not usable:
            raise ConfigError(
                "negvision.SoftNegatives: no part of the model has a classification loss "
                "(loss_cls), so nothing would change. Take it out, or use a detector such as ATSS"
            )
        for loss in usable:
            sigmoid = bool(getattr(loss, "use_sigmoid", False))
            weigh = functools.partial(self._weigh, sigmoid)
            self._handles.append(loss.register_forward_pre_hook(weigh, with_kwargs=True))

    def before_train_iter(self, runner, batch_idx, data_batch=None) -> None:
        """Begin after the warm-up, by the iteration: a resumed run needs no state."""
        self._active = runner.iter >= self.warmup * runner.max_iters

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        """Losses of evaluations and reports are not changed."""
        self._active = False

    def after_train(self, runner) -> None:
        """Detach."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def weights(self, scores: Tensor, labels: Any, sigmoid: bool) -> Tensor:
        """The factor of each prior, (N,), in [0, 1].

        Args:
            scores: Logits (N, C), with the background as last column unless ``sigmoid``.
            labels: (N,) where C, or the last column, means background; (N, C) with 0 for it; or a
                tuple that begins with labels, as quality focal loss takes.
            sigmoid: Whether classes have sigmoids of their own.
        """
        labels = labels[0] if isinstance(labels, tuple | list) else labels
        scores = scores.detach().float()
        if sigmoid:
            found = scores.sigmoid().amax(1)
        else:
            found = 1 - scores.softmax(1)[:, -1]
        if labels.dim() == scores.dim():
            negative = ~labels.bool().any(1)
        else:
            negative = labels >= scores.shape[1] - (not sigmoid)
        soft = ((1 - found) / (1 - self.threshold)).clamp(max=1)
        return torch.where(negative, soft, torch.ones_like(soft))

    def _weigh(self, sigmoid: bool, loss: nn.Module, args: tuple, kwargs: dict) -> Any:
        if not self._active:
            return None
        pred, target, *rest = args
        if not len(pred):
            return None
        given = rest[0] if rest else kwargs.get("weight")
        factor = self.weights(pred, target, sigmoid)
        if given is not None:
            factor = given * (factor if given.dim() == 1 else factor[:, None])
        if rest:
            return (pred, target, factor, *rest[1:]), kwargs
        return args, {**kwargs, "weight": factor}
