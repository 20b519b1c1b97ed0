"""A loss for rare classes."""

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from negvision.errors import ConfigError
from negvision.registry import MODELS


@MODELS.register_module()
class SelfAdjustingDiceLoss(nn.Module):
    """Dice loss in which easy elements weigh little.

    Of an element with the probability p of a class, and y = 1 if that is its class, else 0::

        w = (1 - p) ** alpha                              without a gradient
        loss = 1 - (2 w p y + gamma) / (w p + y + gamma)

    Over a batch, of a class, with sums over all rows::

        loss = 1 - (2 sum(w p y) + gamma) / (sum(w p) + sum(y) + gamma)

    Numerous easy negatives, which dominate cross-entropy, hardly count. With a gradient through w,
    the loss of a positive would be least at ``p = 1 / (1 + alpha)`` rather than at 1, so w is a
    constant. It takes weight from hard negatives, of p near 1, as well.

    Detection heads with sigmoids need ``over="batch"`` and a small gamma. By element, the few
    positives among thousands of anchors have gradients as small as those of the negatives, and all
    probabilities fall to 0; with a large gamma, those of levels without positives do.

    As ``loss_cls`` of mmdet's and negvision's detection heads, as ``loss_decode`` of mmseg's decode
    heads, and as ``loss`` of negvision's classifiers.

    Args:
        use_sigmoid: Classes are independent, and a row whose label is no class is background.
            Otherwise probabilities are a softmax; in detection its last column is the background.
        over: "batch", one Dice coefficient for each class over all rows of the call, which no
            ``avg_factor`` divides; or "element", one for each row and class, whose sum over the
            classes is the loss of the row.
        alpha: Power, at least 0; 0 is the Dice loss.
        gamma: Smoothing, above 0; None: 0.001 over a batch, and 1 by element, as the paper has it.
        class_weight: Factor of each class, of its loss or by element of its rows, one number for
            each column of the prediction; "auto": by inverse frequency, when negvision's runner
            begins to train; None: 1. Rows of no class keep their weight.
        loss_weight: Factor of the loss.
        reduction: "mean", "sum" or "none".
        loss_name: Its name in the log of mmseg; must begin with ``loss_``.

    Raises:
        ConfigError: An argument is out of its range.

    Source: Li, Sun, Meng, Liang, Wu, Li, ACL 2020, "Dice Loss for Data-imbalanced NLP Tasks",
    sections 3.2 to 3.4. The paper has both forms, of elements and of a set; its code sums over the
    set. The paper does not say whether w has a gradient.

    Example:
        >>> loss = SelfAdjustingDiceLoss(over="element", alpha=0.0)
        >>> loss(torch.tensor([[0.0, 0.0]]), torch.tensor([1]))  # 1/3 + 1/5
        tensor(0.5333)
    """

    def __init__(
        self,
        use_sigmoid: bool = False,
        over: Literal["batch", "element"] = "batch",
        alpha: float = 1.0,
        gamma: float | None = None,
        class_weight: list[float] | str | None = None,
        loss_weight: float = 1.0,
        reduction: str = "mean",
        loss_name: str = "loss_dice",
    ) -> None:
        super().__init__()
        if over not in ("batch", "element"):
            raise ConfigError(
                f"negvision.SelfAdjustingDiceLoss: over must be 'batch' or 'element', got {over!r}"
            )
        if gamma is None:
            gamma = 1.0 if over == "element" else 1e-3
        if not alpha >= 0 or not gamma > 0:
            raise ConfigError(
                "negvision.SelfAdjustingDiceLoss: alpha must be at least 0 and gamma above 0, got "
                f"{alpha!r} and {gamma!r}"
            )
        if reduction not in ("mean", "sum", "none") or not loss_name.startswith("loss_"):
            raise ConfigError(
                "negvision.SelfAdjustingDiceLoss: reduction must be 'mean', 'sum' or 'none' and "
                f"loss_name begin with 'loss_', got {reduction!r} and {loss_name!r}"
            )
        if isinstance(class_weight, str):  # the runner has taken "auto" out
            raise ConfigError(
                f"negvision.SelfAdjustingDiceLoss: class_weight is {class_weight!r}; it must be a "
                'list of numbers. "auto" is for trainings by negvision: negvision train'
            )
        self.use_sigmoid, self.over = use_sigmoid, over
        self.alpha, self.gamma = alpha, gamma
        self.class_weight, self.loss_weight = class_weight, loss_weight
        self.reduction, self.loss_name = reduction, loss_name

    def forward(
        self,
        pred: Tensor,
        target: Tensor,
        weight: Tensor | None = None,
        avg_factor: float | Tensor | None = None,
        reduction_override: str | None = None,
        ignore_index: int = -100,
        **kwargs,
    ) -> Tensor:
        """The loss: a scalar; not reduced, of the shape of ``target``, or (C,) over a batch.

        Args:
            pred: Logits (N, C, ...), such as (N, C) or (N, C, H, W).
            target: Labels (N, ...); labels outside 0 to C - 1 are no class.
            weight: (N, ...) or (N, 1).
            avg_factor: Divides the sum over rows; None: the number of rows that are not ignored.
            reduction_override: Takes the place of ``reduction``.
            ignore_index: Label of rows without a loss.
            **kwargs: Of other losses; without effect.
        """
        reduction = reduction_override or self.reduction
        # Half precision cannot hold small probabilities; float64 stays.
        pred = pred if pred.dtype == torch.float64 else pred.float()
        rows = pred.movedim(1, -1).flatten(0, -2)
        labels = target.flatten().long()
        classes = rows.shape[1]
        known = (labels >= 0) & (labels < classes)
        hot = functional.one_hot(labels.where(known, classes), classes + 1)[:, :classes].to(rows)
        p = rows.sigmoid() if self.use_sigmoid else rows.softmax(1)
        # 0 ** 0 is 1, and so is its limit.
        scaled = (1 - p.detach()) ** self.alpha * p
        kept = (labels != ignore_index).to(rows)
        of_row = kept if weight is None else kept * weight.flatten()
        factors = rows.new_tensor([*(self.class_weight or [1.0] * classes), 1.0])
        if self.over == "batch":
            both, p_sum, y_sum = (of_row @ one for one in (scaled * hot, scaled, hot))
            losses = 1 - (2 * both + self.gamma) / (p_sum + y_sum + self.gamma)
            losses = losses * factors[:-1] * self.loss_weight
            return {"none": losses, "sum": losses.sum(), "mean": losses.mean()}[reduction]
        losses = 1 - (2 * scaled * hot + self.gamma) / (scaled + hot + self.gamma)
        losses = losses.sum(1) * of_row * factors[labels.where(known, classes)] * self.loss_weight
        if reduction == "none":
            return losses.view_as(target)
        if reduction == "sum":
            return losses.sum()
        if avg_factor is None:
            avg_factor = kept.sum()
        # A batch without rows, or a rank without positives, has the loss 0.
        return losses.sum() / torch.as_tensor(avg_factor, device=rows.device).clamp(min=1e-6)
