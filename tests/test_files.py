"""Files and folders are written completely or not at all."""

import errno

import pytest

from negvision.errors import CheckpointError, UserError
from negvision.files import atomic_write, check_writable, remove_partial_files, staged


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_file_is_replaced_at_the_end(tmp_path):
    path = tmp_path / "a.pth"
    path.write_text("old")
    with atomic_write(path) as partial:
        partial.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert names(tmp_path) == ["a.pth"]


@pytest.mark.parametrize("failure", [KeyboardInterrupt, ValueError])
def test_file_is_unchanged_after_an_exception(tmp_path, failure):
    path = tmp_path / "a.pth"
    path.write_text("old")
    with pytest.raises(failure), atomic_write(path) as partial:
        partial.write_text("half")
        raise failure
    assert path.read_text() == "old"
    assert names(tmp_path) == ["a.pth"]


def test_errors_of_the_system(tmp_path):
    full = OSError(errno.ENOSPC, "x")
    with pytest.raises(UserError, match=r"a\.txt cannot be written: the disk is full"):  # noqa: SIM117
        with atomic_write(tmp_path / "a.txt"):
            raise full
    zipped = RuntimeError("[enforce fail] PytorchStreamWriter failed writing file")
    with pytest.raises(CheckpointError, match="PytorchStreamWriter"):  # noqa: SIM117
        with atomic_write(tmp_path / "a.txt", error=CheckpointError):
            raise zipped
    with pytest.raises(FileNotFoundError), atomic_write(tmp_path / "no" / "a", error=None) as path:
        path.write_text("x")
    with pytest.raises(UserError, match="choose another file"):
        check_writable(tmp_path)


def test_files_of_killed_processes_are_removed(tmp_path):
    (tmp_path / ".iter_3.pth.partial").write_text("half")
    (tmp_path / "iter_2.pth").write_text("complete")
    remove_partial_files(tmp_path)
    assert names(tmp_path) == ["iter_2.pth"]


def test_staged_entries_replace_those_of_the_same_name(tmp_path):
    (tmp_path / "masks").mkdir()
    (tmp_path / "masks" / "old.png").touch()
    (tmp_path / "kept").touch()
    with staged(tmp_path) as new:
        (new / "masks").mkdir()
        (new / "masks" / "new.png").touch()
        (new / "a.txt").touch()
    assert names(tmp_path) == ["a.txt", "kept", "masks"]
    assert names(tmp_path / "masks") == ["new.png"]
    with pytest.raises(KeyError), staged(tmp_path) as new:
        (new / "b.txt").touch()
        raise KeyError
    assert names(tmp_path) == ["a.txt", "kept", "masks"]
