"""Generation at first use, with a writer of three small files."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from negvision.toy.generated import default_root, ensure_set, write_stamp

builds = []


def write(root: Path, text: str = "list", fail: bool = False) -> None:
    builds.append(root)
    (root / "train").mkdir(parents=True)
    for name in ("a.jpg", "b.jpg"):
        (root / "train" / name).write_text(text)
    if fail:
        raise KeyboardInterrupt
    (root / "train.txt").write_text(text)
    write_stamp(root, "words", {"text": text}, ["train.txt"], {"train": 2}, {"train": "-"})


def ensure(root: Path, text: str = "list", kind: str = "words") -> Path:
    return ensure_set(root, kind, {"text": text}, lambda new: write(new, text))


def contents(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()}


def test_a_complete_set_is_kept_and_other_parameters_replace_it(tmp_path):
    root = ensure(tmp_path / "deep" / "words")
    before = (root / "dataset.json").stat().st_ino
    ensure(root)
    assert (root / "dataset.json").stat().st_ino == before
    ensure(root, "other")
    assert (root / "train.txt").read_text() == "other"
    assert sorted(p.name for p in root.parent.iterdir()) == [".words.lock", "words"]


@pytest.mark.parametrize("damage", ["picture", "list", "stamp", "stamp of another form"])
def test_a_damaged_set_is_generated_again(tmp_path, damage):
    root = ensure(tmp_path / "words")
    before = contents(root)
    if damage == "picture":
        (root / "train" / "a.jpg").unlink()
    elif damage == "list":
        (root / "train.txt").write_text("shorter")
    else:
        (root / "dataset.json").write_text('{"set' if damage == "stamp" else "[1]")
    ensure(root)
    assert contents(root) == before


@pytest.mark.parametrize("name", ["words/thesis.txt", "words"])
def test_files_of_the_user_are_not_overwritten(tmp_path, name):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("years of work")
    with pytest.raises(FileExistsError, match=r"not a words set \(it has no dataset\.json\)"):
        ensure(tmp_path / "words")
    assert (tmp_path / name).read_text() == "years of work"


def test_a_set_of_another_kind_is_not_overwritten(tmp_path):
    root = ensure(tmp_path / "set")
    before = contents(root)
    with pytest.raises(FileExistsError, match=r"not a numbers set \(it is a words set\)"):
        ensure(root, kind="numbers")
    assert contents(root) == before


def test_digits_of_older_versions_are_known(tmp_path):
    root = ensure(tmp_path / "digits")
    stamp = json.loads((root / "dataset.json").read_text())
    del stamp["set"]
    (root / "dataset.json").write_text(json.dumps(stamp))
    builds.clear()
    ensure(root, kind="digits")
    assert builds == []
    with pytest.raises(FileExistsError, match="it is a digits set"):
        ensure(root)


def test_an_interrupted_build_keeps_the_old_set(tmp_path):
    root = ensure(tmp_path / "words")
    before = contents(root)
    with pytest.raises(KeyboardInterrupt):
        ensure_set(root, "words", {"text": "new"}, lambda new: write(new, "new", fail=True))
    assert contents(root) == before
    assert sorted(p.name for p in tmp_path.iterdir()) == [".words.lock", "words"]


def test_processes_that_ask_at_once_build_once(tmp_path):
    code = (
        "import pathlib, sys, time; sys.path.insert(0, sys.argv[2]);"
        "import test_generated as t; root = pathlib.Path(sys.argv[1]);"
        "t.ensure_set(root / 'words', 'words', {'text': 'list'},"
        " lambda new: (print('built'), time.sleep(0.3), t.write(new)))"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    children = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(tmp_path), str(Path(__file__).parent)],
            env=environment,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    outputs = [child.communicate()[0] for child in children]
    assert [child.returncode for child in children] == [0, 0]
    assert sorted(outputs) == ["", "built\n"]


def test_default_root_follows_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("NEGVISION_DATA", str(tmp_path))
    assert default_root("words") == tmp_path / "words"
    monkeypatch.delenv("NEGVISION_DATA")
    assert str(default_root("words")) == os.path.join("data", "words")
