"""Margins, which lower a sample's cosine with its own class center in training.

A margin is a module whose ``forward(cosine, norms)`` takes the cosines of N samples with their own
centers and the norms of their embeddings, both (N,), and returns the cosines to train with, (N,).
If it has ``regularizer(norms)``, that scalar is added to the loss. The cost does not depend on the
number of classes, and gradients are finite at cosines of 1 and -1.
"""

import math

import torch
from torch import Tensor, nn

from negvision.registry import MODELS


@MODELS.register_module()
class NoMargin(nn.Module):
    """The cosine itself: normalized softmax.

    Source: Wang et al., ACM MM 2017, "NormFace".

    Example:
        >>> NoMargin()(torch.tensor([0.5]), torch.tensor([20.0]))
        tensor([0.5000])
    """

    def forward(self, cosine: Tensor, norms: Tensor) -> Tensor:
        return cosine


@MODELS.register_module()
class CosFaceMargin(nn.Module):
    """``cos(theta) - m``.

    Args:
        m: The margin, at least 0; 0.35 in the paper.

    Source: Wang et al., CVPR 2018, "CosFace", eq. 4.

    Example:
        >>> CosFaceMargin(m=0.25)(torch.tensor([0.5]), torch.tensor([20.0]))
        tensor([0.2500])
    """

    def __init__(self, m: float = 0.35) -> None:
        super().__init__()
        self.m = _checked_margin(m)

    def forward(self, cosine: Tensor, norms: Tensor) -> Tensor:
        return cosine - self.m


@MODELS.register_module()
class ArcFaceMargin(nn.Module):
    """``cos(theta + m)``; where ``theta + m`` would pass pi, ``cos(theta) - m sin(m)``.

    Args:
        m: The margin in radians, from 0 to pi / 2.
        easy_margin: Apply the margin only to samples closer than a right angle.
        detach_angle: Take the derivative as 1, as InsightFace does, whose code adds the margin
            without gradients. The derivative is ``sin(theta + m) / sin(theta)``, which is 1.24 at a
            cosine of 0.6; recipes tuned with theirs carry over.

    Source: Deng et al., CVPR 2019, "ArcFace", eq. 3; beyond pi as in the authors' code.

    Example:
        >>> ArcFaceMargin(m=0.5)(torch.tensor([1.0, 0.0]), torch.ones(2))
        tensor([ 0.8774, -0.4794])
    """

    def __init__(
        self, m: float = 0.5, easy_margin: bool = False, detach_angle: bool = False
    ) -> None:
        super().__init__()
        self.m = _checked_margin(m, math.pi / 2)
        self.easy_margin, self.detach_angle = easy_margin, detach_angle

    def forward(self, cosine: Tensor, norms: Tensor) -> Tensor:
        lowered = _add_angle(cosine, torch.full_like(cosine, self.m), self.easy_margin)
        return cosine + (lowered - cosine).detach() if self.detach_angle else lowered


@MODELS.register_module()
class MagFaceMargin(nn.Module):
    """ArcFace whose margin grows with the norm of the embedding, and a regularizer of the norms.

    Args:
        l_margin: Margin at the norm ``l_a``, radians.
        u_margin: Margin at the norm ``u_a``, radians.
        l_a: Lower bound to which norms are clamped.
        u_a: Upper bound to which norms are clamped.
        lambda_g: Weight of the regularizer ``mean(a / u_a^2 + 1 / a)``, which increases norms.
        easy_margin: As in :class:`ArcFaceMargin`.

    Source: Meng et al., CVPR 2021, "MagFace", eq. 4 and section 3.2.

    Example:
        >>> margin = MagFaceMargin()
        >>> margin(torch.tensor([0.5, 0.5]), torch.tensor([10.0, 110.0]))
        tensor([ 0.0735, -0.2729])
        >>> round(margin.regularizer(torch.tensor([10.0])).item(), 4)  # 35 * (10 / 110^2 + 1 / 10)
        3.5289
    """

    def __init__(
        self,
        l_margin: float = 0.45,
        u_margin: float = 0.8,
        l_a: float = 10.0,
        u_a: float = 110.0,
        lambda_g: float = 35.0,
        easy_margin: bool = True,
    ) -> None:
        super().__init__()
        if not 0 < l_a < u_a:
            raise ValueError(f"norms must satisfy 0 < l_a < u_a, got {l_a} and {u_a}")
        self.l_margin = _checked_margin(l_margin, math.pi / 2)
        self.u_margin = _checked_margin(u_margin, math.pi / 2)
        self.l_a, self.u_a, self.lambda_g, self.easy_margin = l_a, u_a, lambda_g, easy_margin

    def forward(self, cosine: Tensor, norms: Tensor) -> Tensor:
        slope = (self.u_margin - self.l_margin) / (self.u_a - self.l_a)
        margin = self.l_margin + slope * (norms.clamp(self.l_a, self.u_a) - self.l_a)
        return _add_angle(cosine, margin, self.easy_margin)

    def regularizer(self, norms: Tensor) -> Tensor:
        """A scalar to add to the loss."""
        a = norms.clamp(self.l_a, self.u_a)
        return self.lambda_g * (a / self.u_a**2 + 1 / a).mean()


@MODELS.register_module()
class AdaFaceMargin(nn.Module):
    """An angular and a cosine margin that depend on the norm as a measure of image quality.

    Norms are compared with running statistics of the (global) batch; they get no gradient.

    Args:
        m: The margin.
        h: Scale of the norms: 1 / h standard deviations reach the limit.
        momentum: Share of the batch in the running mean and deviation of the norms.

    Source: Kim et al., CVPR 2022, "AdaFace", eq. 13 to 16.

    Example:
        >>> margin = AdaFaceMargin().eval()  # running mean 20, deviation 100
        >>> margin(torch.tensor([0.5]), torch.tensor([20.0]))  # average norm: cos(theta) - m
        tensor([0.1000])
    """

    def __init__(self, m: float = 0.4, h: float = 0.333, momentum: float = 0.01) -> None:
        super().__init__()
        if not 0 < momentum <= 1:
            raise ValueError(f"momentum must lie in (0, 1], got {momentum}")
        self.m, self.h, self.momentum = _checked_margin(m), h, momentum
        # Initial values of the authors' code.
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", torch.tensor(20.0))
        self.register_buffer("std", torch.tensor(100.0))

    def forward(self, cosine: Tensor, norms: Tensor) -> Tensor:
        norms = norms.detach().clamp(0.001, 100)
        if self.training:
            self.mean.lerp_(norms.mean().to(self.mean.dtype), self.momentum)
            if len(norms) > 1:
                self.std.lerp_(norms.std().to(self.std.dtype), self.momentum)
        quality = ((norms - self.mean) / (self.std + 1e-3) * self.h).clamp(-1, 1)
        theta = torch.acos(cosine.clamp(-1 + _edge(cosine), 1 - _edge(cosine)))
        turned = (theta - self.m * quality).clamp(1e-3, math.pi - 1e-3)
        return turned.cos() - (self.m + self.m * quality)


def _add_angle(cosine: Tensor, margin: Tensor, easy_margin: bool) -> Tensor:
    """``cos(arccos(cosine) + margin)`` with its guard, for one margin per sample."""
    # The derivative of the square root is infinite at 0, hence the lower bound.
    sine = (1 - cosine * cosine).clamp(min=_edge(cosine)).sqrt()
    turned = cosine * margin.cos() - sine * margin.sin()
    if easy_margin:
        return torch.where(cosine > 0, turned, cosine)
    return torch.where(cosine > -margin.cos(), turned, cosine - margin * margin.sin())


def _edge(cosine: Tensor) -> float:
    return 1e-7 if cosine.dtype == torch.float32 else 1e-14


def _checked_margin(m: float, most: float = math.inf) -> float:
    if not 0 <= m <= most:
        limit = "" if most == math.inf else f" and at most {most:.4f}"
        raise ValueError(f"a margin must be at least 0{limit}, got {m}")
    return m
