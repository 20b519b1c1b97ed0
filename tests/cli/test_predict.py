"""``negvision predict``: files with the predictions of the model, and no incomplete ones."""

import contextlib
import dataclasses
import io
import json
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from helpers.commands import command
from helpers.small_models import write_images
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from negvision.data.score_threshold import FIXED
from negvision.inference import videos
from negvision.inference.inferencer import Inferencer
from negvision.inference.output import Writer
from negvision.inference.runtime import Classification, Detections, Embedding, LabelMap
from negvision.inference.sources import Frame

main = command("predict")

ROOT = Path(__file__).parents[2]
BOXES = str(ROOT / "configs/quickstart/abet_boxes.py")


@pytest.fixture
def folder(tmp_path) -> Path:
    """Three images, of two sizes."""
    path = tmp_path / "images"
    write_images(path, a_png=(96, 128), b_png=(128, 96), c_jpg=(96, 128))
    return path


@pytest.fixture
def clip(tmp_path) -> Path:
    path = tmp_path / "clip.mp4"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 12, (97, 65))
    for number in range(5):
        writer.write(np.full((65, 97, 3), 50 * number, np.uint8))
    writer.release()
    return path


def _left(out: Path) -> list[str]:
    """All files below a folder."""
    return sorted(str(path.relative_to(out)) for path in out.rglob("*") if path.is_file())


def test_classes_of_images_and_videos(exported, folder, clip, tmp_path, capsys):
    out = tmp_path / "out"
    model = Inferencer(exported("images"))
    arguments = [str(exported("images")), str(folder), str(clip), "--out", str(out)]
    assert main([*arguments, "--top", "2", "--ood-threshold", "-1000"]) == 0
    drawings = [f"drawings/{name}" for name in ("a.jpg", "b.jpg", "c.jpg", "clip.mp4")]
    assert _left(out) == [*drawings, "images.json", "predictions.json"]
    found = json.loads((out / "predictions.json").read_text())
    assert [record["image_id"] for record in found] == [n for n in range(8) for _ in range(2)]
    [wanted] = model.predict([folder / "a.png"])
    assert [record["category_id"] for record in found[:2]] == wanted.top(2).tolist()
    assert found[0]["score"] == pytest.approx(wanted.probabilities.max(), rel=1e-4)
    assert found[0]["ood_score"] == pytest.approx(wanted.ood_score, rel=1e-4)
    assert found[0]["is_ood"] is True
    said = capsys.readouterr().out
    assert "images: 8 unknown" in said and f"{clip}: 5 frames, 5 unknown" in said


def test_boxes_of_images_and_videos(exported, folder, clip, tmp_path, capsys):
    out = tmp_path / "out"
    model = Inferencer(exported("abet"), ood_threshold=-1.0)
    arguments = [str(exported("abet")), str(folder), str(clip), "--out", str(out)]
    assert main([*arguments, "--batch-size", "2", "--ood-threshold", "-1"]) == 0
    drawings = [f"drawings/{name}" for name in ("a.jpg", "b.jpg", "c.jpg", "clip.mp4")]
    assert _left(out) == [*drawings, "images.json", "predictions.json"]

    images = json.loads((out / "images.json").read_text())
    assert [image["id"] for image in images["images"]] == list(range(8))
    assert images["images"][1] == {
        "id": 1,
        "file_name": str(folder / "b.png"),
        "width": 96,
        "height": 128,
        "drawing": "drawings/b.jpg",
    }
    assert [image.get("frame") for image in images["images"]] == [None] * 3 + list(range(5))
    assert [item["name"] for item in images["categories"]] == list(model.classes)

    found = json.loads((out / "predictions.json").read_text())
    sources = sorted(map(str, folder.iterdir()))
    wanted = [*model.predict(sources[:2], 2), *model.predict(sources[2:])]
    for image_id in (0, 1):
        own = [box for box in found if box["image_id"] == image_id]
        result = wanted[image_id]
        assert len(own) == len(result) > 20
        boxes = np.array([box["bbox"] for box in own])
        np.testing.assert_allclose(boxes[:, :2] + boxes[:, 2:], result.boxes[:, 2:], rtol=1e-5)
        assert [box["category_id"] for box in own] == result.labels.tolist()
        assert [box["score"] for box in own] == result.scores.tolist()
        assert [box["ood_score"] for box in own] == result.ood_scores.tolist()
        assert [box["is_ood"] for box in own] == result.unknown.tolist()
    assert {box["frame"] for box in found if box["image_id"] >= 3} <= set(range(5))

    with contextlib.redirect_stdout(io.StringIO()):
        assert len(COCO(out / "images.json").loadRes(str(out / "predictions.json")).anns) == len(
            found
        )
    said = capsys.readouterr().out
    assert f"{folder / 'b.png'}: 96 x 128, nothing" in said
    assert f"{clip}: 5 frames, nothing" in said
    assert re.search(r"^8 images in [\d.]+ s: [\d.]+ images/s", said, re.MULTILINE)
    # The weights are random, and no score is high.
    assert "0 boxes from score 0.3 (fixed, since the model has none of its own)" in said
    assert f"{len(found):,} boxes of lower scores are in predictions.json too" in said
    assert str(out / "drawings") in said

    assert cv2.imread(str(out / "drawings/a.jpg")).shape == (96, 128, 3)
    drawn = cv2.VideoCapture(str(out / "drawings/clip.mp4"))
    assert drawn.get(cv2.CAP_PROP_FRAME_COUNT) == 5 and drawn.get(cv2.CAP_PROP_FPS) == 12


def test_checkpoint_follows_its_config(checkpoints, folder, tmp_path, capsys):
    out = tmp_path / "out"
    sources = [str(folder / "a.png"), str(folder / "*.jpg")]
    options = ["--out", str(out), "--no-drawings", "--score-threshold"]
    assert main([BOXES, str(checkpoints("abet")), *sources, *options, "0.1"]) == 0
    assert _left(out) == ["images.json", "predictions.json"]
    found = json.loads((out / "predictions.json").read_text())
    assert found and all(box["score"] >= 0.1 for box in found)
    assert {box["image_id"] for box in found} == {0, 1}
    said = capsys.readouterr().out
    assert f"{len(found):,} boxes from score 0.1 (as given): " in said and "lower" not in said
    assert main([BOXES, str(checkpoints("abet")), *sources, *options, "1"]) == 0
    assert json.loads((out / "predictions.json").read_text()) == []


def test_segmentors_write_label_maps_and_scores(exported, folder, clip, tmp_path):
    out = tmp_path / "out"
    options = ["--out", str(out), "--batch-size", "2", "--frames", "2"]
    assert main([str(exported("pixels")), str(folder), str(clip), *options]) == 0
    names = ["a", "b", "c", "clip_000000", "clip_000001"]
    assert _left(out) == [
        *(f"drawings/{name}" for name in ("a.jpg", "b.jpg", "c.jpg", "clip.mp4")),
        "images.json",
        *(f"labels/{name}.png" for name in names),
        *(f"ood_scores/{name}.npy" for name in names),
    ]
    [wanted] = Inferencer(exported("pixels")).predict([folder / "b.png"])
    labels = cv2.imread(str(out / "labels/b.png"), cv2.IMREAD_UNCHANGED)
    assert labels.dtype == np.uint8 and np.array_equal(labels, wanted.labels)
    scores = np.load(out / "ood_scores/b.npy")
    np.testing.assert_allclose(scores, wanted.ood_scores, rtol=1e-4, atol=1e-5)
    [image] = [i for i in json.loads((out / "images.json").read_text())["images"] if i["id"] == 1]
    assert image["labels"] == "labels/b.png" and image["ood_scores"] == "ood_scores/b.npy"


def test_faces_are_written_as_embeddings(exported, tmp_path):
    files = [tmp_path / f"{number}.png" for number in range(3)]
    for number, file in enumerate(files):
        pixels = np.random.default_rng(number).integers(0, 256, (32, 32, 3), dtype=np.uint8)
        cv2.imwrite(str(file), pixels)
    out = tmp_path / "out"
    assert main([str(exported("face")), *map(str, files), "--out", str(out)]) == 0
    assert _left(out) == ["embeddings.npz"]
    held = np.load(out / "embeddings.npz")
    assert held["names"].tolist() == list(map(str, files)) and (held["frames"] == -1).all()
    wanted = [one.vector for one in Inferencer(exported("face")).predict(files)]
    np.testing.assert_allclose(held["embeddings"], wanted, rtol=1e-4, atol=1e-5)


def test_files_of_the_same_name_are_numbered(exported, folder, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    for name in ("a.png", "a.bmp"):
        cv2.imwrite(str(other / name), np.zeros((64, 64, 3), np.uint8))
    out = tmp_path / "out"
    assert main([str(exported("abet")), str(folder), str(other), "--out", str(out)]) == 0
    assert {"drawings/a.jpg", "drawings/a_2.jpg", "drawings/a_3.jpg"} < set(_left(out))


def test_invalid_image_is_named_and_no_file_is_incomplete(exported, folder, clip, tmp_path, capsys):
    out = tmp_path / "out"
    out.mkdir()
    (out / "predictions.json").write_text("from before")
    # Between the frames of a video and its end.
    (tmp_path / "z.png").write_bytes((folder / "a.png").read_bytes()[:-40])
    sources = [str(folder / "a.png"), str(clip), str(tmp_path / "z.png")]
    assert main([str(exported("abet")), *sources, "--out", str(out)]) == 2
    said = capsys.readouterr().err
    assert (
        "z.png: truncated PNG" in said and "To leave out such files and go on, add --skip-" in said
    )
    assert _left(out) == ["drawings/a.jpg", "predictions.json"]
    assert (out / "predictions.json").read_text() == "from before"


def test_damaged_sources_are_left_out_and_counted_on_request(exported, folder, tmp_path, capsys):
    out, half = tmp_path / "out", tmp_path / "half.mp4"
    writer = cv2.VideoWriter(str(half), cv2.VideoWriter.fourcc(*"mp4v"), 12, (64, 64))
    for number in range(12):
        noise = np.random.default_rng(number).integers(0, 256, (64, 64, 3), dtype=np.uint8)
        writer.write(cv2.GaussianBlur(noise, (5, 5), 0))
    writer.release()
    data = bytearray(half.read_bytes())
    third = len(data) // 3
    data[third : 2 * third] = bytes(third)
    half.write_bytes(data)
    (folder / "b.png").write_bytes((folder / "b.png").read_bytes()[:-40])
    for name in ("._a.png", "e.heic", "notes.txt"):
        (folder / name).write_bytes(b"")
    sources = [str(half), str(folder)]
    assert main([str(exported("abet")), *sources, "--out", str(out), "--skip-bad"]) == 1
    images = json.loads((out / "images.json").read_text())["images"]
    frames = [image["frame"] for image in images if "frame" in image]
    assert 0 < len(frames) < 12 and frames == list(range(len(frames)))
    assert [image["file_name"] for image in images if "frame" not in image] == [
        str(folder / name) for name in ("a.png", "c.jpg")
    ]
    assert {box["image_id"] for box in json.loads((out / "predictions.json").read_text())} <= {
        image["id"] for image in images
    }
    said = capsys.readouterr().out
    assert f"{len(images)} images in " in said
    assert "left out, so the exit status is 1: 1 x video with missing frames, 1 x truncated" in said
    assert f"half.mp4: only {len(frames)} of 12 frames can be read" in said
    [line] = [line for line in said.splitlines() if line.startswith("passed over in folders: ")]
    assert {"1 .heic", "1 .txt", "1 hidden"} == set(line.partition(": ")[2].split(", "))
    # Without the option nothing is written.
    assert main([str(exported("abet")), str(half), "--out", str(tmp_path / "other")]) == 2
    assert not _left(tmp_path / "other")
    # Nor if nothing is left.
    options = ["--out", str(tmp_path / "other"), "--skip-bad"]
    assert main([str(exported("abet")), str(folder / "b.png"), *options]) == 2
    assert "nothing is left to predict; left out:" in capsys.readouterr().err
    assert not _left(tmp_path / "other")


def test_images_that_the_model_does_not_take_are_left_out_one_by_one(exported, tmp_path, capsys):
    sizes = {"a_png": (32, 32), "b_png": (40, 32), "c_png": (32, 32)}
    write_images(tmp_path / "faces", **sizes)
    options = ["--out", str(tmp_path / "out"), "--batch-size", "3"]
    command = [str(exported("face")), str(tmp_path / "faces"), *options]
    assert main(command) == 2
    assert "b.png: image: the image is 32 x 40 pixels" in capsys.readouterr().err
    assert main([*command, "--skip-bad"]) == 1
    assert "1 x image that cannot be used" in capsys.readouterr().out
    names = [Path(name).name for name in np.load(tmp_path / "out/embeddings.npz")["names"]]
    assert names == ["a.png", "c.png"]


def test_masks_are_written_and_drawn(tmp_path):
    model = SimpleNamespace(
        task="detection", classes=("cat",), shown_threshold=FIXED, ood_threshold=None, top=None
    )
    masks = np.zeros((2, 40, 60), bool)
    masks[0, 5:15, 10:40] = True
    found = Detections(
        np.array([[10, 5, 40, 15], [0, 0, 5, 5]], np.float32),
        np.array([0.9, 0.8], np.float32),
        np.zeros(2, int),
        masks=masks,
    )
    image = np.zeros((40, 60, 3), np.uint8)
    drawn = []
    for name, result in (("with", found), ("without", dataclasses.replace(found, masks=None))):
        with Writer(tmp_path / name, model, enlarge=True) as writer:
            writer.add(Frame(image, "a.png"), result)
            writer.finish()
        drawn.append(cv2.imread(str(tmp_path / name / "drawings/a.jpg")).astype(int))
    boxes = json.loads((tmp_path / "with/predictions.json").read_text())
    decoded = [coco_mask.decode(box["segmentation"]) for box in boxes]
    np.testing.assert_array_equal(decoded, masks)
    assert len(found.above(0.85).masks) == 1
    inside = np.abs(drawn[0] - drawn[1])[88:132, 132:428]
    assert inside.mean() > 20


SHOWN = {
    "detection": (
        Detections(
            np.zeros((5, 4), np.float32),
            np.array([0.9, 0.8, 0.7, 0.6, 0.2], np.float32),
            np.array([1, 0, 1, 0, 1]),
            np.zeros(5, np.float32),
            np.array([False, False, False, True, False]),
        ),
        "2 dog, 1 cat, 1 unknown",
        "8 boxes from score 0.3 (fixed, since the model has none of its own): 4 dog, 2 cat, "
        "2 unknown\n2 boxes of lower scores are in predictions.json too",
    ),
    "segmentation": (
        LabelMap(np.repeat(np.array([[0, 1, 1, 1]], np.int32), 2, 0)),
        "dog 75.0 %, cat 25.0 %",
        "pixels: dog 75.0 %, cat 25.0 %",
    ),
    "classification": (
        Classification(np.array([0.2, 0.8], np.float32)),
        "dog, probability 0.80",
        "images: 2 dog",
    ),
    "face": (Embedding(np.ones(7)), "embedding of 7 numbers", "2 embeddings"),
}


@pytest.mark.parametrize("task", SHOWN)
def test_what_images_show_is_counted_by_class(tmp_path, task):
    result, words, summary = SHOWN[task]
    own = {"shown_threshold": FIXED, "ood_threshold": None, "top": 1}
    model = SimpleNamespace(task=task, classes=("cat", "dog"), **own)
    with Writer(tmp_path, model, drawings=False) as writer:
        frames = [Frame(np.zeros((2, 4, 3), np.uint8), f"{name}.png") for name in "ab"]
        assert [writer.add(frame, result) for frame in frames] == [words, words]
        writer.finish()
    assert writer.summary() == summary


def test_drawings_that_are_too_long_for_jpeg_are_png(tmp_path):
    model = SimpleNamespace(
        task="detection", classes=("cat",), shown_threshold=FIXED, ood_threshold=None, top=None
    )
    none = Detections(np.zeros((0, 4), np.float32), np.zeros(0), np.zeros(0, int))
    with Writer(tmp_path, model) as writer:
        writer.add(Frame(np.zeros((66_000, 2, 3), np.uint8), "a.png"), none)
        writer.finish()
    assert cv2.imread(str(tmp_path / "drawings/a.png")).shape == (66_000, 2, 3)


@pytest.mark.parametrize("out", ["/proc/none", "taken/below"])
def test_unwritable_folder_is_reported_first(folder, tmp_path, monkeypatch, capsys, out):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "taken").write_text("")
    # The missing model is not reached.
    assert main(["nowhere.onnx", str(folder), "--out", out]) == 2
    said = capsys.readouterr().err
    assert f"{out}/images.json cannot be written: " in said


def test_full_disk_is_reported(exported, folder, tmp_path, capsys, monkeypatch):
    def full(self, content):
        self.touch()
        raise OSError(28, "No space left on device")

    model = str(exported("abet"))
    monkeypatch.setattr(Path, "write_bytes", full)
    assert main([model, str(folder), "--out", str(tmp_path / "out")]) == 2
    assert "a.jpg cannot be written: the disk is full" in capsys.readouterr().err
    assert not _left(tmp_path / "out")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["config", "images"], "a checkpoint (.pth or .safetensors) must follow it, not"),
        (["config", "a.pth"], "there is no source after the checkpoint 'a.pth'"),
        (["config", "a.pth", "images"], "checkpoint 'a.pth' does not exist"),
        (
            ["weights.pth", "images"],
            "checkpoint 'weights.pth' does not exist",
        ),
        (["text.onnx", "images"], "cannot be opened by ONNX Runtime"),
        (["model", "nowhere"], "nowhere: no such file or folder"),
        (["model", "http://127.0.0.1:1/a.png"], "add --allow-urls"),
        (["model", "http://127.0.0.1:1/a.png", "--allow-urls"], "a.png: cannot be downloaded"),
        (["model", "cut.mp4"], "cut.mp4: truncated video"),
        (["model", "images", "--batch-size", "0"], "--batch-size: '0' is not an integer above 0"),
        (
            ["model", "images", "--score-threshold", "7"],
            "score threshold 7.0: give a number",
        ),
        (["model", "images", "--ood-threshold", "much"], "is not a number or the word checkpoint"),
        (["model", "images", "--ood-threshold", "checkpoint"], "has no OOD threshold. Choose one"),
        (["model", "images", "--device", "tpu"], "device 'tpu'"),
        (["face", "images"], "a.png: image: the image is 128 x 96 pixels"),
    ],
)
def test_errors(exported, folder, clip, tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.onnx").write_text("hello")
    (tmp_path / "cut.mp4").write_bytes(clip.read_bytes()[:-99])
    names = {"model": exported("abet"), "face": exported("face"), "config": BOXES}
    assert main([*(names.get(word, word) for word in arguments), "--out", "out"]) == 2
    assert message in capsys.readouterr().err
    assert not _left(tmp_path / "out")


@pytest.mark.parametrize("stops", [False, True])
def test_webcam_is_read_until_ctrl_c_or_until_it_stops(exported, tmp_path, monkeypatch, stops):
    class Camera:
        left = 3

        def isOpened(self):
            return True

        def get(self, key):
            return 0.0

        def read(self):
            self.left -= 1
            if self.left < 0:
                if stops:
                    return False, None
                raise KeyboardInterrupt
            return True, np.zeros((48, 64, 3), np.uint8)

        def release(self):
            pass

    monkeypatch.setattr(videos, "_capture", lambda source: Camera())
    out = tmp_path / "out"
    assert main([str(exported("abet")), "0", "--out", str(out)]) == stops
    assert _left(out) == ["drawings/webcam_0.mp4", "images.json", "predictions.json"]
    assert len(json.loads((out / "images.json").read_text())["images"]) == 3
    if stops:
        return
    # Sources with an end are read fully or not at all.
    with pytest.raises(KeyboardInterrupt):
        main([str(exported("abet")), "0", "--frames", "9", "--out", str(tmp_path / "other")])
    assert not _left(tmp_path / "other")


def test_exported_models_run_without_torch_and_openmmlab(exported, folder, tmp_path):
    program = """
import sys
for name in ("torch", "mmengine", "mmcv", "mmdet", "mmseg", "supervision"):
    sys.modules[name] = None
from negvision.cli.main import main
sys.exit(main(sys.argv[1:]))
"""
    out = tmp_path / "out"
    arguments = ["predict", str(exported("abet")), str(folder), "--out", str(out)]
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments], capture_output=True, text=True, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert "drawings/a.jpg" in _left(out)
