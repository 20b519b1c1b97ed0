"""``negvision audit``: files, decisions, and what it says where something does not fit."""

import asyncio
import csv
import json
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from helpers.commands import command
from mmengine.config import Config

from negvision.audit import run as audit_run
from negvision.audit.data import find_leaf, open_data
from negvision.audit.decisions import Decisions
from negvision.cli import audit as audit_command
from negvision.cli.serving.review import ReviewApp
from negvision.data.sample_history import SampleHistory, digest_of
from negvision.data.suspects import Suspects
from negvision.errors import ConfigError
from negvision.inference import inferencer
from negvision.inference.runtime import Classification, Detections, Embedding
from negvision.inference.torch_model import TorchModel
from negvision.registry import DATASETS

audit = command("audit")
CLASSES = ("square", "bar")


class Knowing:
    """A detector that knows the truth of the eight images but for noise: twice (square, bar)."""

    task, classes, path = "detection", CLASSES, "model.pth"

    def __init__(self, *args, **options):
        self.seen = 0

    def predict(self, images):
        [image] = images
        boxes = []
        for channel in (0, 1):
            rows, columns = np.nonzero(image[..., channel] == 255)
            boxes.append([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
        return [Detections(np.array(boxes, np.float32), np.array([0.9, 0.8]), np.arange(2))]


@pytest.fixture
def run_dir(tiny_config, coco_root, tmp_path, monkeypatch):
    """A work dir with a config, a checkpoint that is never read, and annotations of its own."""
    folder = tmp_path / "run"
    folder.mkdir()
    ann_file = tmp_path / "train.json"
    ann_file.write_text((coco_root / "annotations" / "all.json").read_text())
    text = tiny_config.read_text().replace("annotations/all.json", str(ann_file), 1)
    text = text.replace('"CocoDataset"', '"negvision.CocoDataset"')
    (folder / "config.py").write_text(text)
    (folder / "epoch_1.pth").write_text("")
    monkeypatch.setattr(inferencer, "Inferencer", Knowing)
    return folder


def change(ann_file, edit):
    content = json.loads(ann_file.read_text())
    edit(content["annotations"])
    ann_file.write_text(json.dumps(content))


def spoil(annotations):
    """Without the square of image 0, with a bar for the square of image 1."""
    annotations[2]["category_id"] = 3
    del annotations[0]


def test_an_audit_and_the_next_one_after_decisions(run_dir, tmp_path, capsys):
    change(tmp_path / "train.json", spoil)
    assert audit(run_dir) == 0
    out = run_dir / "audit"
    text = capsys.readouterr().out
    assert "one model" in text and "an object without a box" in text
    found = Suspects.load(out / "suspects.json").found
    # Sixteen boxes are too few for probabilities.
    kinds = {one.kind: one for one in found if one.kind in ("missing", "class")}
    missing, wrong = kinds["missing"], kinds["class"]
    assert (missing.image, missing.proposed, missing.probability) == ("0.png", "square", None)
    assert (wrong.annotation, wrong.label, wrong.proposed) == (3, "bar", "square")
    rows = list(csv.DictReader((out / "suspects.csv").open()))
    assert len(rows) == len(found) and {row["kind"] for row in rows} == {o.kind for o in found}
    page = (out / "audit.html").read_text()
    assert "only-missing" in page and "data:image/jpeg" in page and "<script" not in page
    marked = {
        one["audit"]["kind"]: one
        for one in json.loads((out / "corrected.json").read_text())["annotations"]
        if "audit" in one
    }
    assert marked["missing"]["iscrowd"] == 1 and marked["class"]["category_id"] == 3

    decisions = Decisions.load(out / "decisions.json")
    decisions.decide(missing, "reject")
    decisions.decide(wrong, "reject")
    decisions.decide(wrong, "accept")
    assert audit(run_dir) == 0
    assert "decisions taken into account: 2" in capsys.readouterr().out
    again = Suspects.load(out / "suspects.json").found
    assert [(one.annotation, one.probability) for one in again if one.kind == "class"] == [(3, 1.0)]
    assert not any(one.kind == "missing" for one in again)
    corrected = json.loads((out / "corrected.json").read_text())["annotations"]
    assert next(one for one in corrected if one["id"] == 3)["category_id"] == 7


def history_of(ann_file, classes=CLASSES, wrong=3, **found):
    ids = np.repeat(np.arange(1, 17), 2)
    loss = np.where(ids == wrong, 5.0, 0.1)
    columns = {"annotation": ids, "epoch": np.tile([0, 1], 16), "loss": loss}
    columns["other_class"] = np.ones(32)
    return SampleHistory.of("detection", digest_of(ann_file), classes, **columns, **found)


def test_the_history_of_a_training_tells_wrong_classes(run_dir, tmp_path, capsys):
    history_of(tmp_path / "train.json").save(run_dir / "sample_history.npz")
    assert audit(run_dir) == 0
    assert "losses of its training" in capsys.readouterr().out
    audited = Suspects.load(run_dir / "audit" / "suspects.json")
    [one] = [one for one in audited.found if one.kind == "class"]
    assert audited.method == "history" and one.annotation == 3 and one.probability > 0.9
    assert (one.label, one.proposed) == CLASSES
    # Annotations that changed since are refused, and can be audited by the model.
    change(tmp_path / "train.json", spoil)
    assert audit(run_dir) == 2
    assert "changed since this training" in capsys.readouterr().err
    assert audit(run_dir, "--method", "model") == 0
    history_of(tmp_path / "train.json", ("square", "rod")).save(run_dir / "sample_history.npz")
    assert audit(run_dir) == 2
    assert "classes square, rod" in capsys.readouterr().err
    # mmdet's data set knows no ids, so its history numbers the boxes.
    history_of(tmp_path / "train.json").save(run_dir / "sample_history.npz")
    config = run_dir / "config.py"
    config.write_text(config.read_text().replace('"negvision.CocoDataset"', '"CocoDataset"'))
    assert audit(run_dir) == 2
    assert "this history numbers the boxes itself" in capsys.readouterr().err


def test_missing_are_the_persistent_objects_and_what_the_model_finds_besides(run_dir, tmp_path):
    ann_file = tmp_path / "train.json"
    change(ann_file, lambda annotations: annotations.pop(0))
    image = json.loads(ann_file.read_text())["images"][1]
    found = {"found_image": [image["id"]] * 3, "found_epoch": [0, 1, 1], "found_class": [1, 1, 0]}
    found |= {"found_score": [0.6, 0.8, 0.2], "found_box": [[40, 40, 44, 44]] * 3}
    history_of(ann_file, **found).save(run_dir / "sample_history.npz")
    assert audit(run_dir) == 0
    rows = Suspects.load(run_dir / "audit" / "suspects.json").found
    rows = {one.image: one for one in rows if one.kind == "missing"}
    assert set(rows) == {"0.png", image["file_name"]}
    persistent, seen = rows[image["file_name"]], rows["0.png"]
    assert (persistent.bbox, persistent.proposed) == ((40, 40, 4, 4), "bar")
    assert persistent.probability == pytest.approx(0.7)
    assert seen.proposed == "square" and seen.probability == seen.score > 0.5


def test_a_training_that_records_its_history_is_audited_by_it(tiny_config, tmp_path, capsys):
    text = tiny_config.read_text().replace('"CocoDataset"', '"negvision.CocoDataset"')
    tiny_config.write_text(f"{text}\ncustom_hooks = [dict(type='negvision.SampleHistoryHook')]\n")
    assert command("train")(tiny_config, "--work-dir", tmp_path / "run") == 0
    assert audit(tmp_path / "run", "--method", "history") == 0
    assert "one model, and the losses of its training" in capsys.readouterr().out
    assert Suspects.load(tmp_path / "run" / "audit" / "suspects.json").method == "history"


def test_without_suspects_or_history_it_says_so(run_dir, capsys):
    assert audit(run_dir, "--method", "history") == 0
    text = capsys.readouterr().out
    assert "has no history of its training; audited by the model alone" in text
    assert "no suspects" in text
    assert Suspects.load(run_dir / "audit" / "suspects.json").found == []
    assert "No suspects" in (run_dir / "audit" / "audit.html").read_text()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--data", "nowhere.json"], "no such file or folder"),
        (["--folds", "2", "--method", "model"], "leave out --method"),
        (["--folds", "9"], "give 2 to 8"),
        (["--port", "80"], "add --review"),
        (["--folds", "1"], "is not an integer above 1"),
        (["--min-probability", "2"], "is not a number from 0 to 1"),
    ],
)
def test_wrong_options_are_refused_before_work(run_dir, options, message, capsys):
    assert audit(run_dir, *options) == 2
    assert message in capsys.readouterr().err
    assert not (run_dir / "audit" / "suspects.json").exists()


def test_a_model_of_other_classes_is_refused(run_dir, monkeypatch, capsys):
    monkeypatch.setattr(Knowing, "classes", ("square", "circle"))
    assert audit(run_dir) == 2
    error = capsys.readouterr().err
    assert "does not know the classes bar; it knows square, circle" in error


def test_damaged_decisions_are_refused(run_dir, capsys):
    (run_dir / "audit").mkdir()
    (run_dir / "audit" / "decisions.json").write_text('{"format": "negvision decisions 1"}')
    assert audit(run_dir) == 2
    assert "or damaged ('decisions')" in capsys.readouterr().err


def opened(run_dir, model=None):
    model = model or Knowing()
    cfg = Config.fromfile(run_dir / "config.py")
    leaf = find_leaf(cfg, None, run_dir, model.task)
    return cfg, leaf, open_data(leaf, "mmdet", model)


def test_each_image_is_judged_once_by_a_training_without_it(run_dir):
    cfg, leaf, data = opened(run_dir)
    trained = []

    def train(cfg):
        content = json.loads(Path(cfg.train_dataloader.dataset.ann_file).read_text())
        trained.append({one["id"] for one in content["images"]})
        assert {one["image_id"] for one in content["annotations"]} == trained[-1]

    held_out = []
    for _, places in audit_run.train_folds(cfg, data, leaf, 3, run_dir / "folds", train):
        assert {data.image_ids[place] for place in places} | trained[-1] == set(range(8))
        held_out += places.tolist()
    assert sorted(held_out) == list(range(8)) and len(trained) == 3


def test_review_shows_crops_and_writes_decisions(run_dir, tmp_path):
    change(tmp_path / "train.json", spoil)
    assert audit(run_dir) == 0
    *_, data = opened(run_dir)
    found = Suspects.load(run_dir / "audit" / "suspects.json").found
    path = tmp_path / "decisions.json"
    app = ReviewApp(found, Decisions.load(path), audit_command._reader(data))

    def ask(method, name, body=b"", kind=b"application/json"):
        sent = []

        async def receive():
            return {"type": "http.request", "body": body}

        async def send(message):
            sent.append(message)

        headers = [(b"content-type", kind)]
        scope = {"type": "http", "method": method, "path": name, "headers": headers}
        asyncio.run(app(scope, receive, send))
        return sent[0]["status"], sent[1]["body"]

    assert b"Accept (a)" in ask("GET", "/")[1]
    listing = json.loads(ask("GET", "/suspects")[1])
    assert [one["kind"] for one in listing] == [one.kind for one in found]
    status, crop = ask("GET", "/crop/0")
    assert status == 200 and crop[:2] == b"\xff\xd8"
    assert ask("POST", "/decide", b'{"number": 0, "decision": "reject"}')[0] == 200
    assert list(Decisions.load(path).of(found).values()) == ["reject"]
    assert json.loads(ask("GET", "/suspects")[1])[0]["decision"] == "reject"
    assert ask("POST", "/decide", b'{"number": 0, "decision": null}')[0] == 200
    assert Decisions.load(path).made == {}
    for body, status in ((b"", 400), (b'{"number": 99, "decision": null}', 400)):
        assert ask("POST", "/decide", body)[0] == status
    assert ask("POST", "/decide", b"{}", b"text/plain")[0] == 415
    assert ask("POST", "/decide", b'{"number": 0, "decision": "maybe"}')[0] == 400
    assert ask("GET", "/crop/99")[0] == ask("GET", "/other")[0] == 404


def test_a_folder_of_annotated_images(run_dir, coco_root, capsys):
    assert audit(run_dir, "--data", coco_root, "--out", run_dir / "of_folder") == 0
    audited = Suspects.load(run_dir / "of_folder" / "suspects.json")
    assert audited.ann_file == str(run_dir / "of_folder" / "data" / "train.json")
    assert audited.found == [] and "images  8" in capsys.readouterr().out


def leaf_of(kind, ann_file, prefix, **more):
    load = {"type": "negvision.LoadImageFromFile"}
    base = {"type": f"negvision.{kind}", "ann_file": str(ann_file), "data_prefix": prefix}
    return {**base, "pipeline": [load], **more}


def test_images_of_one_class_and_faces(coco_root, tmp_path):
    images = {"img": str(coco_root / "images")}
    (tmp_path / "list.txt").write_text("".join(f"{n}.png {n % 2}\n" for n in range(8)))
    metainfo = {"classes": ["even", "odd"]}
    leaf = leaf_of("ImageListDataset", tmp_path / "list.txt", images, metainfo=metainfo)
    # The model has its classes in another order, and one more.
    model = SimpleNamespace(task="classification", classes=("odd", "other", "even"))
    model.predict = lambda images: [Classification(np.array([0.2, 0.1, 0.7]))]
    data = open_data(leaf, "mmengine", model)
    data.predict(model, range(8))
    subject = data.subject()
    assert subject.labels.tolist() == [0, 1] * 4
    np.testing.assert_allclose(subject.probabilities, [[0.7, 0.2]] * 8)
    found = next(iter(subject.findings())).suspect(1)
    assert (found.image, found.label, found.proposed) == ("1.png", "odd", "even")

    leaf = leaf_of("FaceListDataset", tmp_path / "list.txt", images)
    model = SimpleNamespace(task="face", classes=())
    model.predict = lambda images: [Embedding(images[0].mean((0, 1)))]
    faces = open_data(leaf, "mmengine", model)
    faces.predict(model, range(8))
    assert faces.subject().classes == ("person 0", "person 1")
    assert faces.subject().embeddings.shape == (8, 3)
    # Test is val here, and what is trained on tells nothing.
    (tmp_path / "0.png").write_bytes((coco_root / "images" / "0.png").read_bytes())
    (tmp_path / "val.txt").write_text("0.png 0\n")
    other = {**leaf, "ann_file": str(tmp_path / "val.txt"), "data_prefix": {"img": str(tmp_path)}}
    loaders = {f"{split}_dataloader": {"dataset": other} for split in ("val", "test")}
    found = audit_command._other_splits(Config(loaders), None, faces)
    assert list(found) == ["val"] and len(found["val"][0]) == 1
    assert faces.split_findings(found, iter).scores.max() > 0.9
    loaders = {"val_dataloader": {"dataset": leaf}}
    assert audit_command._other_splits(Config(loaders), None, faces) == {}
    found = faces.split_findings({"val": [faces.dataset]}, iter)
    assert found.kind == "overlap" and (found.scores > 0.9).all()
    assert f"mean face to {coco_root / 'images'}" in found.suspect(1).reason
    with pytest.raises(ConfigError, match="embeddings of different trainings"):
        next(audit_run.train_folds(Config(), faces, leaf, 2, tmp_path, print))
    with pytest.raises(ConfigError, match="reads data sets of negvision"):
        open_data(leaf, "mmengine", Knowing())


class Segmentor(TorchModel):
    """Says of each pixel that it is of class 0 with the share of its blue."""

    def __init__(self):
        self.model = SimpleNamespace(test_step=lambda batch: batch["samples"])

    def batches(self, images, batch_size=1):
        blue = torch.from_numpy(images[0][..., 0] / 255.0)
        logits = torch.stack([blue, 1 - blue]).log()
        yield [{"samples": SimpleNamespace(seg_logits=SimpleNamespace(data=logits))}]


def test_regions_of_label_maps(tmp_path):
    for number in range(2):
        image, mask = np.full((32, 40, 3), 51, np.uint8), np.full((32, 40), 7, np.uint8)
        image[:, :12], mask[:, :12] = 204, 3 if number else 7  # in 0 the left is road by mistake
        for name, pixels in (("img", image), ("ann", mask)):
            (tmp_path / name).mkdir(exist_ok=True)
            cv2.imwrite(str(tmp_path / name / f"{number}.png"), pixels)
    (tmp_path / "classes.txt").write_text("3 sky\n7 road\n")
    prefix = {"img_path": str(tmp_path / "img"), "seg_map_path": str(tmp_path / "ann")}
    more = {"classes_file": str(tmp_path / "classes.txt"), "img_suffix": ".png"}
    leaf = leaf_of("SegDataset", "", prefix, **more)
    model = SimpleNamespace(task="segmentation", classes=("sky", "road"), _model=Segmentor())
    data = open_data(leaf, "mmseg", model)
    data.predict(model, range(2))
    [found] = data.subject().findings()
    assert [found.suspect(row).label for row in range(3)] == ["road", "sky", "road"]
    # The share of sky: 0.8 on the left, 0.2 elsewhere.
    np.testing.assert_allclose(found.scores, [0.38 - 0.62, 0.2 - 0.8, 0.2 - 0.8], atol=1e-4)
    assert [found.suspect(row).annotation for row in range(3)] == [0, 65536, 65537]


def test_images_that_another_split_holds_too(run_dir, coco_root, tmp_path):
    *_, data = opened(run_dir)
    twin = tmp_path / "twin.png"
    twin.write_bytes((coco_root / "images" / "5.png").read_bytes())
    (tmp_path / "test.txt").write_text("twin.png 0\n")
    leaf = leaf_of("FaceListDataset", tmp_path / "test.txt", {"img": str(tmp_path)})
    findings = data.split_findings({"test": [DATASETS.build(leaf)]}, iter)
    [one] = [
        findings.suspect(row) for row in range(len(findings.scores)) if findings.scores[row] == 1
    ]
    assert one.image == "5.png" and one.reason == f"is {twin} of test"
    assert len(data.split_findings({}, iter).scores) == 0
