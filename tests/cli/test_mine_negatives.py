"""Hard negatives: images of a background in which most models find the same."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
from helpers.folders import picture, yolo

from negvision.cli.main import main
from negvision.cli.mine_negatives import voted
from negvision.data.formats.folder import read_folder, with_negatives
from negvision.data.score_threshold import shown_from
from negvision.detection.datasets import CocoDataset
from negvision.errors import UserError
from negvision.inference.runtime import Detections


def boxes(*rows) -> Detections:
    """Of (left, score), 10 pixels wide, of class 1."""
    lefts, scores = np.array(rows, dtype=np.float32).reshape(-1, 2).T
    corners = np.stack([lefts, 0 * lefts, lefts + 10, 0 * lefts + 10], 1)
    return Detections(corners, scores, np.ones(len(rows), dtype=np.int64))


@pytest.mark.parametrize(
    "found,wanted",
    [
        ([boxes((0, 0.9), (50, 0.4))], [(0, 0.9, 1), (50, 0.4, 1)]),
        ([boxes((0, 0.9)), boxes((1, 0.5))], [(0, 0.7, 2)]),
        ([boxes((0, 0.9)), boxes((50, 0.5))], []),
        ([boxes((0, 0.9)), boxes((1, 0.6)), boxes()], [(0, 0.5, 2)]),
        ([boxes((0, 0.9), (1, 0.8)), boxes((50, 0.5))], []),  # a duplicate is no second vote
        ([boxes(), boxes()], []),
    ],
)
def test_more_than_half_of_the_models_have_to_agree(found, wanted):
    made = voted(found, ("cat", "dog"))
    assert [(one["bbox"][0], one["votes"]) for one in made] == [(x, n) for x, _, n in wanted]
    assert [one["score"] for one in made] == pytest.approx([score for _, score, _ in wanted])
    assert all(one["class"] == "dog" and one["bbox"][2:] == [10, 10] for one in made)


class Model:
    """Finds a box with a score by the width of the image."""

    task = "detection"

    def __init__(self, path: str, **options) -> None:
        self.classes = ("cat", "dog") if path != "other" else ("cow",)
        self.shown_threshold = shown_from(0.3, None)

    def decode(self, data: bytes, name: str) -> np.ndarray:
        import cv2

        return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)

    def predict(self, images) -> list[Detections]:
        return [boxes((3, images[0].shape[1] / 100))]


@pytest.fixture
def mine(monkeypatch, tmp_path):
    monkeypatch.setattr("negvision.inference.inferencer.Inferencer", Model)
    for seed, (name, width) in enumerate([("a", 60), ("sub/b", 90), ("c", 20), ("d", 70)]):
        picture(tmp_path / "plain" / f"{name}.png", seed, (40, width))

    def run(*arguments: str, models=("one",)) -> int:
        folder, out = str(tmp_path / "plain"), str(tmp_path / "mined")
        return main(["mine-negatives", *models, folder, "--out", out, *arguments])

    return run


def test_the_hardest_images_become_a_coco_file_and_negatives_of_a_training(mine, tmp_path, capsys):
    assert mine("--most", "2", models=("one", "two")) == 0
    assert "3 of 4 images have false positives with scores from 0.3" in capsys.readouterr().out
    out = tmp_path / "mined"
    mined = json.loads((out / "mined.json").read_text())
    assert [(one["file_name"], round(one["score"], 3)) for one in mined] == [
        ("sub/b.png", 0.9),
        ("d.png", 0.7),
    ]
    dataset = CocoDataset(
        ann_file=str(out / "annotations" / "negatives.json"), data_prefix={"img": f"{out}/images"}
    )
    assert (len(dataset), dataset.backgrounds, dataset.objects) == (2, 2, 0)

    yolo(tmp_path / "data")
    data = read_folder(tmp_path / "data")
    train, val = ([i.name for i in data.split(split)] for split in ("train", "val"))
    more = with_negatives(data, out)
    assert [i.name for i in more.split("val")] == [f"data/{name}" for name in val]
    added = ["mined/images/d.png", "mined/images/sub/b.png"]
    assert [i.name for i in more.split("train")] == [*(f"data/{name}" for name in train), *added]
    assert all(more.path(image.name).is_file() for image in more.images)
    assert not any(image.instances for image in more.images[-2:])


@pytest.mark.parametrize(
    "arguments,models,message",
    [
        (["--score-threshold", "0.95"], ("one",), "none of 4 images has a false positive with"),
        ([], ("one", "other"), "takes detectors of the same classes, as one"),
        (["--overwrite"], ("one",), None),
    ],
)
def test_nothing_to_mine_and_models_that_differ_are_errors(
    mine, capsys, arguments, models, message
):
    assert mine(*arguments, models=models) == (2 if message else 0)
    if message:
        assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    "folder,message",
    [
        ("missing", "there is no such folder of images"),
        ("data", "image of the data set itself"),
        ("empty", "0 images without an object can be used"),
    ],
)
def test_a_folder_that_has_no_negatives_is_an_error(tmp_path, folder, message):
    yolo(tmp_path / "data")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=message):
        with_negatives(read_folder(tmp_path / "data"), tmp_path / folder)
    classes = SimpleNamespace(task="faces", root=tmp_path)
    with pytest.raises(UserError, match="are for detection"):
        with_negatives(classes, tmp_path / "data")
