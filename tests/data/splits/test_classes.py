import pytest

from negvision.data.splits import check_names, remaining_classes
from negvision.errors import DatasetError

CLASSES = ("ace", "queen", "ten")


def test_order_of_what_remains():
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
def test_choices_that_cannot_be(held_out, says):
    with pytest.raises(DatasetError, match=says):
        remaining_classes(CLASSES, held_out, "a.json")


def test_the_option_is_named():
    with pytest.raises(DatasetError, match=r"--void: 1 of 1 are no class of classes\.txt"):
        check_names(["unlabled"], ["unlabeled"], "--void", "classes.txt")
