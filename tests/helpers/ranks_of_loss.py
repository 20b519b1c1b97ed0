"""Run by every rank: compares the loss of several ranks with that of one process."""

import contextlib

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from negvision.engine.parallel.sharded import clip_grad_norm, find_row_shards, keep_shards_from_ddp
from negvision.face.losses import UNPGLoss

CLASSES, SIZE, COUNTS = 31, 12, (5, 7, 2)
LABELS_OF_CASES = {
    "any": lambda generator, count: torch.randint(CLASSES, (count,), generator=generator),
    # No class of the batch is in the last rank's shard.
    "low": lambda generator, count: torch.randint(8, (count,), generator=generator),
    "one": lambda generator, count: torch.zeros(count).long(),
}
CASES = [
    {"margin": "ArcFaceMargin"},
    {"margin": "ArcFaceMargin", "whisker": None, "labels": "low"},
    {"margin": "ArcFaceMargin", "whisker": 0.0},
    {"margin": "CosFaceMargin", "metric_pairs": False},
    {"margin": "MagFaceMargin"},
    {"margin": "AdaFaceMargin"},
    {"margin": "NoMargin", "labels": "one"},
    {"margin": "AdaFaceMargin", "num_classes": 2, "labels": "one"},  # the last of three has none
    {"margin": "MagFaceMargin", "num_classes": 1, "labels": "one"},
    {"margin": "ArcFaceMargin", "counts": (6, 0, 3)},  # a rank without samples
    {"margin": "ArcFaceMargin", "counts": (300, 290, 7)},  # strips of pairs for several ranks
]


class Model(nn.Module):
    def __init__(self, head):
        super().__init__()
        self.linear = nn.Linear(SIZE, SIZE)
        self.head = head

    def forward(self, inputs, labels):
        return self.head(self.linear(inputs), labels)


def build(alone, **kwargs):
    """A model with the same weights on all ranks; ``alone``: as in a single process."""
    arguments = {"num_classes": CLASSES, **kwargs}
    with single_process() if alone else contextlib.nullcontext():
        model = Model(UNPGLoss(embedding_size=SIZE, **arguments)).double()
    generator = torch.Generator().manual_seed(2)
    centers = torch.randn(arguments["num_classes"], SIZE, generator=generator).double()
    model.head.load_state_dict({"weight": centers}, strict=False)
    for parameter in model.linear.parameters():
        parameter.data.copy_(torch.randn(parameter.shape, generator=generator) * 3)
    return model


@contextlib.contextmanager
def single_process():
    """Within it, the loss sees only one rank."""
    before, dist.is_initialized = dist.is_initialized, lambda: False
    yield
    dist.is_initialized = before


def check(sharded, margin, labels="any", counts=COUNTS, dtype=torch.float64, **kwargs):
    rank, world_size = dist.get_rank(), dist.get_world_size()
    tolerance = 1e-10 if dtype == torch.float64 else 1e-6
    counts = counts[:world_size]
    generator = torch.Generator().manual_seed(1)
    inputs = torch.randn(sum(counts), SIZE, generator=generator).double()
    labels = LABELS_OF_CASES[labels](generator, sum(counts))
    own = slice(sum(counts[:rank]), sum(counts[: rank + 1]))
    # A scale at which a float32 loss is near 1, for an absolute tolerance of 1e-6.
    kwargs = {**kwargs, "margin": {"type": margin}, "scale": 64.0 if dtype.itemsize == 8 else 4.0}

    expected_model = build(True, **kwargs).to(dtype)
    with single_process():
        expected = expected_model(inputs.to(dtype), labels)
        expected.backward()

    model = build(False, sharded=sharded, **kwargs).to(dtype)
    keep_shards_from_ddp(model)
    wrapped = DistributedDataParallel(model)
    value = wrapped(inputs[own].to(dtype), labels[own])
    value.backward()

    where = f"{margin} {kwargs} sharded={sharded} rank {rank} of {world_size}"
    assert abs(value - expected) <= tolerance, (where, value.item(), expected.item())
    share = model.head.shard if sharded else range(model.head.num_classes)
    rows = slice(share.start, share.stop)
    wanted = {name: p.grad for name, p in expected_model.named_parameters()}
    wanted["head.weight"] = wanted["head.weight"][rows]
    for name, parameter in model.named_parameters():
        assert parameter.grad.shape == wanted[name].shape, where
        difference = (parameter.grad - wanted[name]).abs().sum(-1)
        assert (difference <= tolerance).all(), (where, name, difference.max().item())
    for name, buffer in model.named_buffers():
        expected_buffer = expected_model.get_buffer(name)
        assert (buffer - expected_buffer).abs() <= tolerance, (where, name)
        assert buffer not in (20.0, 100.0), (where, name)

    # Clipping by norm: one norm, that of one process, on all ranks.
    for order in (2.0, 1.0, float("inf")):
        want = nn.utils.clip_grad_norm_(expected_model.parameters(), 0.1, order)
        shards = {shard.parameter for shard in find_row_shards(model)}
        got = clip_grad_norm(shards, list(model.parameters()), 0.1, order)
        assert abs(got - want) <= 1e-6 * want, (where, order, got, want)
        got = model.head.weight.grad
        torch.testing.assert_close(got, expected_model.head.weight.grad[rows], rtol=1e-5, atol=1e-7)


def check_sample():
    """Samples of the centers contain the batch's classes and have the right size on each rank."""
    rank, world_size = dist.get_rank(), dist.get_world_size()
    torch.manual_seed(rank)
    loss = UNPGLoss(90, SIZE, sharded=True, sample_rate=0.4)
    loss.weight.data.normal_()
    labels = torch.tensor([rank * 7, 89 - rank, 30])
    value = loss(torch.randn(3, SIZE), labels)
    value.backward()
    values = [torch.zeros(()) for _ in range(world_size)]
    dist.all_gather(values, value.detach())
    assert all(other == value for other in values), values
    moved = loss.weight.grad.abs().sum(1) > 0
    assert moved.sum() == int(0.4 * len(loss.shard)), moved.sum()
    everyone = [r * 7 for r in range(world_size)] + [89 - r for r in range(world_size)] + [30]
    for label in everyone:
        if label in loss.shard:
            assert moved[label - loss.shard.start], label
    # More ranks than classes: some shard is empty.
    empty = UNPGLoss(1, SIZE, sharded=True, sample_rate=0.4)
    assert empty(torch.randn(2, SIZE), torch.zeros(2).long()).isfinite()


def check_start():
    """Centers start the same at any world size, even if ranks have different seeds."""
    torch.manual_seed(5 if dist.get_rank() == 0 else 77)
    sharded = UNPGLoss(2500, 3, sharded=True)
    with single_process():
        torch.manual_seed(5)
        whole = UNPGLoss(2500, 3)
    rows = slice(sharded.shard.start, sharded.shard.stop)
    assert torch.equal(sharded.weight, whole.weight[rows])
    name = f"weight[{rows.start}:{rows.stop}]"
    assert list(sharded.state_dict()) == [name], list(sharded.state_dict())
    state = {name: torch.ones_like(sharded.weight)}
    sharded.load_state_dict(state)
    assert (sharded.weight == 1).all()


def check_all():
    for case in CASES:
        for sharded in (False, True):
            check(sharded, **case)
    check(True, "ArcFaceMargin", dtype=torch.float32)
    check(False, "MagFaceMargin", dtype=torch.float32)
    check_sample()
    check_start()
