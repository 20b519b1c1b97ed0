"""Logit heads: cosines, as AbeT has them, and inner products, its ablation."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from negvision.ood.precision import full_precision, wide

_EPS = 1e-4


class _LogitHead(nn.Module):
    """Weights of the classes; the same for vectors (N, D) and for maps (N, D, H, W).

    Args:
        in_features: D.
        num_classes: C.
    """

    def __init__(self, in_features: int, num_classes: int) -> None:
        super().__init__()
        for name, value in {"in_features": in_features, "num_classes": num_classes}.items():
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        self.in_features, self.num_classes = in_features, num_classes
        self.weight = nn.Parameter(torch.empty(num_classes, in_features))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the weights anew: Kaiming-normal by fan-in, with the gain of ReLU."""
        nn.init.kaiming_normal_(self.weight, nonlinearity="relu")

    def extra_repr(self) -> str:
        """Sizes, for printing."""
        return f"in_features={self.in_features}, num_classes={self.num_classes}"

    def _checked(self, features: Tensor) -> Tensor:
        if features.dim() not in (2, 4) or features.shape[1] != self.in_features:
            raise ValueError(
                f"features must be (N, {self.in_features}) or (N, {self.in_features}, H, W), got "
                f"{tuple(features.shape)}"
            )
        return wide(features)

    def _product(self, features: Tensor, weight_mask: Tensor | None) -> Tensor:
        weight = self.weight if weight_mask is None else self.weight * weight_mask
        if features.dim() == 2:
            return F.linear(features, weight)
        return F.conv2d(features, weight[:, :, None, None])


class CosineLogits(_LogitHead):
    """Cosines of a feature with the weights of the classes, without bias.

    ``g_c = <w_c, h> / ((|w_c| + 1e-4) (|h| + 1e-4))``, so a feature of zeros gets zeros. Computed
    in float32, also under autocast.

    Source: LeVine et al., arXiv 2401.12129, section 3 and its official code.

    Args:
        in_features: Channels of the feature, D.
        num_classes: C, the background included where there is one.

    Example:
        >>> head = CosineLogits(16, 10)
        >>> head(torch.randn(2, 16)).shape, head(torch.randn(2, 16, 4, 5)).shape
        (torch.Size([2, 10]), torch.Size([2, 10, 4, 5]))
    """

    def forward(self, features: Tensor, weight_mask: Tensor | None = None) -> Tensor:
        """Cosines in [-1, 1].

        Args:
            features: (N, D) or (N, D, H, W).
            weight_mask: (C, D), multiplied on the weights in the product and not in their norms.
        """
        with full_precision(features.device):
            features = self._checked(features)
            norms = torch.linalg.vector_norm(features, dim=1, keepdim=True) + _EPS
            weight_norms = torch.linalg.vector_norm(self.weight, dim=1) + _EPS
            product = self._product(features, weight_mask)
            return product / (norms * weight_norms.view(1, -1, *[1] * (features.dim() - 2)))


class InnerLogits(_LogitHead):
    """Inner products ``<w_c, h>`` without bias: AbeT's ablation of the cosine.

    Args:
        in_features: D.
        num_classes: C.
    """

    def forward(self, features: Tensor, weight_mask: Tensor | None = None) -> Tensor:
        """Arguments and shapes as of :meth:`CosineLogits.forward`."""
        with full_precision(features.device):
            return self._product(self._checked(features), weight_mask)
