"""Run by every rank: synchronized batch normalization equals one process with the joined batch."""

import copy

import torch
import torch.distributed as dist
from torch import nn

from negvision.engine.parallel.sync_bn import SyncBatchNorm, synchronize_batch_norm
from negvision.ood.abet import LearnedTemperature

COUNTS = (3, 5, 2)
CASES = [
    {"shape": (4, 6, 5)},
    {"shape": (4, 6, 5), "counts": (3, 0, 2)},  # a rank without samples
    {"shape": (4, 6, 5), "counts": (1, 1, 1)},
    {"shape": (4,), "layer": nn.BatchNorm1d},
    {"shape": (4, 7), "layer": nn.BatchNorm1d},
    {"shape": (2, 3, 4, 5), "layer": nn.BatchNorm3d},
    {"shape": (4, 6, 5), "momentum": None},
    {"shape": (4, 6, 5), "affine": False},
    {"shape": (4, 6, 5), "track_running_stats": False},
    {"shape": (4, 6, 5), "eps": 0.1, "offset": 1e4},
    {"shape": (4, 6, 5), "channels_last": True},
]


def own_part(values, counts):
    rank = dist.get_rank()
    return values[sum(counts[:rank]) : sum(counts[: rank + 1])]


def summed(values):
    values = values.clone()
    dist.all_reduce(values)
    return values


def check(
    shape, layer=nn.BatchNorm2d, counts=COUNTS, dtype=torch.float64, offset=3.0,
    channels_last=False, **options,
):  # fmt: skip
    counts = counts[: dist.get_world_size()]
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(sum(counts), *shape, generator=generator).to(dtype) * 2 + offset
    if channels_last:
        x = x.to(memory_format=torch.channels_last)
    weights = torch.randn(x.shape, generator=generator).to(dtype)
    one = layer(shape[0], **options).to(dtype)
    for parameter in one.parameters():
        nn.init.normal_(parameter, generator=generator)
    several = synchronize_batch_norm(copy.deepcopy(one), "torch", "cpu")
    assert type(several) is SyncBatchNorm
    where = (shape, layer.__name__, counts, options)
    for step in range(3):
        joined = (x + step).requires_grad_()
        own = own_part(x + step, counts).requires_grad_()
        expected = one(joined)
        output = several(own)
        for model in (one, several):
            model.zero_grad()
        # Not linear in the output: the gradient of a sum of outputs is zero.
        (expected**2 * weights).sum().backward()
        (output**2 * own_part(weights, counts)).sum().backward()
        close(output, own_part(expected, counts), where)
        close(own.grad, own_part(joined.grad, counts), where)
    for name, parameter in several.named_parameters():
        close(summed(parameter.grad), one.get_parameter(name).grad, (where, name))
    for name, buffer in several.named_buffers():
        close(buffer, one.get_buffer(name), (where, name))
    one.eval(), several.eval()
    if options.get("track_running_stats", True):
        close(several(own), own_part(one(joined), counts), where)


def close(got, wanted, where):
    tolerance = 1e-9 if got.dtype == torch.float64 else 2e-4
    torch.testing.assert_close(
        got, wanted, rtol=tolerance, atol=tolerance, msg=lambda text: f"{where}: {text}"
    )


def check_half():
    """bfloat16 is normalized in float32, as torch's own layer does under autocast."""
    x = torch.randn(sum(COUNTS), 4, 3, 3).bfloat16()
    dist.broadcast(x, 0)
    counts = COUNTS[: dist.get_world_size()]
    x = x[: sum(counts)]
    layer = SyncBatchNorm(4)
    output = layer(own_part(x, counts))
    assert output.dtype == torch.bfloat16 and layer.running_mean.dtype == torch.float32
    wanted = own_part(nn.BatchNorm2d(4)(x.float()), counts)
    torch.testing.assert_close(output.float(), wanted, rtol=1e-2, atol=1e-2)


def check_frozen():
    """With fixed statistics ranks do not wait for each other: only the first one runs this."""
    layer = SyncBatchNorm(4).eval()
    if dist.get_rank() == 0:
        layer(torch.randn(2, 4, requires_grad=True)).sum().backward()


def check_temperature():
    """A rank with one box, or none, takes part; a single value is normalized as in evaluation."""
    counts = (4, 1, 0)[: dist.get_world_size()]
    torch.manual_seed(0)
    one = LearnedTemperature(5).double()
    several = synchronize_batch_norm(copy.deepcopy(one), "torch", "cpu")
    x = torch.randn(sum(counts), 5, dtype=torch.float64)
    close(several(own_part(x, counts)), own_part(one(x), counts), "temperature")
    close(several.norm.running_var, one.norm.running_var, "temperature")
    own = torch.ones(1 if dist.get_rank() == 0 else 0, 5, dtype=torch.float64)
    several.norm.running_mean.fill_(0.3), one.norm.running_mean.fill_(0.3)
    close(several(own), one.eval()(own), "one value")


def check_all_sync_bn():
    for case in CASES:
        check(**case)
        check(**{**case, "offset": 3.0}, dtype=torch.float32)
    check_half()
    check_frozen()
    check_temperature()
