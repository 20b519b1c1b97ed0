"""Box decoding that does not wait for the device."""

import math

import torch
from mmdet.models.task_modules.coders import DeltaXYWHBBoxCoder
from torch import Tensor

# mmdet's clip of the factor by which a box may grow (its wh_ratio_clip).
_LARGEST_LOG_RATIO = abs(math.log(16 / 1000))


def decode_deltas(coder, priors: Tensor, deltas: Tensor) -> Tensor:
    """Boxes that the coder reads from deltas (..., A, 4) to the priors (A, 4).

    For mmdet's ``DeltaXYWHBBoxCoder`` the formula is written out: its own copies the means and
    deviations to the device in every call, which waits for it. Other coders are called.
    """
    if type(coder) is not DeltaXYWHBBoxCoder or coder.add_ctr_clamp:
        own = priors.expand_as(deltas).reshape(-1, 4)
        return coder.decode(own, deltas.reshape(-1, 4)).view_as(deltas)
    dx, dy, dw, dh = (
        delta * std + mean
        for delta, std, mean in zip(deltas.unbind(-1), coder.stds, coder.means, strict=True)
    )
    x1, y1, x2, y2 = priors.unbind(-1)
    width, height = x2 - x1, y2 - y1
    x = (x1 + x2) * 0.5 + width * dx
    y = (y1 + y2) * 0.5 + height * dy
    half_w = width * dw.clamp(-_LARGEST_LOG_RATIO, _LARGEST_LOG_RATIO).exp() * 0.5
    half_h = height * dh.clamp(-_LARGEST_LOG_RATIO, _LARGEST_LOG_RATIO).exp() * 0.5
    return torch.stack([x - half_w, y - half_h, x + half_w, y + half_h], -1)
