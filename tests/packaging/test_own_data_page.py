"""docs/train-your-own-data.md, followed word for word except for the length of training."""

import itertools
import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from helpers import ROOT
from helpers.small_models import spread_out

from negvision.cli.main import main
from negvision.engine.checkpoints.loading import load_checkpoint_file
from negvision.engine.config.check import check_config
from negvision.engine.config.reading import load_config

PAGE = (ROOT / "docs" / "train-your-own-data.md").read_text()
CLASSES = ("Platelets", "RBC", "WBC")
SHORT = "\ntrain_cfg = dict({}, val_interval={})\n"


def blocks(language: str, section: str = "") -> list[str]:
    """Code blocks of the page, or of its part below a heading."""
    text = PAGE
    if section:
        text = re.split(rf"^## {re.escape(section)}$", PAGE, flags=re.MULTILINE)[1]
        text = re.split(r"^## ", text, flags=re.MULTILINE)[0]
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


@pytest.fixture
def clone(tmp_path, monkeypatch) -> Path:
    """A folder with the repository's configs and those of the page."""
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    for block in blocks("python"):
        name = block.splitlines()[0].removeprefix("# ")
        assert re.fullmatch(r"\w+\.py", name)
        length = ("max_epochs=1", 1) if name == "people.py" else ("max_iters=2", 2)
        (tmp_path / name).write_text(block + SHORT.format(*length))
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("NEGVISION_DATA", raising=False)
    return tmp_path


def follow(section: str) -> None:
    """Run the commands of a section, in this process: importing mmdet takes longer than most."""
    code = "".join(blocks("bash", section))
    code = code.replace("iter_600.pth", "iter_2.pth").replace("epoch_8.pth", "epoch_1.pth")
    for command in re.split(r"\n(?=negvision |python )", code):
        words = shlex.split(command)
        if words[0] == "python":
            subprocess.run([sys.executable, *words[1:]], check=True, timeout=600)
            continue
        if words[1] == "export":
            words.append("--legacy")  # the quicker exporter; the current one has its own tests
            # After two iterations all scores are nearly tied, and rounding decides their order.
            checkpoint = load_checkpoint_file(words[3])
            spread_out(checkpoint["state_dict"])
            torch.save(checkpoint, words[3])
        assert words[0] == "negvision" and main(words[1:]) == 0, command


def picture(path: Path, seed: int, height: int = 48, width: int = 64) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 255, (height, width, 3), dtype=np.uint8)
    cv2.imwrite(str(path), pixels)


def test_example_of_a_coco_file_is_one(tmp_path):
    from negvision.detection.datasets import CocoDataset

    (example,) = blocks("json")
    (tmp_path / "a.json").write_text(example)
    picture(tmp_path / "BloodImage_00000.jpg", 0)
    dataset = CocoDataset(
        data_root=str(tmp_path), ann_file="a.json", data_prefix={"img": ""}, pipeline=[]
    )
    assert dataset.metainfo["classes"] == CLASSES
    assert len(dataset.get_data_info(0)["instances"]) == 1


@pytest.mark.slow
def test_boxes_of_coco(clone, capsys):
    data = clone / "data" / "cells"
    (data / "annotations").mkdir(parents=True)
    categories = [{"id": i, "name": name} for i, name in enumerate(CLASSES, 1)]
    for split, numbers in (("train", range(8)), ("val", (8, 9)), ("test", (10, 11))):
        images, annotations = [], []
        for number in numbers:
            name = f"BloodImage_{number:05d}.jpg"
            picture(data / "images" / name, number)
            images.append({"id": number, "file_name": name, "width": 64, "height": 48})
            for category in (1, 2, 3):
                box = {"bbox": [4 * category, 5, 20, 30], "area": 600, "iscrowd": 0}
                ids = {"image_id": number, "category_id": category}
                annotations.append({"id": 3 * number + category, **ids, **box})
        content = {"images": images, "annotations": annotations, "categories": categories}
        (data / "annotations" / f"{split}.json").write_text(json.dumps(content))
    follow("Boxes: COCO")
    assert "no problem in 12 images" in capsys.readouterr().out
    assert len(list((clone / "work_dirs/cells/drawn").iterdir())) == 2
    for made in ("curves.png", "predicted/predictions.json", "../../cells.onnx"):
        assert (clone / "work_dirs/cells" / made).is_file()
    assert len(list(clone.glob("cells-*.safetensors"))) == 1


@pytest.mark.slow
def test_boxes_of_voc(clone, capsys):
    data = clone / "data" / "cells_voc"
    (data / "Annotations").mkdir(parents=True)
    for number in range(12):
        picture(data / "JPEGImages" / f"BloodImage_{number:05d}.jpg", number)
        objects = "".join(
            f"<object><name>{name}</name><bndbox><xmin>{9 + number}</xmin><ymin>3</ymin>"
            "<xmax>40</xmax><ymax>44</ymax></bndbox></object>"
            for name in CLASSES
        )
        size = "<size><width>64</width><height>48</height><depth>3</depth></size>"
        path = data / "Annotations" / f"BloodImage_{number:05d}.xml"
        path.write_text(f"<annotation>{size}{objects}</annotation>")
    follow("Boxes: Pascal VOC")
    assert "no problem in 12 images" in capsys.readouterr().out
    files = (clone / "data/cells_coco/annotations").glob("*.json")
    listed = [
        image["file_name"] for path in files for image in json.loads(path.read_text())["images"]
    ]
    assert sorted(listed) == [f"BloodImage_{number:05d}.jpg" for number in range(12)]


@pytest.mark.slow
def test_faces(clone, capsys):
    data = clone / "data" / "people"
    for person, image in itertools.product(range(12), range(3)):
        picture(data / f"train/p{person:02d}/{image}.jpg", 3 * person + image, 112, 112)
    names = [f"val/q{person}/{image}.jpg" for person in range(5) for image in range(2)]
    for seed, name in enumerate(names):
        picture(data / name, 100 + seed, 112, 112)
    pairs = [(a, b, int(a[4:6] == b[4:6])) for a, b in itertools.combinations(names, 2)]
    (data / "pairs.txt").write_text("".join(f"{a} {b} {same}\n" for a, b, same in pairs))
    follow("Faces")
    assert "no problem in 46 images" in capsys.readouterr().out


@pytest.mark.slow
def test_masks(clone, capsys):
    data = clone / "data" / "streets"
    for split, number in (*itertools.product(["train"], range(8)), ("val", 0), ("val", 1)):
        picture(data / f"img/{split}/{number:04d}.jpg", number + 50 * (split == "val"), 180, 240)
        labels = np.full((180, 240), 255, np.uint8)
        labels[20:, :80], labels[20:, 80:160], labels[20:, 160:] = 0, 1, 2
        labels[:10] = number % 3
        (data / f"ann/{split}").mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(data / f"ann/{split}/{number:04d}.png"), labels)
    listed = [b for b in blocks("", "Masks") if re.fullmatch(r"(\d \w+\n)+", b)]
    (data / "classes.txt").write_text(listed[0])
    follow("Masks")
    shown = capsys.readouterr().out
    assert "no problem in 10 images" in shown and "mIoU" in shown
    assert len(list((clone / "work_dirs/streets/drawn").iterdir())) == 2


def test_every_config_of_the_page_is_valid(clone):
    names = sorted(path.name for path in clone.glob("*.py"))
    assert len(names) == len(blocks("python")) >= 5
    for name in names:
        check_config(load_config(name))


def test_all_sections_with_commands_are_followed():
    sections = re.findall(r"^## (.+)$", PAGE, re.MULTILINE)
    with_commands = {s for s in sections if blocks("bash", s)}
    assert with_commands == {"Boxes: COCO", "Boxes: Pascal VOC", "Faces", "Masks"}
