"""``negvision convert``: what is written, shown and refused."""

import json
from pathlib import Path

import pytest
from helpers import folders
from helpers.commands import command

from negvision.data.formats.folder import FORMATS, read_folder

run = command("convert")


def test_counts_and_notes_are_shown(tmp_path, capsys):
    root = folders.yolo(tmp_path / "pets")
    assert run(root, "--to", "coco", "--out", tmp_path / "out") == 0
    shown = capsys.readouterr().out
    assert [line.split() for line in shown.splitlines()[1:4]] == [
        ["train", "3", "1", "3", "0"], ["val", "1", "0", "1", "0"], ["test", "1", "0", "1", "0"],
    ]  # fmt: skip
    assert "read as  YOLO" in shown and "classes  2: cat, dog" in shown
    assert "1 x image without a label file, kept as background" in shown
    assert f"written to {tmp_path / 'out'}" in shown
    assert {p.name for p in (tmp_path / "out").iterdir()} == {"annotations", "images"}


def test_what_was_assumed_and_lost_is_shown(tmp_path, capsys):
    root = folders.yolo(tmp_path / "pets", shape="polygon", config=None)
    assert run(root, "--to", "voc", "--out", tmp_path / "out") == 0
    shown = capsys.readouterr().out
    assert "assumed  no data.yaml" in shown and "not held by voc:\n  5 x mask" in shown


def test_a_folder_without_splits_is_split_on_request(tmp_path, capsys):
    root = folders.voc(tmp_path / "pets", lists=False)
    assert run(root, "--to", "yolo", "--out", tmp_path / "out", "--val", 0.2, "--test", 0.2) == 0
    assert "split by image content" in capsys.readouterr().out
    data = read_folder(tmp_path / "out")
    assert {s: len(part) for s, part in data.splits.items()} == {"train": 3, "val": 1, "test": 1}


def test_a_written_split_is_kept(tmp_path):
    root = folders.voc(tmp_path / "pets", lists=False)
    names = [image.name for image in read_folder(root).images]
    (root / "split.json").write_text(json.dumps({"train": names[1:], "val": names[:1]}))
    assert run(root, "--to", "coco", "--out", tmp_path / "out") == 0
    data = read_folder(tmp_path / "out")
    assert {s: len(part) for s, part in data.splits.items()} == {"train": 4, "val": 1}
    assert [Path(image.name).name for image in data.split("val")] == [Path(names[0]).name]


@pytest.mark.parametrize("name", ["val", "test"])
def test_shares_that_a_folder_with_splits_would_not_follow_are_refused(tmp_path, capsys, name):
    root = folders.yolo(tmp_path / "pets")
    assert run(root, "--to", "voc", "--out", tmp_path / "out", f"--{name}", 0.3) == 2
    assert f"--{name}: {root} has the splits train, val, test" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    if name == "val":  # which is taken from train
        folders.text(root / "data.yaml", "train: images/train\ntest: images/test\nnames: [a, b]\n")
        assert run(root, "--to", "voc", "--out", tmp_path / "out", "--val", 0.3) == 0
        assert set(read_folder(tmp_path / "out").splits) == {"train", "val", "test"}


def test_existing_files_are_kept_without_overwrite(tmp_path, capsys):
    root, out = folders.yolo(tmp_path / "pets"), tmp_path / "out"
    assert run(root, "--to", "coco", "--out", out) == 0
    (out / "annotations/train.json").write_text("mine")
    (out / "notes.txt").write_text("mine")
    assert run(root, "--to", "coco", "--out", out) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert (out / "annotations/train.json").read_text() == "mine"
    assert run(root, "--to", "coco", "--out", out, "--overwrite") == 0
    assert json.loads((out / "annotations/train.json").read_text())["images"]
    assert (out / "notes.txt").read_text() == "mine"


def test_images_can_be_linked(tmp_path):
    root, out = folders.yolo(tmp_path / "pets"), tmp_path / "out"
    assert run(root, "--to", "voc", "--out", out, "--link") == 0
    links = list((out / "JPEGImages").iterdir())
    assert len(links) == 5 and all(link.is_symlink() and link.is_file() for link in links)


def bad_box(root):
    (root / "labels/val/c.txt").write_text("0 3 3 1 1\n")


@pytest.mark.parametrize(
    ("change", "out", "says"),
    [
        (bad_box, "out", "1 x coordinate that is no fraction"),
        (None, "pets", "lie in each other"),
        (None, "pets/coco", "lie in each other"),
        (None, ".", "lie in each other"),
    ],
)
def test_nothing_is_written_after_an_error(tmp_path, monkeypatch, capsys, change, out, says):
    monkeypatch.chdir(tmp_path)
    root = folders.yolo(tmp_path / "pets")
    if change:
        change(root)
    before = sorted(tmp_path.rglob("*"))
    assert run("pets", "--to", "coco", "--out", out) == 2
    assert says in capsys.readouterr().err
    assert sorted(tmp_path.rglob("*")) == before


def test_bad_objects_can_be_left_out(tmp_path, capsys):
    root = folders.yolo(tmp_path / "pets")
    bad_box(root)
    assert run(root, "--to", "coco", "--out", tmp_path / "out", "--skip-bad") == 0
    assert "1 x left out: coordinate that is no fraction" in capsys.readouterr().out


def test_formats_of_the_command_are_those_of_the_readers():
    from negvision.cli import data_options

    assert tuple(FORMATS) == data_options.FORMATS
