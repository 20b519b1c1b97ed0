"""A temperature that the network learns for each image, box or pixel."""

from torch import Tensor, nn
from torch.nn import functional as F

from negvision.ood.precision import full_precision, wide

# Keeps 1 / T finite where the sigmoid is 0.
_LEAST = 1e-12


class LearnedTemperature(nn.Module):
    """``T = sigmoid(BatchNorm(Linear(h))) + 1e-12``, one scalar for each sample or pixel.

    Nothing supervises T but the cross-entropy of ``g / T``. The statistics of its normalisation
    are those of what is trained on: for boxes of the sampled foreground and background together.
    Computed in float32, also under autocast.

    Source: LeVine et al., arXiv 2401.12129, section 3; the form is that of Hsu et al.,
    "Generalized ODIN", CVPR 2020, section 3.

    Args:
        in_features: Channels of the feature, D.
        conv: Whether features are maps (N, D, H, W); then the linear layer is a 1x1 convolution
            without bias. Else they are vectors (N, D).

    Example:
        >>> LearnedTemperature(16)(torch.randn(8, 16)).shape
        torch.Size([8])
        >>> LearnedTemperature(16, conv=True)(torch.randn(2, 16, 4, 5)).shape
        torch.Size([2, 4, 5])
    """

    def __init__(self, in_features: int, conv: bool = False) -> None:
        super().__init__()
        self.conv = conv
        if conv:
            self.linear = nn.Conv2d(in_features, 1, 1, bias=False)
            self.norm = nn.BatchNorm2d(1)
        else:
            self.linear = nn.Linear(in_features, 1)
            self.norm = nn.BatchNorm1d(1)

    def reset_parameters(self) -> None:
        """Draw the weights anew and forget the statistics."""
        self.linear.reset_parameters()
        self.norm.reset_parameters()

    def forward(self, features: Tensor) -> Tensor:
        """Temperatures in (0, 1]: (N,) of vectors (N, D), (N, H, W) of maps (N, D, H, W)."""
        if features.dim() != (4 if self.conv else 2):
            wanted = "(N, D, H, W)" if self.conv else "(N, D)"
            raise ValueError(f"features must be {wanted}, got {tuple(features.shape)}")
        with full_precision(features.device):
            values = self.linear(wide(features))
            return (self._normalised(values).sigmoid() + _LEAST).squeeze(1)

    def _normalised(self, values: Tensor) -> Tensor:
        norm = self.norm
        # Where ranks normalise together, all must take part, whatever each of them has.
        over_ranks = isinstance(norm, nn.SyncBatchNorm) or getattr(norm, "over_ranks", False)
        if values.numel() > 1 or over_ranks:
            return norm(values)
        # One value, or none, has no variance of its own: an image may yield a single box.
        return F.batch_norm(
            values, norm.running_mean, norm.running_var, norm.weight, norm.bias, False, 0, norm.eps
        )
