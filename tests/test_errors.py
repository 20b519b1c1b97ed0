import os
import pickle

from negvision.errors import DatasetError, Problems, WarnOnce


def test_kind_of_a_problem_survives_pickling():
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


def test_a_report_counts_what_its_examples_do_not_stand_for():
    problems = Problems()
    problems.add("look-alike", "a = b = c", count=3)
    problems.add("look-alike", "d = e", count=2)
    assert problems.report().splitlines()[1:] == ["      a = b = c", "      d = e"]
    for number in range(5):
        problems.add("look-alike", f"f = {number}", count=2)
    total = Problems()
    total.merge(problems.only("look-alike"), "x")
    lines = total.report().splitlines()
    assert lines[0] == "  15 x look-alike" and lines[1] == "      x: a = b = c"
    assert len(lines) == 7 and lines[6] == "      ... and 4 more"


def test_a_warning_is_given_once_by_a_process_and_those_that_it_forks(caplog):
    warn = WarnOnce()
    child = os.fork()
    if not child:
        warn("of the child")
        os._exit(0)
    os.waitpid(child, 0)
    warn("of the parent")
    assert not caplog.messages
    other = WarnOnce()
    other("first")
    other("second")
    assert caplog.messages == ["first"]
