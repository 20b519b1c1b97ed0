"""The command: files, tables, and the errors of a user's input."""

import json

import numpy as np
import pytest
from helpers.commands import command
from PIL import Image

main = command("make-ood-split")

NAMES = ("ace", "jack", "queen")


def write_coco(path, *images: str) -> str:
    """One image for each word, whose letters are the classes of its objects."""
    content = {
        "info": {"description": "cards"},
        "images": [
            {"id": i, "file_name": f"{i}.jpg", "width": 64, "height": 64}
            for i in range(len(images))
        ],
        "annotations": [
            {"id": 10 * i + j, "image_id": i, "category_id": "ajq".index(letter) + 5}
            | {"bbox": [10.5 + j, 12, 20, 30.25], "area": 605, "iscrowd": 0}
            for i, letters in enumerate(images)
            for j, letter in enumerate(letters)
        ],
        "categories": [{"id": 5 + i, "name": name} for i, name in enumerate(NAMES)],
    }
    path.write_text(json.dumps(content))
    return str(path)


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out"


def detection(out, *files: str, held_out=("queen",), more=()) -> int:
    ann, *test = files
    chosen = ["--test", test[0]] if test else []
    return main(["detection", ann, *chosen, "--out", str(out), *more, "--held-out", *held_out])


def test_detection(tmp_path, out, capsys):
    train = write_coco(tmp_path / "train.json", "a", "aqq", "aj", "aaq", "")
    test = write_coco(tmp_path / "test.json", "a", "qq", "jq")
    assert detection(out, train, test) == 0
    printed = capsys.readouterr().out
    rows = [line.split() for line in printed.splitlines()]
    assert rows[1:5] == [
        ["train_id.json", "3", "3", "0", "2"],
        ["test_id.json", "1", "1", "0", "2"],
        ["test_ood.json", "1", "2", "0", "1"],
        ["test_mixed.json", "1", "2", "0", "3"],
    ]
    assert "left to train on: 3 of 5 images (60.0 %)" in printed
    assert "classes   2: ace, jack\nheld out  1: queen" in printed
    assert "warning: 'ace' keeps 2 of its 5 boxes in training" in printed
    assert "'jack' keeps" not in printed
    assert sorted(path.name for path in out.iterdir()) == sorted(row[0] for row in rows[1:5])


@pytest.mark.parametrize(
    ("held_out", "says"),
    [
        (["qeen"], "'qeen'; nearest: 'queen'"),
        (NAMES, "--held-out names all 3 classes"),
        (["jack"], "no image shows held-out classes alone, so there is no OOD image"),
    ],
)
def test_invalid_choices_of_classes(tmp_path, out, capsys, held_out, says):
    assert detection(out, write_coco(tmp_path / "a.json", "a", "q"), held_out=held_out) == 2
    assert says in capsys.readouterr().err
    assert not out.exists()


@pytest.fixture
def labels(tmp_path):
    """Two label images with the ids of sky 0, road 1, dog 2, unknown 9."""
    folder = tmp_path / "ann"
    folder.mkdir()
    for name, pixels in {"1": [[0, 1, 2, 9]], "2": [[1, 1, 1, 9]]}.items():
        Image.fromarray(np.array(pixels, dtype=np.uint8)).save(folder / f"{name}.png")
    (tmp_path / "classes.txt").write_text("0 sky\n1 road\n2 dog\n9 unknown\n")
    return folder


def segmentation(labels, out, *more: str, void=("unknown",), held_out=("dog",)) -> int:
    classes = labels.parent / "classes.txt"
    return main(
        ["segmentation", "--labels", str(labels), "--classes", str(classes), "--out", str(out)]
        + ["--held-out", *held_out, "--void", *void, *more]
    )


def test_segmentation(labels, out, capsys):
    assert segmentation(labels, out) == 0
    printed = capsys.readouterr().out
    rows = [line.split() for line in printed.splitlines()[1:4]]
    assert [row[-3:] for row in rows] == [
        ["5", "62.50", "%"],
        ["1", "12.50", "%"],
        ["2", "25.00", "%"],
    ]
    assert "1 of 2 images show held-out classes; 0 are dropped" in printed
    assert np.array(Image.open(out / "masks" / "1.png")).tolist() == [[0, 1, 255, 255]]
    assert np.array(Image.open(out / "ood" / "1.png")).tolist() == [[0, 0, 1, 255]]
    assert (out / "classes.txt").read_text() == "0 sky\n1 road\n"


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ({"void": ["unknwon"]}, "--void: 1 of 1 are no class of"),
        ({"void": ["dog"]}, "dog: in both --held-out and --void"),
        ({"held_out": ["sky", "road", "dog"]}, "names all 3 classes"),
        ({"out": "ann/split"}, "is inside --labels"),
        ({"labels": "no"}, "no does not exist"),
    ],
)
def test_errors_of_segmentation(labels, tmp_path, capsys, choice, message):
    paths = {name: tmp_path / choice.pop(name, name) for name in ("out", "labels")}
    folder = labels if paths["labels"].name == "labels" else paths["labels"]
    assert segmentation(folder, paths["out"], **choice) == 2
    assert message in capsys.readouterr().err


def classification(out, *sets, classes=None, held_out=("cat",)) -> int:
    chosen = ["--classes", str(classes)] if classes else []
    train, *test = map(str, sets)
    evaluation = ["--test", test[0]] if test else []
    return main(
        ["classification", train, *evaluation, *chosen, "--out", str(out), "--held-out", *held_out]
    )


def test_classification_of_lists(tmp_path, out, capsys):
    (tmp_path / "names.txt").write_text("car\ncat\nship\n")
    (tmp_path / "train.txt").write_text("a.png 0\nb.png 1\nc.png 2\n")
    (tmp_path / "test.txt").write_text("d.png 2\ne.png 1\n")
    sets = tmp_path / "train.txt", tmp_path / "test.txt"
    assert classification(out, *sets, classes=tmp_path / "names.txt") == 0
    printed = capsys.readouterr().out
    assert [line.split() for line in printed.splitlines()[1:4]] == [
        ["train_id.txt", "2"],
        ["test_id.txt", "1"],
        ["test_ood.txt", "1"],
    ]
    assert "left to train on: 2 of 3 images (66.7 %)" in printed
    assert {path.name: path.read_text() for path in out.iterdir()} == {
        "train_id.txt": "a.png 0\nc.png 1\n",
        "test_id.txt": "d.png 1\n",
        "test_ood.txt": "e.png -1\n",
        "classes.txt": "car\nship\n",
    }


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (None, "has labels without names; name them with --classes"),
        ("car cat car", "'car' appear more than once"),
        ("car ship", "'cat'; nearest: 'car'"),
        ("car ship cat", "none of its 2 images is of a held-out class"),
    ],
)
def test_errors_of_classification(tmp_path, out, capsys, names, message):
    (tmp_path / "all.txt").write_text("a.png 0\nb.png 1\n")
    file = tmp_path / "names.txt"
    file.write_text((names or "").replace(" ", "\n"))
    assert classification(out, tmp_path / "all.txt", classes=names and file) == 2
    assert message in capsys.readouterr().err
