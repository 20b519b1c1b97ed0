import os
from pathlib import Path

import pytest
import torch

from negvision.engine.checkpoints.finding import find_damage, find_resume_checkpoint
from negvision.errors import CheckpointError


def save(path: Path, iteration: int, epoch: int = 0, **more) -> Path:
    content = {
        "meta": {"epoch": epoch, "iter": iteration},
        "state_dict": {"weight": torch.rand(2000)},
        "optimizer": {},
        **more,
    }
    torch.save(content, path)
    return path


def test_none_in_an_empty_or_missing_folder(tmp_path):
    assert find_resume_checkpoint(tmp_path) is None
    assert find_resume_checkpoint(tmp_path / "missing") is None


def test_most_training_wins_whatever_the_names_and_times(tmp_path):
    save(tmp_path / "epoch_10.pth", 100, epoch=10)
    later = save(tmp_path / "interrupted.pth", 105, epoch=10)
    save(tmp_path / "epoch_9.pth", 90, epoch=9)
    os.utime(later, (1, 1))
    assert find_resume_checkpoint(tmp_path) == later


def test_the_last_saved_wins_over_what_an_older_run_trained_beyond(tmp_path):
    def save_at(name, iteration, saved):
        path = save(tmp_path / name, iteration)
        content = torch.load(path)
        content["meta"]["saved"] = saved
        torch.save(content, path)
        return path

    save(tmp_path / "iter_40.pth", 40)  # without a time
    save_at("iter_30.pth", 30, 1000.0)
    last = save_at("iter_20.pth", 20, 2000.0)
    os.utime(last, (1, 1))
    assert find_resume_checkpoint(tmp_path) == last


def test_checkpoints_in_another_folder_are_found_by_the_marker(tmp_path):
    (tmp_path / "out").mkdir()
    elsewhere = save(tmp_path / "out" / "iter_5.pth", 5)
    (tmp_path / "last_checkpoint").write_text(str(elsewhere))
    assert find_resume_checkpoint(tmp_path) == elsewhere
    (tmp_path / "last_checkpoint").write_text("")  # killed while it was written
    assert find_resume_checkpoint(tmp_path) is None


def test_best_weights_are_not_resumed(tmp_path):
    torch.save({"meta": {"epoch": 9, "iter": 9}, "state_dict": {}}, tmp_path / "best_mAP.pth")
    older = save(tmp_path / "epoch_1.pth", 1, epoch=1)
    assert find_resume_checkpoint(tmp_path) == older


def damage(path: Path, how: str) -> None:
    data = bytearray(path.read_bytes())
    if how == "truncated":
        data = data[: len(data) // 2]
    elif how == "empty":
        data = b""
    elif how == "one bit":
        # Within the tensor: it loads without an error.
        data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("how", ["truncated", "empty", "one bit"])
def test_damaged_newest_checkpoint_is_skipped_and_named(tmp_path, how, capsys):
    whole = save(tmp_path / "iter_10.pth", 10)
    newest = save(tmp_path / "iter_20.pth", 20)
    assert find_damage(newest) is None
    damage(newest, how)
    assert find_damage(newest)
    assert find_resume_checkpoint(tmp_path) == whole
    assert f"skips {newest}" in capsys.readouterr().err


def test_only_damaged_checkpoints_are_an_error(tmp_path):
    for number in (1, 2):
        damage(save(tmp_path / f"iter_{number}.pth", number), "truncated")
    with pytest.raises(CheckpointError) as error:
        find_resume_checkpoint(tmp_path)
    assert "iter_1.pth" in str(error.value) and "iter_2.pth" in str(error.value)
