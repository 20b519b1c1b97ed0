"""Ranks stop and skip steps together; the checks are in helpers/interrupted_on_ranks.py."""

import pytest
from helpers import interrupted_on_ranks as ranks
from helpers.gloo import run_on_ranks


@pytest.mark.parametrize(
    "settings",
    [{"by_epoch": True}, {"by_epoch": False, "ema": True}],
    ids=["epochs", "iterations"],
)
def test_signal_to_one_rank_stops_all_and_resume_is_exact(tmp_path, settings):
    run_on_ranks(ranks.check_resume, 2, tmp_path, tmp_path, settings)


def test_nan_loss_on_one_rank_is_skipped_by_all(tmp_path):
    run_on_ranks(ranks.check_skip, 2, tmp_path, tmp_path)


def test_all_ranks_evaluate_with_statistics_of_the_first(tmp_path):
    run_on_ranks(ranks.check_evaluated_statistics, 2, tmp_path, tmp_path)


def test_pending_gradients_of_shards(tmp_path):
    run_on_ranks(ranks.check_gradients_of_shards, 2, tmp_path)
