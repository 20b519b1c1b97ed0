"""Weights with their channels last under DistributedDataParallel."""

from helpers import layout_on_ranks as ranks
from helpers.gloo import run_on_ranks


def test_ranks_train_like_one_process(tmp_path):
    run_on_ranks(
        ranks.check_training, 2, tmp_path, tmp_path / "two", ranks.trained(tmp_path / "one")
    )


def test_hook_that_comes_late_changes_nothing(tmp_path):
    run_on_ranks(ranks.check_too_late, 2, tmp_path, tmp_path)
