"""Weights with their channels last under DistributedDataParallel."""

from helpers import layout_on_ranks as ranks
from helpers.gloo import run_on_ranks


def test_gradients_equal_one_process(tmp_path):
    expected = ranks.first_gradient(tmp_path / "one", ranks.BATCH)
    assert expected.abs().sum() > 0
    run_on_ranks(ranks.check_gradients, 2, tmp_path, tmp_path / "two", expected)


def test_late_hook_is_refused(tmp_path):
    run_on_ranks(ranks.check_too_late, 2, tmp_path, tmp_path)
