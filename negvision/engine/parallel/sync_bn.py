"""Batch normalization over the batches of all ranks that also runs on a CPU, unlike torch's."""

import torch
import torch.distributed as dist
from mmengine.dist import get_world_size
from mmengine.model import convert_sync_batchnorm
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm

KINDS = ("torch", "mmcv")


class SyncBatchNorm(_BatchNorm):
    """``BatchNorm1d`` ... ``3d`` with statistics of the joined batch of all ranks.

    Ranks may have batches of different sizes, also empty ones. Outputs, input gradients and running
    statistics are those of one process with the joined batch; gradients of weight and bias are
    this rank's part, which DistributedDataParallel sums. In evaluation and with one process it is
    the plain layer. Statistics are float32, or float64 for float64 input.

    Every rank must run the layer equally often, or all wait. A single value on all ranks together
    has no variance and is normalized as in evaluation.

    Example:
        >>> layer = SyncBatchNorm(4)
        >>> layer(torch.randn(2, 4, 3, 3)).shape
        torch.Size([2, 4, 3, 3])
    """

    @property
    def over_ranks(self) -> bool:
        """Whether there are other ranks; :mod:`negvision.ood.abet` reads it too."""
        return get_world_size() > 1

    def _check_input_dim(self, input: Tensor) -> None:
        if input.dim() < 2:
            raise ValueError(f"expected at least 2D input, got {input.dim()}D")

    def forward(self, input: Tensor) -> Tensor:
        """Normalize (N, C, ...); the shape stays."""
        if not self.training or not self.over_ranks:
            return super().forward(input)
        self._check_input_dim(input)
        statistics = _joined_statistics(input.detach())
        if statistics[2] <= 1:
            return self._as_in_evaluation(input)
        if self.track_running_stats:
            self._follow(*statistics)
        return _Normalize.apply(input, self.weight, self.bias, *statistics, self.eps)

    def _as_in_evaluation(self, input: Tensor) -> Tensor:
        if not self.track_running_stats:
            raise ValueError(
                "batch normalization without running statistics needs more than one value per "
                f"channel over all ranks, got input of {tuple(input.shape)} on this rank"
            )
        return functional.batch_norm(
            input, self.running_mean, self.running_var, self.weight, self.bias, False, 0.0, self.eps
        )

    @torch.no_grad()
    def _follow(self, mean: Tensor, var: Tensor, count: Tensor) -> None:
        batches, running_mean = self.num_batches_tracked, self.running_mean
        running_var = self.running_var
        assert batches is not None and running_mean is not None and running_var is not None
        batches.add_(1)
        # momentum=None: the mean of all batches so far.
        share = 1 / float(batches) if self.momentum is None else self.momentum
        unbiased = var * (count / (count - 1))
        running_mean.lerp_(mean.to(running_mean), share)
        running_var.lerp_(unbiased.to(running_var), share)


def _channels(values: Tensor, like: Tensor) -> Tensor:
    """(C,) to a shape that broadcasts with (N, C, ...)."""
    return values.view(1, -1, *[1] * (like.dim() - 2))


def _all_but_channels(x: Tensor) -> list[int]:
    return [dim for dim in range(x.dim()) if dim != 1]


@torch.no_grad()
def _joined_statistics(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Mean and biased variance (C,) of (N, C, ...) over all ranks, and the count of values."""
    wide = x if x.dtype == torch.float64 else x.float()
    if x.numel():
        var, mean = torch.var_mean(wide, _all_but_channels(x), correction=0)
    else:
        var = mean = wide.new_zeros(x.shape[1])
    count = x.numel() // x.shape[1]
    # float64 also counts beyond 2**24. The order of the sum is the same on all ranks.
    own = torch.cat([mean.double(), var.double(), mean.new_full((1,), count, dtype=torch.float64)])
    gathered = [torch.empty_like(own) for _ in range(dist.get_world_size())]
    dist.all_gather(gathered, own)
    means, variances, counts = torch.stack(gathered).split([x.shape[1], x.shape[1], 1], dim=1)
    total = counts.sum().clamp(min=1)
    mean = (means * counts).sum(0) / total
    var = ((variances + (means - mean) ** 2) * counts).sum(0) / total
    return mean.to(wide.dtype), var.to(wide.dtype), total


class _Normalize(torch.autograd.Function):
    """``(x - mean) / sqrt(var + eps) * weight + bias`` with mean and var of the joined batch."""

    @staticmethod
    def forward(ctx, x, weight, bias, mean, var, count, eps):
        ctx.save_for_backward(x, weight, mean, torch.rsqrt(var + eps), count)
        # With statistics given, torch's kernel is a single pass over the input.
        return functional.batch_norm(
            x.to(mean.dtype),
            mean,
            var,
            None if weight is None else weight.to(mean.dtype),
            None if bias is None else bias.to(mean.dtype),
            False,
            0.0,
            eps,
        ).to(x.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        x, weight, mean, scale, count = ctx.saved_tensors
        dims = _all_but_channels(x)
        wide = grad.to(mean.dtype)
        centered = x.to(mean.dtype) - _channels(mean, x)
        of_bias = wide.sum(dims)
        of_weight = (wide * centered).sum(dims) * scale
        sums = torch.stack([of_bias, of_weight])
        # Also without a gradient of the input: all ranks must take part.
        dist.all_reduce(sums)
        grad_x = None
        if ctx.needs_input_grad[0]:
            sums = sums / count.to(sums.dtype)
            factor = scale if weight is None else scale * weight.to(scale.dtype)
            grad_x = wide - _channels(sums[0], x) - centered * _channels(sums[1] * scale, x)
            grad_x = (grad_x * _channels(factor, x)).to(x.dtype)
        grad_weight = grad_bias = None
        if weight is not None:
            grad_weight, grad_bias = of_weight.to(weight.dtype), of_bias.to(weight.dtype)
        return grad_x, grad_weight, grad_bias, None, None, None, None


def synchronize_batch_norm(model: nn.Module, kind: str | None, device: str) -> nn.Module:
    """Make batch normalization layers of ``model`` use the batches of all ranks.

    Args:
        model: Changed in place; replaced if it is such a layer itself.
        kind: The config's ``sync_bn``, one of :data:`KINDS`. None: only layers that their own
            config synchronizes (``norm_cfg=dict(type="SyncBN")``).
        device: ``"cpu"``: layers become :class:`SyncBatchNorm`, for both kinds. Otherwise they
            become the layers of torch or of mmcv.

    Returns:
        The model. Parameters and buffers are the same objects.
    """
    if device != "cpu":
        return model if kind is None else convert_sync_batchnorm(model, kind)
    if isinstance(model, SyncBatchNorm):
        return model
    if isinstance(model, nn.SyncBatchNorm) or (kind and isinstance(model, _BatchNorm)):
        return _converted(model)
    for name, child in model.named_children():
        setattr(model, name, synchronize_batch_norm(child, kind, device))
    return model


def _converted(layer: _BatchNorm) -> SyncBatchNorm:
    new = SyncBatchNorm(
        layer.num_features, layer.eps, layer.momentum, layer.affine, layer.track_running_stats
    )
    new.train(layer.training)
    for name, parameter in layer.named_parameters(recurse=False):
        setattr(new, name, parameter)
    for name, buffer in layer.named_buffers(recurse=False):
        setattr(new, name, buffer)
    return new
