import pickle

import pytest

from negvision.errors import DatasetError, Problems, UserError, reports_user_errors


class MarkedElsewhere(ValueError):
    is_user_error = True


def command(error):
    @reports_user_errors
    def main(argv=None):
        if error is not None:
            raise error
        return 0

    return main


@pytest.mark.parametrize("kind", [UserError, MarkedElsewhere, DatasetError])
def test_user_errors_are_one_block_and_status_2(capsys, kind):
    assert command(kind("box 3 is wrong"))([]) == 2
    printed = capsys.readouterr().err
    assert "box 3 is wrong" in printed and "Traceback" not in printed


def test_other_errors_keep_their_traceback():
    assert command(None)([]) == 0
    with pytest.raises(ValueError, match="ours"):
        command(ValueError("ours"))([])


def test_kind_of_a_fault_survives_pickling():
    copied = pickle.loads(pickle.dumps(DatasetError("a.jpg: truncated", kind="truncated image")))
    assert str(copied) == "a.jpg: truncated" and copied.kind == "truncated image"
    assert DatasetError("a.jpg: truncated").kind == ""


def test_merged_problems_keep_few_examples_and_all_counts():
    total = Problems()
    for source in ("a.txt", "b.txt"):
        found = Problems()
        for number in range(4):
            found.add("empty line", f"line {number}")
        found.add("no image", f"{source}:7", count=3)
        total.merge(found, source)
    assert total.counts == {"empty line": 8, "no image": 6}
    lines = total.examples("empty line")
    assert lines[:2] == ["a.txt: line 0", "a.txt: line 1"] and lines[4:] == ["b.txt: line 0"]
    assert total.examples("no image") == ["a.txt:7", "b.txt:7"]
    assert total.examples("another") == []
