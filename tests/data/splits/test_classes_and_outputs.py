"""What all splits share: the choice of classes, and outputs that are complete or absent."""

import pytest

from negvision.data.splits import check_names, remaining_classes, staged_outputs
from negvision.errors import DatasetError

CLASSES = ("ace", "queen", "ten")


def test_order_of_remaining_classes():
    assert remaining_classes(CLASSES, ["queen"], "a.json") == ("ace", "ten")
    assert remaining_classes(CLASSES, ["ten", "ace", "ten"], "a.json") == ("queen",)


@pytest.mark.parametrize(
    ("held_out", "says"),
    [
        (["quen", "ten"], r"--held-out: 1 of 2 are no class of a\.json:\n  'quen'; nearest: 'quee"),
        (["zebra"], r"  'zebra'\nIts 3 classes: 'ace', 'queen', 'ten'\."),
        (CLASSES, r"--held-out names all 3 classes of a\.json, so none is left to train on"),
        ([], r"no class of a\.json is held out"),
    ],
)
def test_invalid_held_out_classes(held_out, says):
    with pytest.raises(DatasetError, match=says):
        remaining_classes(CLASSES, held_out, "a.json")


def test_the_option_is_named():
    with pytest.raises(DatasetError, match=r"--void: 1 of 1 are no class of classes\.txt"):
        check_names(["void"], ["unlabeled"], "--void", "classes.txt")


def write(folder, text: str, overwrite: bool = False, fail: bool = False) -> None:
    with staged_outputs(folder, ["a.txt", "masks"], overwrite) as new:
        (new / "masks").mkdir()
        (new / "masks" / f"{text}.png").touch()
        (new / "a.txt").write_text(text)
        if fail:
            raise KeyboardInterrupt


def listed(folder) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


def test_existing_outputs_are_refused_or_replaced(tmp_path):
    folder = tmp_path / "deep" / "out"
    write(folder, "old")
    (folder / "mine.txt").touch()
    with pytest.raises(DatasetError, match=r"out has a\.txt, masks already; .* --overwrite"):
        write(folder, "new")
    assert listed(folder) == ["a.txt", "masks", "masks/old.png", "mine.txt"]
    write(folder, "new", overwrite=True)
    assert listed(folder) == ["a.txt", "masks", "masks/new.png", "mine.txt"]
    assert (folder / "a.txt").read_text() == "new"


def test_an_interruption_keeps_the_old_files(tmp_path):
    write(tmp_path, "old")
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path, "new", overwrite=True, fail=True)
    assert listed(tmp_path) == ["a.txt", "masks", "masks/old.png"]


def test_the_output_folder_is_a_file(tmp_path):
    (tmp_path / "out").touch()
    with pytest.raises(DatasetError, match=r"--out .*out is a file"):
        write(tmp_path / "out", "new")
