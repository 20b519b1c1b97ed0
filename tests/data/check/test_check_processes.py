"""Processes that die, are slow or fail, compared with a plain loop."""

import multiprocessing
import os
import signal
import time

import pytest
import torch

from negvision.data.check.processes import call_in_processes


def square(number):
    return number * number


def nobody(number, how):
    raise AssertionError(f"{number} {how}")


@pytest.mark.parametrize("workers", [0, 1, 3])
@pytest.mark.parametrize("count", [0, 17, 200])
def test_results_equal_those_of_a_loop(count, workers):
    assert list(call_in_processes(square, count, workers, nobody)) == [n * n for n in range(count)]
    assert not multiprocessing.active_children()


def dying(number):
    if number in (5, 40, 41):
        os.kill(os.getpid(), signal.SIGKILL)
    if number == 99:
        os._exit(3)
    return square(number)


@pytest.mark.parametrize("workers", [1, 2])
def test_the_number_at_which_a_process_dies_is_found(workers):
    found = list(call_in_processes(dying, 100, workers, lambda number, how: f"{number}: {how}"))
    killed = f"killed by signal {int(signal.SIGKILL)} (SIGKILL)"
    expected = [n * n for n in range(100)]
    for number in (5, 40, 41):
        expected[number] = f"{number}: {killed}"
    expected[99] = "99: ended with exit status 3"
    assert found == expected


def test_an_error_of_the_function_is_raised():
    with pytest.raises(ZeroDivisionError):
        list(call_in_processes(lambda number: 1 // (number - 20), 40, 2, nobody))
    assert not multiprocessing.active_children()


def test_stopping_early_leaves_no_process():
    calls = call_in_processes(square, 10_000, 2, nobody)
    assert [next(calls) for _ in range(3)] == [0, 1, 4]
    calls.close()
    assert not multiprocessing.active_children()


def test_a_slow_call_bounds_the_work_ahead_of_it():
    seen = torch.zeros(2000, dtype=torch.uint8).share_memory_()

    def slow_at_first(number):
        seen[number] = 1
        time.sleep(0.5 if number == 0 else 0)
        return number

    calls = call_in_processes(slow_at_first, 2000, 2, nobody)
    next(calls)
    assert int(seen.nonzero().max()) < 16 * 4 * 2 + 2 * 16
    assert list(calls) == list(range(1, 2000))
