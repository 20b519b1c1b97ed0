"""The operators on negative pairs themselves: accuracy, the fallback, threads, what they refuse."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from helpers.atss_cases import COMPILED
from helpers.negatives_cases import CLOSE, DTYPES, units

from negvision.ops import class_logsumexp, fallback

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


def class_calls(dtype: torch.dtype, rows: int = 6, classes: int = 40, columns: int = 7):
    """The log-sums of classes in tiles, the last of which is narrower, and their gradients."""
    g = torch.Generator().manual_seed(3)
    embeddings = units(3, rows, dtype=dtype)
    centers = torch.randn(classes, 8, generator=g, dtype=dtype) * 3
    labels = torch.randint(classes, (rows,), generator=g).int()
    shared = (embeddings, centers, labels, torch.arange(classes).int(), 16.0, columns)
    logsumexp = torch.ops.negvision.class_logsumexp(*shared)
    grad = torch.linspace(-1, 2, rows, dtype=dtype)
    yield torch.ops.negvision.class_logsumexp.default, shared
    for with_centers in (True, False):
        backward = torch.ops.negvision.class_logsumexp_backward.default
        yield backward, (*shared, logsumexp, grad, with_centers)


@needs_extension
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("calls", [operator_calls, class_calls])
@pytest.mark.parametrize("which", range(3))
def test_opcheck(which, calls, dtype):
    operator, arguments = list(calls(dtype))[which]
    torch.library.opcheck(operator, arguments)


@needs_extension
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", [(6, 40, 7), (33, 500, 11), (5, 40, 40), (3, 2, 1)])
def test_classes_in_one_call_equal_tile_by_tile(size, dtype, monkeypatch):
    (_, (e, w, labels, ids, scale, columns)), *_ = class_calls(dtype, *size)
    e.requires_grad_(), w.requires_grad_()
    runs = []
    for in_one_call in (True, False):
        if not in_one_call:
            monkeypatch.setattr("negvision.ops.negatives._in_one_call", lambda *_: False)
        value = class_logsumexp(e, w, labels, scale, ids, tile=columns * len(e))
        runs.append([value, *torch.autograd.grad(value.sum(), (e, w))])
    for got, want in zip(*runs, strict=True):
        torch.testing.assert_close(got, want, **CLOSE[dtype])


@needs_extension
@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="threads are counted in /proc")
def test_a_fork_starts_threads_of_its_own():
    subprocess.run([sys.executable, "-c", FORK], check=True, timeout=300)


FORK = """
import os, signal, sys, torch
from negvision.ops import extension_info
extension_info()
a, b = torch.rand(2_000_000, 4), torch.rand(2_000_000, 4)
torch.set_num_threads(2)
want = torch.ops.negvision.aligned_box_iou(a, b, 0, 1e-6)
if child := os.fork():
    sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
signal.alarm(60)  # ends a wait for threads that a fork does not have
got = torch.ops.negvision.aligned_box_iou(a, b, 0, 1e-6)
threads = len(os.listdir("/proc/self/task"))
torch.set_num_threads(1)  # torch's own are no better off
os._exit(not (threads == 2 and torch.equal(got, want)))
"""


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
            calls = [*operator_calls(dtype, 300, 1111), *class_calls(dtype, 300, 1111, 100)]
            for operator, (tile, *arguments) in calls:
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


@needs_extension
@pytest.mark.parametrize(
    "changed,message",
    [
        ({0: E[0]}, "must both be float32 or float64"),
        ({1: E[:, :2]}, r"embeddings \(N, D\) and centers \(C, D\)"),
        ({1: E.double()}, "must both be float32"),
        ({2: Y}, "must be int32, one for each row and center"),
        ({3: Y[:2].int()}, "must be int32, one for each"),
        ({5: 0}, "columns must be at least 1, got 0"),
        ({6: E[0, :2]}, "must have a number for each embedding"),
        ({7: E[0].double()}, "must have a number for each embedding"),
    ],
)
def test_log_sums_of_classes_reject_invalid_arguments(changed, message):
    arguments = dict(enumerate((E, E, Y.int(), Y.int(), 1.0, 2, E[0], E[0], True)))
    with pytest.raises(RuntimeError, match=message):
        torch.ops.negvision.class_logsumexp_backward(*(arguments | changed).values())
