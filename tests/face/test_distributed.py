"""Several gloo processes compute the same loss and save full checkpoints."""

from pathlib import Path

import pytest
import torch
from helpers.gloo import run_on_ranks
from helpers.ranks_of_loss import check_all
from helpers.ranks_of_training import CLASSES, SIZE, resume, train_and_resume

from negvision.engine.checkpoints.loading import load_checkpoint_file
from negvision.errors import CheckpointError

ALWAYS_HELD = {"weight", "averaged", "linear"}
OF_CHECKPOINT = {"sgd": {"momentum_buffer"}, "adamw": {"exp_avg", "exp_avg_sq"}}


@pytest.mark.parametrize("world_size", [2, 3])
def test_ranks_equal_one_process(world_size, tmp_path):
    run_on_ranks(check_all, world_size, tmp_path)


def joined(folder: Path, world_size: int, when: str) -> dict:
    """What the ranks held, joined."""
    ranks = [torch.load(folder / f"rank_{r}_of_{world_size}.pt")[when] for r in range(world_size)]
    names = set(ranks[0]) - {"linear"}
    assert all(torch.equal(rank["linear"], ranks[0]["linear"]) for rank in ranks)
    together = {name: torch.cat([rank[name] for rank in ranks]) for name in names}
    return {**together, "linear": ranks[0]["linear"]}


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """Three steps at 3 ranks, and a fourth after resuming at 3 and at 2."""
    folder = tmp_path_factory.mktemp("ranks")
    run_on_ranks(train_and_resume, 3, folder, folder, True)
    run_on_ranks(train_and_resume, 2, folder, folder, False)
    return folder


@pytest.mark.parametrize("optimizer", OF_CHECKPOINT)
def test_checkpoint_holds_all_centers(trained, optimizer):
    folder = trained / f"trained_{optimizer}"
    held = joined(folder, 3, "end")
    saved = load_checkpoint_file(folder / "iter_3.pth")
    # mmengine saves the averaged weights as the model's, and the model's own as the average.
    assert torch.equal(saved["ema_state_dict"]["module.head.weight"], held["weight"])
    assert torch.equal(saved["state_dict"]["head.weight"], held["averaged"])
    assert held["weight"].shape == (CLASSES, SIZE)
    assert not torch.equal(held["weight"], held["averaged"])
    assert [name for name in saved["state_dict"] if "[" in name] == []
    states = saved["optimizer"]["state"].values()
    for name in OF_CHECKPOINT[optimizer]:
        assert any(torch.equal(state[name], held[name]) for state in states), name


@pytest.mark.parametrize("optimizer", OF_CHECKPOINT)
@pytest.mark.parametrize("world_size", [3, 2])
def test_resumes_bit_for_bit(trained, optimizer, world_size):
    before = joined(trained / f"trained_{optimizer}", 3, "end")
    after = joined(trained / f"resumed_{optimizer}_{world_size}", world_size, "start")
    assert before.keys() == after.keys() == {*OF_CHECKPOINT[optimizer], *ALWAYS_HELD}
    for name in before:
        assert torch.equal(before[name], after[name]), name


@pytest.mark.parametrize("sharded", [True, False])
@pytest.mark.parametrize("optimizer", OF_CHECKPOINT)
def test_resumes_in_one_process(trained, optimizer, sharded, tmp_path):
    folder = trained / f"trained_{optimizer}"
    held = resume(folder, tmp_path / "one", optimizer=optimizer, sharded=sharded)
    before = joined(folder, 3, "end")
    assert before.keys() == held["start"].keys()
    for name in before:
        assert torch.equal(before[name], held["start"][name]), name
    for world_size in (2, 3):
        elsewhere = joined(trained / f"resumed_{optimizer}_{world_size}", world_size, "end")
        for name in before:
            torch.testing.assert_close(held["end"][name], elsewhere[name], rtol=0, atol=1e-6)
            assert not torch.equal(held["end"][name], before[name])  # a step was made


def test_another_number_of_classes(trained, tmp_path):
    folder = trained / "trained_sgd"
    with pytest.raises(CheckpointError, match=r"head\.weight \(11, 6\), in the model \(12, 6\)"):
        resume(folder, tmp_path / "resumed", classes=12, custom_hooks=[])
