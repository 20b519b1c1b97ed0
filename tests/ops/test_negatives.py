"""Log-sums over negative pairs against loops and sorted lists; gradients, shares and edges."""

import math
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from helpers.negatives_cases import CLOSE, DTYPES, units
from torch.nn.functional import normalize

from negvision.ops import class_logsumexp, pair_logsumexp

NAN, INF = float("nan"), float("inf")


def log_sum(values: list, like: torch.Tensor) -> torch.Tensor:
    return torch.stack(values).logsumexp(0) if values else like.new_tensor(-INF)


def class_oracle(embeddings, centers, labels, scale, class_ids=None) -> torch.Tensor:
    """One pair at a time, in float64."""
    embeddings, centers = embeddings.double(), normalize(centers.double())
    class_ids = range(len(centers)) if class_ids is None else class_ids.tolist()
    rows = [
        log_sum([scale * (e @ w) for w, j in zip(centers, class_ids, strict=True) if j != label], e)
        for e, label in zip(embeddings, labels.tolist(), strict=True)
    ]
    return torch.stack(rows)


def pair_oracle(embeddings, labels, scale, whisker):
    """The value, the bounds, and the numbers of kept and of all pairs, from a sorted list."""
    labels = labels.tolist()
    pairs = [
        embeddings[i] @ embeddings[j]
        for i in range(len(labels))
        for j in range(i + 1, len(labels))
        if labels[i] != labels[j]
    ]
    low, high = -INF, INF
    if whisker is not None and pairs:
        v = sorted(p.item() for p in pairs)
        q1, q3 = v[len(v) // 4], v[3 * len(v) // 4]
        low, high = q1 - whisker * (q3 - q1), q3 + whisker * (q3 - q1)
    kept = [scale * p for p in pairs if low <= p.item() <= high]
    return log_sum(kept, embeddings), (low, high), len(kept), len(pairs)


def pairs_with_similarities(values, dtype) -> tuple[torch.Tensor, torch.Tensor]:
    """Embeddings and labels whose negative pairs have just these similarities, to the bit."""
    embeddings = torch.tensor([1.0, *values], dtype=dtype)[:, None]
    return embeddings, torch.tensor([0, *[1] * len(values)])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("tile", [1, 7, 40, None])
def test_classes(path, dtype, tile):
    e = units(0, 9, dtype=dtype).requires_grad_()
    w = (units(1, 23, dtype=dtype) * torch.linspace(0.01, 9, 23, dtype=dtype)[:, None]).detach()
    w[3] = 0
    w.requires_grad_()
    labels = torch.tensor([0, 3, 3, 22, 5, -1, 23, 1000, 7])
    got = class_logsumexp(e, w, labels, 16.0, tile=tile)
    want = class_oracle(e, w, labels, 16.0)
    assert got.dtype == dtype
    torch.testing.assert_close(got, want.to(dtype), **CLOSE[dtype])
    of_rows = torch.linspace(-1, 2, 9)
    got = torch.autograd.grad((got * of_rows).sum(), (e, w))
    want = torch.autograd.grad((want * of_rows).sum(), (e, w))
    for x, y in zip(got, want, strict=True):
        assert x.isfinite().all() and x.any()
        torch.testing.assert_close(x, y, rtol=1e-4 if dtype == torch.float32 else 1e-9, atol=1e-5)


def test_classes_that_are_a_sample_of_all(path):
    e, w = units(2, 6), units(3, 5)
    ids, labels = torch.tensor([4, 90, 17, 4, 1 << 30]), torch.tensor([4, 90, 0, 1 << 30, 17, 2])
    got = class_logsumexp(e, w, labels, 8.0, class_ids=ids, tile=12)
    torch.testing.assert_close(got, class_oracle(e, w, labels, 8.0, ids))


@pytest.mark.parametrize("dtype", DTYPES)
def test_no_class_is_left(path, dtype):
    e = units(4, 3, dtype=dtype).requires_grad_()
    none = torch.zeros(0, 8, dtype=dtype, requires_grad=True)
    w = units(5, 1, dtype=dtype).requires_grad_()
    assert (class_logsumexp(e, none, torch.arange(3), 9.0) == -INF).all()
    got = class_logsumexp(e, w, torch.zeros(3).long(), 9.0)
    assert (got == -INF).all()
    grads = torch.autograd.grad(torch.logaddexp(got, torch.zeros_like(got)).sum(), (e, w))
    assert not any(g.any() for g in grads)
    assert class_logsumexp(e[:0], w, torch.zeros(0).long(), 9.0).shape == (0,)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("whisker", [0.0, 1.0, 1.5, None])
@pytest.mark.parametrize("count,classes", [(40, 40), (40, 3), (23, 7), (5, 1), (1, 1), (0, 1)])
def test_pairs(path, dtype, whisker, count, classes):
    e = units(6, count, dtype=dtype)
    labels = torch.arange(count) % classes * 1000
    e.requires_grad_()
    got = pair_logsumexp(e, labels, 16.0, whisker)
    want, bounds, kept, total = pair_oracle(e.double(), labels, 16.0, whisker)
    assert (got.kept, got.total) == (kept, total)
    assert got.kept.dtype == got.total.dtype == torch.int64
    torch.testing.assert_close(got.value, want.to(dtype), **CLOSE[dtype])
    if total:
        torch.testing.assert_close(got.bounds, torch.tensor(bounds, dtype=dtype), **CLOSE[dtype])
        (x,) = torch.autograd.grad(got.value, e)
        torch.testing.assert_close(x, torch.autograd.grad(want, e)[0], **CLOSE[dtype])
    else:
        assert got.value == -INF
        (x,) = torch.autograd.grad(torch.logaddexp(got.value, got.value.new_zeros(())), e)
        assert not x.any()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    "values",
    [
        [0.5], [0.5, -0.5], [3.0, 1.0, 2.0], [1.0, 2.0, 3.0, 4.0],
        [0.25] * 9, [0.0, -0.0] * 4, [-1.0, 1.0] * 5, [1e-30, -1e-30, 1e30, -1e30, 0.0],
        [0.5, 0.5 + 2**-24, 0.5 - 2**-25] * 7,
    ],
)  # fmt: skip
def test_quartiles_are_the_bits_of_sorted_values(path, values, dtype):
    e, labels = pairs_with_similarities(values, dtype)
    v = e[1:, 0].sort().values
    got = pair_logsumexp(e, labels, 1.0, whisker=0.0)
    assert torch.equal(got.bounds, torch.stack([v[len(v) // 4], v[3 * len(v) // 4]]))
    assert got.total == len(values)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("seed", range(5))
def test_quartiles_of_many(path, seed, dtype):
    g = torch.Generator().manual_seed(seed)
    values = torch.randn(200 + 51 * seed, generator=g, dtype=dtype)
    if seed % 2:
        values = (values * 4).round() / 4  # ties
    e, labels = pairs_with_similarities(values.tolist(), dtype)
    got, v = pair_logsumexp(e, labels, 1.0, whisker=0.0), values.sort().values
    q1, q3 = v[len(v) // 4], v[3 * len(v) // 4]
    assert torch.equal(got.bounds, torch.stack([q1, q3]))
    assert got.kept == ((values >= q1) & (values <= q3)).sum()


def test_values_on_a_bound_are_kept(path):
    inside = [2, 2, 3, 4, 6, 6]
    for ends, kept in (((-2, 10), 8), ((-2.001, 10), 7), ((-2, 10.001), 7)):
        values = [v / 16 for v in (*inside, *ends)]
        got = pair_logsumexp(*pairs_with_similarities(values, torch.float32), 1.0, whisker=1.0)
        assert got.bounds.tolist() == [-2 / 16, 10 / 16]
        assert got.kept == kept
        want = math.log(sum(math.exp(v) for v in values if -2 / 16 <= v <= 10 / 16))
        assert got.value.item() == pytest.approx(want, abs=1e-6)


@pytest.mark.parametrize("whisker", [0.0, 1.5])
def test_many_equal_similarities_drop_all_others(path, whisker):
    """Twelve identities on axes, of which three share one: 63 similarities are 0 and 3 are 1."""
    e = torch.eye(10)[[*range(10), 0, 0]].requires_grad_()
    got = pair_logsumexp(e, torch.arange(12), 64.0, whisker)
    assert (got.kept, got.total) == (63, 66)
    assert got.bounds.tolist() == [0, 0]
    assert got.value.item() == pytest.approx(math.log(63))
    everywhere = pair_logsumexp(e[:1].expand(6, -1), torch.arange(6), 64.0, whisker)
    assert everywhere.kept == everywhere.total == 15


def test_nan_reaches_the_result(path):
    e = units(7, 30, dtype=torch.float32)
    e[4] = NAN
    labels = torch.arange(30)
    assert pair_logsumexp(e, labels, 64.0).value.isnan()
    assert pair_logsumexp(e, labels, 64.0, None).value.isnan()
    of_class = class_logsumexp(e, units(8, 50, dtype=torch.float32), labels, 64.0)
    assert of_class.isnan().nonzero().tolist() == [[4]]
    centers = units(8, 50, dtype=torch.float32)
    centers[49] = NAN
    assert class_logsumexp(units(7, 30, dtype=torch.float32), centers, labels, 64.0).isnan().all()


def test_large_scales_do_not_overflow(path):
    e, w = units(9, 20, dtype=torch.float32).requires_grad_(), units(10, 300, dtype=torch.float32)
    labels = torch.arange(20)
    of_class, of_pairs = class_logsumexp(e, w, labels, 1000.0), pair_logsumexp(e, labels, 1000.0)
    torch.testing.assert_close(
        of_class.double(), class_oracle(e, w, labels, 1000.0), rtol=1e-6, atol=1e-3
    )
    for value in (of_class.sum(), of_pairs.value):
        assert value.isfinite()
        assert torch.autograd.grad(value, e)[0].isfinite().all()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("whisker", [1.0, None])
def test_held_and_recomputed_similarities_give_the_same_bits(path, dtype, whisker):
    e, labels = units(11, 600, 32, dtype).requires_grad_(), torch.arange(600) // 3
    results = [pair_logsumexp(e, labels, 64.0, whisker, hold=hold) for hold in (600**2, 0)]
    grads = [torch.autograd.grad(r.value, e)[0] for r in results]
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))
    assert torch.equal(*grads) and grads[0].any()


class Ranks:
    """Runs a function as several ranks, a thread for each; ``all_reduce`` sums over them."""

    def __init__(self, world_size: int):
        self.world_size = world_size
        self.barrier = threading.Barrier(world_size, timeout=60)
        self.brought = []

    def all_reduce(self, tensor: torch.Tensor) -> None:
        self.brought.append(tensor.clone())
        self.barrier.wait()
        total = sum(self.brought[1:], self.brought[0])
        self.barrier.wait()
        tensor.copy_(total)
        self.brought.clear()
        self.barrier.wait()

    def run(self, function) -> list:
        with ThreadPoolExecutor(self.world_size) as pool:
            return list(pool.map(function, range(self.world_size)))


@pytest.mark.parametrize("whisker", [0.0, 1.5, None])
@pytest.mark.parametrize("world_size,hold", [(2, 0), (3, 1 << 24), (5, 0)])
def test_shares_add_up(path, whisker, world_size, hold):
    """Three strips of rows, for two, three and five ranks."""
    e, labels = units(12, 600, 16).requires_grad_(), torch.arange(600) // 4
    whole, ranks = pair_logsumexp(e, labels, 64.0, whisker), Ranks(world_size)
    parts = ranks.run(
        lambda rank: pair_logsumexp(
            e, labels, 64.0, whisker, (rank, world_size), ranks.all_reduce, hold
        )
    )
    assert all(torch.equal(part.bounds, whole.bounds) for part in parts)
    assert all(part.total == whole.total for part in parts)
    assert sum(part.kept for part in parts) == whole.kept
    values = torch.stack([part.value for part in parts])
    assert (values == -INF).sum() == max(0, world_size - 3)
    torch.testing.assert_close(values.logsumexp(0), whole.value)
    got = torch.autograd.grad(values.logsumexp(0), e)[0]
    torch.testing.assert_close(got, torch.autograd.grad(whole.value, e)[0])


@pytest.mark.parametrize("whisker", [0.0, 1.0, None])
def test_gradcheck_of_pairs(path, whisker):
    x, labels = (
        torch.randn(9, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1)),
        (torch.arange(9) // 2),
    )
    assert torch.autograd.gradcheck(
        lambda x: pair_logsumexp(normalize(x), labels, 5.0, whisker, hold=0).value,
        x.requires_grad_(),
    )


def test_gradcheck_of_classes(path):
    x, w = units(13, 4) * 3, units(14, 7) * 2
    assert torch.autograd.gradcheck(
        lambda x, w: class_logsumexp(normalize(x), w, torch.tensor([0, 6, 6, -1]), 5.0, tile=8),
        (x.requires_grad_(), w.requires_grad_()),
    )


def test_autocast_does_not_lower_the_precision(path):
    e, w = units(17, 30, 16, torch.float32).requires_grad_(), units(18, 40, 16, torch.float32)
    labels = torch.arange(30)

    def both():
        value = class_logsumexp(e, w, labels, 64.0).sum() + pair_logsumexp(e, labels, 64.0).value
        return value, torch.autograd.grad(value, e)[0]

    want = both()
    with torch.autocast("cpu", torch.bfloat16):
        got = both()
    assert all(
        g.dtype == torch.float32 and torch.equal(g, w) for g, w in zip(got, want, strict=True)
    )


def test_accuracy_in_float32(path):
    """Over all cosines: what the roundings of the cosines alone amount to at a scale of 64."""
    cosine = torch.linspace(-1, 1, 4001, dtype=torch.float64)
    e = torch.tensor([[1.0, 0.0]])
    w = torch.stack([cosine, (1 - cosine**2).sqrt()], 1).float()
    for columns in (slice(0, 1000), slice(0, 4001), slice(1500, 2500), slice(3000, 3100)):
        got = class_logsumexp(e, w[columns], torch.tensor([-1]), 64.0).double()
        want = class_oracle(e, w[columns], torch.tensor([-1]), 64.0)
        assert ((got - want) / want).abs() < 1e-6


E, W, Y = torch.eye(3), torch.eye(3), torch.arange(3)


@pytest.mark.parametrize(
    "call,message",
    [
        (lambda: class_logsumexp(E[0], W, Y, 1.0), r"shape \(N, D\), got torch.float32 of \(3,\)"),
        (lambda: class_logsumexp(E.half(), W, Y, 1.0), "got torch.float16"),
        (lambda: class_logsumexp(E, W[:, :2], Y, 1.0), r"shape \(C, 3\), got \(3, 2\)"),
        (lambda: class_logsumexp(E, W, Y[:2], 1.0), r"shape \(3,\), got torch.int64 of \(2,\)"),
        (lambda: class_logsumexp(E, W, Y.float(), 1.0), "labels must be integers"),
        (lambda: class_logsumexp(E, W, Y, 1.0, Y[:2]), r"class_ids must have shape \(3,\)"),
        (lambda: class_logsumexp(E, W, Y, 0.0), "scale must be above 0, got 0.0"),
        (lambda: pair_logsumexp(E, Y, NAN), "scale must be above 0, got nan"),
        (lambda: pair_logsumexp(E, Y, 1.0, -0.5), "whisker must be at least 0 or None, got -0.5"),
        (lambda: pair_logsumexp(E, Y, 1.0, NAN), "got nan"),
        (lambda: pair_logsumexp(E.int(), Y, 1.0), "must be float32 or float64"),
    ],
)
def test_errors_name_what_was_expected(path, call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_second_derivatives_are_refused(path):
    e, w, labels = units(15, 4).requires_grad_(), units(16, 5), torch.arange(4)
    for value in (class_logsumexp(e, w, labels, 4.0).sum(), pair_logsumexp(e, labels, 4.0).value):
        (grad,) = torch.autograd.grad(value, e, create_graph=True)
        with pytest.raises(NotImplementedError, match="once, not twice"):
            grad.sum().backward()
