"""The operators on negative pairs themselves: accuracy, the fallback, threads, what they refuse."""

import pytest
import torch
from helpers.atss_cases import COMPILED
from helpers.negatives_cases import CLOSE, DTYPES

from negvision.ops import fallback

needs_extension = pytest.mark.skipif(not COMPILED, reason="the extension is not built")
E, Y = torch.eye(3), torch.arange(3)


@needs_extension
def test_accuracy_of_the_exponential_in_float32():
    x = torch.linspace(-87, 0, 1_000_003, dtype=torch.float64).float()[None]
    got, one = x.clone(), torch.ones(1)
    columns = torch.ones(x.shape[1]).int()
    torch.ops.negvision.negatives_softmax_(
        got, one.int() * 0, columns, -1, None, 1.0, one * 0, one
    )  # fmt: skip
    want = x.double().exp()
    assert ((got.double() - want).abs() / want).max() < 2e-7
    beyond = torch.tensor([[-87.5, -100.0, -1e30, -torch.inf]])
    torch.ops.negvision.negatives_softmax_(
        beyond, one.int() * 0, columns[:4], -1, None, 1.0, one * 0, one
    )  # fmt: skip
    assert not beyond.any()


def operator_calls(dtype: torch.dtype, rows: int = 6, columns: int = 40):
    """The operators with arguments that leave something out in every way."""
    ops, g = torch.ops.negvision, torch.Generator().manual_seed(2)
    tile = torch.rand(rows, columns, generator=g, dtype=dtype) * 2 - 1
    labels = [torch.randint(5, (n,), generator=g).int() for n in (rows, columns)]
    bounds = torch.tensor([-0.7, 0.8], dtype=dtype)
    each = torch.linspace(3, 4, rows, dtype=dtype)
    prefixes = torch.tensor([0, 0x3F])
    yield ops.negatives_logsumexp.default, (tile, *labels, -2, bounds, 3.0)
    yield ops.negatives_softmax_.default, (tile, *labels, 1, bounds, 3.0, each, each)
    yield ops.negatives_histogram.default, (tile, *labels, 0, prefixes, 16)


@needs_extension
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("which", range(3))
def test_opcheck(which, dtype):
    operator, arguments = list(operator_calls(dtype))[which]
    torch.library.opcheck(operator, arguments)


@needs_extension
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(6, 40), (3, 1), (70, 1100), (4, 0), (0, 4)])
def test_the_fallback_is_the_same_operator(shape, dtype):
    for operator, (tile, *arguments) in operator_calls(dtype, *shape):
        plain = getattr(fallback, operator.name().split("::")[1])
        got, want = tile.clone(), tile.clone()
        results = [operator(got, *arguments), plain(want, *arguments), got, want]
        for a, b in ((results[0], results[1]), (got, want)):
            torch.testing.assert_close(a, b, **CLOSE[dtype])


@needs_extension
@pytest.mark.parametrize("dtype", DTYPES)
def test_any_number_of_threads_gives_the_same_bits(dtype):
    threads, runs = torch.get_num_threads(), []
    try:
        for number in (1, 2, 4):
            torch.set_num_threads(number)
            run = []
            for operator, (tile, *arguments) in operator_calls(dtype, 300, 1111):
                result = operator(tile, *arguments)
                run += [tile, *(result if isinstance(result, tuple) else [result])]
            runs.append([x for x in run if x is not None])
    finally:
        torch.set_num_threads(threads)
    for run in runs[1:]:
        assert len(run) > 4 and all(torch.equal(a, b) for a, b in zip(run, runs[0], strict=True))


@needs_extension
@pytest.mark.parametrize(
    "name,arguments,message",
    [
        ("logsumexp", (E.T[:, :2], Y.int(), Y[:2].int(), 0, None, 1.0), "contiguous matrix"),
        ("logsumexp", (E.half(), Y.int(), Y.int(), 0, None, 1.0), "float32 or float64"),
        ("logsumexp", (E, Y, Y.int(), 0, None, 1.0), "row_labels must be 3 int32"),
        ("logsumexp", (E, Y.int(), Y[:2].int(), 0, None, 1.0), "column_labels must be 3 .* got 2"),
        ("logsumexp", (E, Y.int(), Y.int(), 0, E[0], 1.0), "bounds must be two numbers"),
        ("softmax_", (E, Y.int(), Y.int(), 0, None, 1.0, E[0, :2], E[0]), "logsumexp must be 3"),
        ("softmax_", (E, Y.int(), Y.int(), 0, None, 1.0, E[0], E[0].double()), "grad must be 3"),
        ("histogram", (E, Y.int(), Y.int(), 0, Y, 32), "shift must be a multiple of 8 below 32"),
        ("histogram", (E, Y.int(), Y.int(), 0, Y, 4), "multiple of 8 below 32, got 4"),
        ("histogram", (E, Y.int(), Y.int(), 0, Y.int(), 8), "prefixes must be int64"),
    ],
)
def test_operators_reject_invalid_arguments(name, arguments, message):
    with pytest.raises(RuntimeError, match=message):
        getattr(torch.ops.negvision, f"negatives_{name}")(*arguments)
