"""Finding the files of a run in its work dir."""

import os

import pytest

from negvision.errors import UserError
from negvision.report.run_report import Run, find_run


@pytest.fixture
def work_dir(tmp_path):
    folder = tmp_path / "runs" / "atss"
    folder.mkdir(parents=True)
    (folder / "atss.py").write_text("a = 1\n")
    for number, name in enumerate(("iter_2.pth", "iter_4.pth")):
        (folder / name).write_bytes(b"x")
        os.utime(folder / name, (number, number))
    return folder


def test_last_checkpoint_is_the_one_named_by_the_run(work_dir):
    assert find_run(work_dir).checkpoint == work_dir / "iter_4.pth"
    (work_dir / "last_checkpoint").write_text(str(work_dir / "iter_2.pth"))
    assert find_run(work_dir).checkpoint == work_dir / "iter_2.pth"


def test_moved_work_dir_uses_its_own_checkpoint(work_dir):
    old = work_dir.parent / "iter_2.pth"
    old.write_bytes(b"x")
    (work_dir / "last_checkpoint").write_text(str(old))
    # CheckpointHook may write elsewhere (out_dir).
    for expected in (work_dir / "iter_2.pth", old, work_dir / "iter_4.pth"):
        assert find_run(work_dir).checkpoint == expected
        expected.unlink()


def test_best_checkpoint_stands_for_a_work_dir(work_dir):
    (work_dir / "best_mAP_iter_2.pth").write_bytes(b"x")
    (work_dir / "last_checkpoint").write_text(str(work_dir / "iter_4.pth"))
    assert find_run(work_dir).checkpoint.name == "best_mAP_iter_2.pth"


def test_model_that_holds_its_config(work_dir):
    file = work_dir / "iter_2.pth"
    assert find_run(file) == Run(work_dir, file, file)
    (work_dir / "atss.py").unlink()
    assert find_run(work_dir).config.name == "iter_4.pth"
    for file in work_dir.glob("*.pth"):
        file.unlink()
    with pytest.raises(UserError, match="is not a work dir: it has no config"):
        find_run(work_dir)


def test_newest_config_and_a_given_checkpoint(work_dir):
    (work_dir / "old.py").write_text("")
    os.utime(work_dir / "old.py", (1, 1))
    run = find_run(work_dir, work_dir / "iter_2.pth")
    assert (run.config.name, run.checkpoint.name) == ("atss.py", "iter_2.pth")
    for config in work_dir.glob("*.py"):
        config.unlink()
    # The copy that the visualizer writes.
    kept = work_dir / "20260101_000000" / "vis_data" / "config.py"
    kept.parent.mkdir(parents=True)
    kept.write_text("a = 1\n")
    assert find_run(work_dir).config == kept
