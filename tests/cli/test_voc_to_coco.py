"""``negvision voc-to-coco`` and ``negvision copy-configs``: files, counts and messages."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from helpers.commands import command

from negvision.engine.config import shipped

copy_configs = command("copy-configs")
run = command("voc-to-coco")

ROOT = Path(__file__).parents[2]
OBJECT = (
    "<object><name>cat</name><difficult>{}</difficult><bndbox><xmin>1</xmin><ymin>2</ymin>"
    "<xmax>30</xmax><ymax>40</ymax></bndbox></object>"
)


@pytest.fixture
def voc(tmp_path):
    root = tmp_path / "voc"
    for name in ("Annotations", "JPEGImages", "ImageSets/Main"):
        (root / name).mkdir(parents=True)
    objects = OBJECT.format(0) * 2 + OBJECT.format(1)
    (root / "Annotations/a.xml").write_text(f"<annotation>{objects}</annotation>")
    cv2.imwrite(str(root / "JPEGImages/a.png"), np.zeros((64, 80, 3), np.uint8))
    (root / "ImageSets/Main/train.txt").write_text("a\n")
    return root


def test_writes_a_file_for_each_list(voc, capsys):
    assert run(voc) == 0
    shown = capsys.readouterr().out.splitlines()
    assert shown[1].split() == ["train.json", "1", "2", "1"]
    assert "classes  1: cat" in shown and f"written to {voc / 'coco'}" in shown
    assert len(json.loads((voc / "coco/train.json").read_text())["annotations"]) == 3


def test_existing_files_are_kept_without_overwrite(voc, tmp_path, capsys):
    out = tmp_path / "out"
    assert run(voc, "--out", out) == 0
    (out / "train.json").write_text("mine")
    assert run(voc, "--out", out) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert (out / "train.json").read_text() == "mine"
    assert run(voc, "--out", out, "--overwrite") == 0
    assert json.loads((out / "train.json").read_text())["images"]


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        (["nowhere"], "nowhere is not a folder"),
        (["voc", "--splits", "test"], "test.txt does not exist"),
        (["voc", "--splits", "train", "val"], "missing annotation file"),
    ],
)
def test_nothing_is_written_after_an_error(voc, monkeypatch, capsys, argv, expected):
    monkeypatch.chdir(voc.parent)
    (voc / "ImageSets/Main/val.txt").write_text("b\n")
    assert run(*argv) == 2
    assert expected in capsys.readouterr().err
    assert not (voc / "coco").exists()


def test_all_configs_are_copied(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert copy_configs([]) == 0
    found = {p.relative_to("configs") for p in Path("configs").rglob("*.py")}
    assert found == {p.relative_to(ROOT / "configs") for p in (ROOT / "configs").rglob("*.py")}
    assert f"{len(found)} configs written to configs" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == [tmp_path / "configs"]


def test_configs_replace_nothing(tmp_path, capsys):
    (tmp_path / "mine").mkdir()
    assert copy_configs(["--out", str(tmp_path / "mine")]) == 2
    assert "already exists" in capsys.readouterr().err
    (tmp_path / "file").write_text("")
    assert copy_configs(["--out", str(tmp_path / "file" / "configs")]) == 2
    assert "cannot be written" in capsys.readouterr().err


def test_configs_of_a_wheel_come_first(tmp_path, monkeypatch):
    package = tmp_path / "negvision"
    package.mkdir()
    monkeypatch.setattr(shipped.negvision, "__file__", str(package / "__init__.py"))
    assert shipped.shipped_configs() == tmp_path / "configs"
    (package / ".configs").mkdir()
    assert shipped.shipped_configs() == package / ".configs"
