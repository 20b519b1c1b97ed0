"""Training options on two ranks; the checks are in helpers/training_on_ranks.py."""

import pytest
import torch
from helpers import training_on_ranks as ranks
from helpers.gloo import run_on_ranks


def test_sharded_training_equals_ddp(tmp_path):
    run_on_ranks(ranks.check_sharded, 2, tmp_path, tmp_path)


def test_synchronized_batch_norm_equals_one_process(tmp_path):
    for task in ("faces", "classification"):
        _, held = ranks.train(task, tmp_path / f"{task}_one", steps=2)
        torch.save(held.states, tmp_path / f"{task}_alone.pt")
    run_on_ranks(ranks.check_sync_bn, 2, tmp_path, tmp_path, tmp_path)


def test_accumulated_gradients(tmp_path):
    run_on_ranks(ranks.check_accumulated, 2, tmp_path, tmp_path)


def test_mixed_precision(tmp_path):
    run_on_ranks(ranks.check_mixed_precision, 2, tmp_path, tmp_path)


def test_refused_options_of_sharding(tmp_path):
    run_on_ranks(ranks.check_refused, 2, tmp_path, tmp_path)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Checkpoints of sharded trainings; check_resuming resumes them on two ranks."""
    folder = tmp_path_factory.mktemp("resumed")
    run_on_ranks(ranks.check_resuming, 2, folder, folder)
    return folder


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_one_process_resumes_a_sharded_run(saved, tmp_path, optimizer):
    file = saved / f"first_{optimizer}" / "iter_2.pth"
    state = torch.load(file, weights_only=False)
    options = ranks.ADAMW if optimizer == "adamw" else None
    config = ranks.resumed(file)
    runner, held = ranks.train("detection", tmp_path / "one", config=config, options=options)
    ranks.close(held.states[0], state["state_dict"], "resumed", 0)
    assert len(held.states) == 2 and runner.iter == 3


def test_ranks_evaluate_a_sharded_checkpoint(saved, tmp_path):
    file = saved / "first_sgd" / "iter_2.pth"
    run_on_ranks(ranks.check_evaluation, 2, tmp_path, tmp_path, file)
