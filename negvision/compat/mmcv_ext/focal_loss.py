"""Focal loss (Lin et al., "Focal loss for dense object detection", ICCV 2017, section 3).

With p the probability given to the truth and q = 1 - p, the loss is -alpha q^gamma log p.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from negvision.compat.mmcv_ext.precision import upcast


def sigmoid_focal_loss_forward(
    input: Tensor, target: Tensor, weight: Tensor, output: Tensor, gamma: float, alpha: float
) -> None:
    """One two-class focal loss for every sample and class.

    Args:
        input: (N, C) logits.
        target: (N,) int64 class; any number outside of [0, C) makes all C classes negative.
        weight: (C,) weight of a sample by its target class, or empty. Samples of no class weigh 1
            (mmcv reads past the end of ``weight`` for them).
        output: (N, C), overwritten.
        gamma: Exponent of the modulating factor.
        alpha: Weight of the target class; the others weigh 1 - alpha.
    """
    signed, _, balance = _sigmoid_terms(input, target, weight, alpha)
    # log p through logsigmoid keeps the slope where p underflows; mmcv stops at log(FLT_MIN).
    output.copy_(-balance * torch.sigmoid(-signed).pow(gamma) * F.logsigmoid(signed))


def sigmoid_focal_loss_backward(
    input: Tensor, target: Tensor, weight: Tensor, grad_input: Tensor, gamma: float, alpha: float
) -> None:
    """Add the gradient of :func:`sigmoid_focal_loss_forward`, shape (N, C), to ``grad_input``."""
    signed, sign, balance = _sigmoid_terms(input, target, weight, alpha)
    p, q = torch.sigmoid(signed), torch.sigmoid(-signed)
    slope = q.pow(gamma) * (gamma * p * F.logsigmoid(signed) - q)
    grad_input.add_(sign * balance * slope)


def softmax_focal_loss_forward(
    softmax: Tensor, target: Tensor, weight: Tensor, output: Tensor, gamma: float, alpha: float
) -> None:
    """One focal loss per sample over mutually exclusive classes.

    Args:
        softmax: (N, C) probabilities.
        target: (N,) int64 class in [0, C), or negative to ignore the sample (loss 0).
        weight: (C,) weight of a sample by its target class, or empty.
        output: (N,), overwritten.
        gamma: Exponent of the modulating factor.
        alpha: Weight of the total loss.
    """
    p, log_p, balance = _softmax_terms(softmax, target, weight, alpha)
    output.copy_(-balance * (1 - p).pow(gamma) * log_p)


def softmax_focal_loss_backward(
    softmax: Tensor, target: Tensor, weight: Tensor, buff: Tensor, grad_input: Tensor,
    gamma: float, alpha: float,
) -> None:  # fmt: skip
    """Add the gradient with respect to the logits under ``softmax`` to ``grad_input``, (N, C).

    ``buff`` (N,) is overwritten with p times the derivative of the loss by p.
    """
    p, log_p, balance = _softmax_terms(softmax, target, weight, alpha)
    q = 1 - p
    # q^(gamma - 1) is infinite at q = 0 where gamma < 1; times log p = 0 the limit is 0.
    modulation = torch.where(q > 0, gamma * q.pow(gamma - 1) * p * log_p, 0)
    by_p = balance * (modulation - q.pow(gamma))
    buff.copy_(by_p)
    is_target = torch.arange(softmax.shape[1], device=target.device) == target[:, None]
    grad_input.add_(by_p[:, None] * (is_target.to(p.dtype) - softmax.to(p.dtype)))


def _sigmoid_terms(
    input: Tensor, target: Tensor, weight: Tensor, alpha: float
) -> tuple[Tensor, Tensor, Tensor]:
    """(N, C) each: logit of the truth, its sign in the input, weight of the term."""
    (logits,) = upcast(input)
    classes = logits.shape[1]
    is_target = torch.arange(classes, device=target.device) == target[:, None]
    sign = is_target.to(logits.dtype) * 2 - 1
    balance = torch.full_like(logits, 1 - alpha).masked_fill_(is_target, alpha)
    if weight.numel():
        known = (target >= 0) & (target < classes)
        sample_weight = weight.to(logits.dtype)[target.clamp(0, classes - 1)]
        balance = balance * torch.where(known, sample_weight, 1)[:, None]
    return logits * sign, sign, balance


def _softmax_terms(
    softmax: Tensor, target: Tensor, weight: Tensor, alpha: float
) -> tuple[Tensor, Tensor, Tensor]:
    """(N,) each: probability of the target, its logarithm, weight of the sample."""
    (softmax,) = upcast(softmax)
    index = target.clamp(min=0)
    p = softmax.gather(1, index[:, None])[:, 0]
    balance = torch.full_like(p, alpha).masked_fill_(target < 0, 0)
    if weight.numel():
        balance = balance * weight.to(p.dtype)[index]
    return p, p.clamp(min=torch.finfo(torch.float32).tiny).log(), balance
