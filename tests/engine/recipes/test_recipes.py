"""Training on a folder of images: what is chosen, what is written, and what comes out."""

import json
import os
import re
import signal
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import torchvision
from helpers import folders
from mmengine.config import Config
from mmengine.runner.checkpoint import get_torchvision_models

import negvision
from negvision.cli.main import main
from negvision.data.formats.folder import read_folder
from negvision.data.splits.content import complete_splits
from negvision.data.suspects import Suspect, Suspects
from negvision.engine.checkpoints.taking import load_weights
from negvision.engine.interruption import EXIT_INTERRUPTED, InterruptionHook
from negvision.engine.recipes import trial
from negvision.engine.recipes.models import MODELS
from negvision.engine.recipes.planning import TrainOptions, plan
from negvision.errors import ConfigError, UserError

SCRATCH = {
    "detection": "atss-r18",
    "segmentation": "deeplab-r18",
    "classification": "classifier-r20",
    "faces": "face-r18",
}


def _image(path, seed):
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(0, 255, (6, 8, 3), dtype=np.uint8)
    cv2.imwrite(str(path), cv2.resize(noise, (80, 60), interpolation=cv2.INTER_NEAREST))


def _boxes(root):
    """YOLO: twelve images of two classes, one of them without an object."""
    for number in range(12):
        _image(root / "images" / f"{number}.png", number)
        label = root / "labels" / f"{number}.txt"
        label.parent.mkdir(exist_ok=True)
        label.write_text(f"{number % 2} 0.5 0.5 0.4 0.4\n" if number else "")
    (root / "data.yaml").write_text("names: [cat, dog]\ntrain: images\n")


def _classes(root):
    for number in range(12):
        _image(root / ("cat", "dog")[number % 2] / f"{number}.png", number)


def _masks(root):
    for number in range(12):
        _image(root / "images" / f"{number}.png", number)
        mask = np.zeros((60, 80), np.uint8)
        mask[20:40, 20:50] = 255
        (root / "masks").mkdir(exist_ok=True)
        cv2.imwrite(str(root / "masks" / f"{number}.png"), mask)


def _people(root):
    for number in range(18):
        _image(root / f"person{number % 6}" / f"{number}.png", number)


FOLDERS = {
    "detection": _boxes,
    "segmentation": _masks,
    "classification": _classes,
    "faces": _people,
}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def make(task):
        FOLDERS[task](tmp_path / task)
        return tmp_path / task

    return make


@pytest.fixture
def planned(folder, tmp_path):
    data = complete_splits(read_folder(folder("detection")))

    def make(model="atss-r18", **options):
        return plan(data, tmp_path / "lists", TrainOptions(model=model, **options))

    return make


@pytest.mark.parametrize("task", FOLDERS)
def test_folder_of_each_task_trains_and_its_work_dir_alone_is_tested(task, folder, capsys):
    given = ["--task", "faces"] if task == "faces" else []
    arguments = [str(folder(task)), "--model", SCRATCH[task], "--iters", "1", "--batch", "4"]
    assert main(["train", *arguments, *given, "--work-dir", "out"]) == 0
    printed = capsys.readouterr().out
    for shown in (task, SCRATCH[task], "--imgsz", "config: out/config.py\n", "work dir  out\n"):
        assert shown in printed
    assert main(["test", "out"]) == 0
    printed = capsys.readouterr().out
    assert "test  " in printed and "config    in out/" in printed
    photo = next(Path(task).rglob("0.png"))
    if task == "classification":
        assert main(["export", "out", "--out", "a.onnx", "--legacy"]) == 0
        one, other = (negvision.load(model)(photo) for model in ("out", "a.onnx"))
        np.testing.assert_allclose(one.probs, other.probs, atol=1e-4)
        assert sorted(one.names) == ["cat", "dog"] and one.names == other.names
    elif task == "faces":
        assert negvision.load("out")(photo).embedding.shape == (128,)


def _coco(root):
    folders.pictures(root, "{split}/{name}.jpg")
    for split, names in folders.SPLITS.items():
        file = root / split / "_annotations.coco.json"
        folders.text(file, folders.coco_content(names, "{name}.jpg"))


ROW = "{split}/{name}.jpg,{label},{x},{y},{r},{b},{split}"


@pytest.mark.parametrize(
    "name, write, split",
    [
        ("YOLO", folders.yolo, True),
        ("COCO", _coco, True),
        ("Pascal VOC", folders.voc, True),
        ("CVAT for images", folders.cvat, False),
        ("Label Studio", folders.label_studio, False),
        ("LabelMe", folders.labelme, True),
        (
            "CSV of boxes",
            lambda root: folders.table(root, "image,class,x1,y1,x2,y2,split", ROW),
            True,
        ),
    ],
)
def test_folder_of_each_format_of_boxes_trains(name, write, split, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "pets")
    options = ["--model", "atss-r18", "--iters", "20", "--imgsz", "64"]
    assert main(["train", "pets", *options, "--work-dir", "out"]) == 0
    printed = capsys.readouterr().out
    assert f"pets: {name}, 2 classes: " in printed
    counts = re.findall(r"  (train|val|test) +(\d) images?, (\d) objects?", printed)
    if split:
        train = ("train", "3" if name != "CSV of boxes" else "2", "3")
        assert counts == [train, ("val", "1", "1"), ("test", "1", "1")]
    else:
        assert sum(int(images) for _, images, _ in counts) == 5
        assert sum(int(objects) for *_, objects in counts) == 5


def test_python_trains_loads_and_predicts_like_the_commands(folder, tmp_path):
    root = folder("detection")
    run = negvision.train(root, model="atss-r18", iters=40, batch=4, imgsz=64, lr=0.005)
    assert run.work_dir.name == "detection" and "coco/bbox_mAP" in run.metrics
    assert (run.work_dir / "predictions.png").is_file()
    model = negvision.load(run)
    photo = root / "images" / "3.png"
    one = model(photo)
    array = cv2.cvtColor(cv2.imread(str(photo)), cv2.COLOR_BGR2RGB)
    again, many = model(array), model(root / "images")
    assert len(one) and len(many) == 12 and model.classes == ("cat", "dog")
    np.testing.assert_array_equal(one.boxes, again.boxes)
    np.testing.assert_array_equal(one.boxes, many[[m.source for m in many].index(str(photo))].boxes)
    assert json.loads(one.to_json())[0]["name"] == one.names[0]
    assert one.plot().shape[2] == 3 and len(one.to_pandas()) == len(one)
    assert model([array[..., 0], np.dstack([array, array[..., :1]])])[0].image.shape == (60, 80, 3)
    [file] = run.work_dir.glob("best_*.pth")
    assert main(["predict", str(file), str(photo), "--out", str(tmp_path / "out")]) == 0
    config = (run.work_dir / "config.py").read_text()
    with pytest.raises(UserError, match="has checkpoints of a run"):
        negvision.train(root, model="atss-r18", iters=3)
    with pytest.raises(ConfigError, match="--iters 50: the run in 'work_dirs/detection' began --i"):
        negvision.train(root, model="atss-r18", iters=50, resume=True)
    for wrong, message in ((None, "a NoneType"), (b"jpg", "a bytes"), ("no.jpg", "no such file")):
        with pytest.raises(UserError, match=message):
            model(wrong)
    with pytest.raises(UserError, match="batch_size is 0"):
        model(photo, batch_size=0)
    with pytest.raises(UserError, match="nearest: 'score_threshold'"):
        negvision.load(run, score_treshold=0.3)
    with pytest.raises(UserError, match=r"'best.pth' does not exist"):
        negvision.load("best.pth")
    assert (run.work_dir / "config.py").read_text() == config


def test_each_run_of_a_process_keeps_its_own_curves(folder):
    root = folder("classification")
    for name in ("first", "second"):
        options = {"model": "classifier-r20", "iters": 1, "batch": 2}
        run = negvision.train(root, work_dir=name, **options)
        assert len(list(run.work_dir.glob("*/vis_data/scalars.json"))) == 1


def test_init_writes_the_config_that_train_takes(folder, capsys):
    root = folder("detection")
    assert main(["init", str(root), "--model", "atss-r18", "--work-dir", "out"]) == 0
    printed = capsys.readouterr().out
    assert "atss-r18" in printed and "train it: negvision train out/config.py\n" in printed
    assert main(["train", "out/config.py", "--cfg-options", "train_cfg.max_iters=1"]) == 0
    assert main(["init", str(root), "--skip-bad", "--work-dir", "bad"]) == 0
    assert "on_bad_sample='skip'" in Path("bad/config.py").read_text()


def test_config_that_somebody_changed_is_not_overwritten(folder, capsys):
    options = ["--model", "classifier-r20", "--iters", "1", "--batch", "2", "--work-dir", "out"]
    arguments = [str(folder("classification")), *options]
    assert main(["train", *arguments]) == 0
    for file in Path("out").glob("*.pth"):
        file.unlink()
    # What the run wrote is written anew, with other options too.
    config = Path("out/config.py")
    assert main(["init", *arguments, "--lr", "0.125"]) == 0
    config.write_text(edited := config.read_text().replace("0.125", "0.25"))
    capsys.readouterr()
    for command in ("init", "train"):
        assert main([command, *arguments]) == 2
        said = capsys.readouterr().err
        assert "it was changed, and would" in said and "`negvision train out/config.py`" in said
        assert config.read_text() == edited
    # Resuming goes on with it.
    assert main(["train", *arguments, "--lr", "0.125", "--resume", "auto"]) == 0
    assert "lr=0.25" in config.read_text()


def test_signal_in_a_run_on_a_folder_saves_it(folder, monkeypatch, capsys):
    in_order = InterruptionHook.after_train_iter

    def signaled(self, runner, batch_idx, data_batch=None, outputs=None):
        if runner.iter == 0:
            os.kill(os.getpid(), signal.SIGTERM)
        return in_order(self, runner, batch_idx, data_batch, outputs)

    monkeypatch.setattr(InterruptionHook, "after_train_iter", signaled)
    options = ["--model", "classifier-r20", "--iters", "2", "--batch", "2", "--work-dir", "out"]
    command = ["train", str(folder("classification")), *options]
    assert main(command) == EXIT_INTERRUPTED
    assert "run the same command with --resume" in capsys.readouterr().out
    assert main([*command, "--resume"]) == 0
    assert "trained for 2 of 2 iters" in capsys.readouterr().out


def test_background_images_stay_and_classes_come_from_the_annotations(planned):
    cfg = planned(iters=2).cfg
    assert cfg.model.bbox_head.num_classes == 2
    assert cfg.train_dataloader.dataset.filter_cfg == {"filter_empty_gt": False}
    flips = [step for step in cfg.train_dataloader.dataset.pipeline if "Flip" in step["type"]]
    assert flips == [{"type": "RandomFlip", "prob": 0.5}]


def test_negatives_and_suspects_reach_the_training(folder, capsys):
    root = folder("detection")
    for number in range(3):
        _image(Path("plain/deep") / f"{number}.png", 50 + number)
    options = ["--model", "atss-r18", "--iters", "2", "--batch", "4", "--imgsz", "64"]
    options = [str(root), *options, "--negatives", "plain", "--negative-share", "0.25"]
    assert main(["init", *options, "--work-dir", "first"]) == 0
    printed = capsys.readouterr().out
    assert "0.25 of each batch" in printed and "images without an object" in printed
    ann_file = Path("first/data/train.json")
    image = json.loads(ann_file.read_text())["images"][0]
    one = Suspect("missing", image["file_name"], image["id"], bbox=(1, 1, 9, 9), proposed="dog")
    Suspects.of([one], ann_file, ["cat", "dog"], "model").save("suspects.json")
    doubting = ["--suspects", "suspects.json", "--soft-negatives"]
    assert main(["train", *options, *doubting, "--history", "--work-dir", "second"]) == 0
    assert "1 missing" in capsys.readouterr().out
    cfg = Config.fromfile("second/config.py")
    assert cfg.train_dataloader.sampler.share == 0.25
    assert cfg.model.train_cfg.assigner.type == "negvision.IgnoringAssigner"
    assert [hook for hook in cfg.custom_hooks if hook["type"] == "negvision.SoftNegatives"]
    assert Path("second/sample_history.npz").is_file()
    # Without the negatives, the annotations are others.
    assert main(["train", *options[:-4], *doubting, "--work-dir", "third"]) == 2
    assert "run negvision audit on it again" in capsys.readouterr().err


def test_long_address_of_weights_does_not_widen_the_table(planned):
    weights = f"https://example.org/{'a' * 200}.pth"
    *lines, last = planned(weights=weights).table().splitlines()
    assert last.endswith(f"  {weights}  as given (--weights)") and max(map(len, lines)) < 120


def test_trainings_end_early_unless_patience_is_0(planned):
    [stop] = [hook for hook in planned().cfg.custom_hooks if "Stop" in hook["type"]]
    assert stop == {
        "type": "EarlyStoppingHook",
        "monitor": "coco/bbox_mAP",
        "rule": "greater",
        "min_delta": 0.0,
        "patience": 5,
    }
    made = planned(patience=2)
    assert made.cfg.custom_hooks[-1]["patience"] == 2
    assert "patience" in made.table() and "(--patience)" in made.table()
    made = planned(patience=0)
    assert not [hook for hook in made.cfg.custom_hooks if "Stop" in hook["type"]]
    assert "never ends early" in made.table()


def test_given_options_act(planned):
    cfg = planned(epochs=30, lr=0.5, imgsz=64, batch=2, flip="none", seed=7, freeze=1).cfg
    assert cfg.optim_wrapper.optimizer.lr == 0.5 and cfg.randomness.seed == 7
    assert cfg.train_dataloader.batch_size == 2 and cfg.model.backbone.frozen_stages == 1
    images = json.loads(Path(cfg.train_dataloader.dataset.ann_file).read_text())["images"]
    assert cfg.train_cfg.max_iters == 30 * (len(images) // 2)
    pipeline = cfg.train_dataloader.dataset.pipeline
    assert not [step for step in pipeline if "Flip" in step["type"]]
    assert [step["scale"] for step in pipeline if "scale" in step] == [(64, 64)]


def test_run_is_evaluated_ten_times_and_its_best_checkpoint_kept(planned):
    cfg = planned(iters=1000).cfg
    assert cfg.train_cfg.val_interval == 100
    assert cfg.default_hooks.checkpoint.save_best == "coco/bbox_mAP"


@pytest.mark.parametrize(
    "model, iters, falls",
    [("atss-r18", 400, 40), ("atss-lite0", 400, 280), ("atss-lite0", 599, 419),
     ("atss-lite0", 600, 50), ("atss-lite0", 1, 0)],
)  # fmt: skip
def test_learning_rate_of_short_trainings_from_lite0_falls_late(planned, model, iters, falls):
    cosine = planned(model=model, iters=iters).cfg.param_scheduler[-1]
    assert (cosine.type, cosine.begin, cosine.end) == ("CosineAnnealingLR", falls, iters)


def test_length_in_minutes_is_measured_in_steps(folder, monkeypatch, capsys):
    root = folder("detection")
    # A signal while it is measured ends the command: no state of it could be continued.
    monkeypatch.setattr(InterruptionHook, "before_train", lambda *_: pytest.fail("of the trial"))
    options = ["--model", "atss-r18", "--minutes", "1", "--imgsz", "64", "--work-dir", "out"]
    assert main(["init", str(root), *options]) == 0
    printed = capsys.readouterr().out
    assert "measured just now" in printed and "take 1 minutes" in printed
    assert main(["init", str(root), "--minutes", "0.0001", *options[:2], "--work-dir", "b"]) == 2


def test_batch_that_fits_is_measured(folder, monkeypatch, capsys):
    measured = trial._memory
    # What earlier tests of this process have used is free too.
    monkeypatch.setattr(trial, "_memory", lambda peak=False: measured(peak) if peak else 1)
    monkeypatch.setattr(trial, "_free_memory", lambda: 1e6)
    options = ["--model", "atss-r18", "--imgsz", "64", "--epochs", "2", "--batch", "auto"]
    assert main(["init", str(folder("detection")), *options, "--work-dir", "out"]) == 0
    printed = capsys.readouterr().out
    assert re.search(r"batch +2 +8 images need [0-9.]+ GB, 0.0 GB are free \(--batch\)", printed)
    assert re.search(r"length +10 iterations +2 epochs of 5", printed)
    assert "batch_size=2" in Path("out/config.py").read_text()
    assert {file.name for file in Path("out").iterdir()} == {"config.py", "data"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"model": "atss-r19"}, "nearest: 'atss-r18'"),
        ({"model": "deeplab-r18"}, "is for segmentation"),
        ({"iters": 3, "epochs": 2}, "both set the length"),
        ({"iters": 2.5}, "--iters 2.5: give an integer above 0"),
        ({"negative_share": 1}, "--negative-share 1: give a number above 0 and below 1"),
        ({"minutes": float("nan")}, "--minutes nan: give a number above 0"),
        ({"batch": True}, "--batch True"),
        ({"batch": "all"}, "--batch all: give an integer above 0, or .auto."),
        ({"imgsz": 100}, "--imgsz 100: give a multiple of 32"),
        ({"seed": -1}, "--seed -1"),
        ({"patience": -1}, "--patience -1: give 0 or a positive integer"),
        ({"flip": "up"}, "none or horizontal or any"),
        ({"freeze": 4, "model": "atss-r18"}, "ResNet has 3 stages"),
        ({"weights": "no.pth"}, "'no.pth' does not exist"),
    ],
)
def test_options_that_do_not_fit_are_refused(options, message, folder, tmp_path):
    data = complete_splits(read_folder(folder("detection")))
    with pytest.raises(UserError, match=message):
        plan(data, tmp_path, TrainOptions(**options))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["a.py", "--epochs", "3"], "--epochs is for a folder"),
        (["nowhere"], "does not exist"),
    ],
)
def test_what_train_cannot_use_is_one_block(arguments, message, capsys):
    assert main(["train", *arguments]) == 2
    assert message in capsys.readouterr().err


def test_every_model_is_listed_and_its_base_config_is_shipped(capsys):
    assert main(["models"]) == 0
    printed = capsys.readouterr().out
    assert all(name in printed for name in MODELS)


def test_unknown_option_of_python_names_the_nearest(folder):
    with pytest.raises(UserError, match="nearest: 'epochs'"):
        negvision.train(folder("detection"), epoch=3)


def test_data_without_a_split_of_its_own_is_split_the_same_each_time(folder):
    root = folder("detection")
    first, second = (complete_splits(read_folder(root)) for _ in range(2))
    assert first.splits == second.splits and set(first.splits) == {"train", "val"}
    assert replace(first, notes=None) == replace(second, notes=None)


@pytest.mark.parametrize("background", [0, 1])
def test_classes_keep_their_weights_by_name(background):
    model = torch.nn.Sequential()
    for name in ("fc_cls", "rpn_cls", "fc_reg"):
        model.add_module(name, torch.nn.Linear(2, 3 + background))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    rows = torch.arange(3.0 + background)
    file = {name: rows[:, None].repeat(1, 2) for name in before if "weight" in name}
    file |= {name: rows for name in before if "bias" in name}
    content = {"state_dict": file, "meta": {"dataset_meta": {"classes": ("dog", "cow", "cat")}}}
    loaded = load_weights(model, content, "a.pth", ("cat", "hen", "dog"))
    after = model.state_dict()
    kept = [0, 2, *[3] * background]
    assert after["fc_cls.bias"][kept].tolist() == [2, 0, *[3] * background]
    assert after["fc_cls.weight"][kept, 1].tolist() == [2, 0, *[3] * background]
    assert torch.equal(after["fc_cls.weight"][1], before["fc_cls.weight"][1])
    assert torch.equal(after["rpn_cls.bias"], rows) and torch.equal(after["fc_reg.bias"], rows)
    assert "classes by name: cat, dog; new: hen" in loaded.note
    load_weights(model, content, "a.pth", ("hen", "pig", "elk"))
    assert torch.equal(model.state_dict()["fc_cls.bias"], rows)


@pytest.mark.parametrize(
    ("layer", "old", "new", "row"),
    [
        # The four numbers of a box lie together, the classes of an anchor too.
        ("fc_reg", 3 * 4, 2 * 4, lambda label, number: 4 * label + number),
        ("retina_cls", 4 * 3, 4 * 2, lambda label, number: label + number * 3),
        ("conv_logits", 3, 2, lambda label, number: label),
    ],
)
def test_boxes_anchors_and_masks_of_a_class_stay_together(layer, old, new, row):
    model = torch.nn.Sequential()
    model.add_module(layer, torch.nn.Linear(2, new))
    before = model.state_dict()[f"{layer}.bias"].clone()
    file = {f"{layer}.bias": torch.arange(float(old)), f"{layer}.weight": torch.ones(old, 2)}
    # As MMDetection 2 names the classes.
    content = {"state_dict": file, "meta": {"CLASSES": ("dog", "cow", "cat")}}
    load_weights(model, content, "a.pth", ("hen", "cat")).require_parts()
    numbers, after = new // 2, model.state_dict()[f"{layer}.bias"]
    cat = [row(2, number) for number in range(numbers)]
    own = slice(numbers, None) if layer == "fc_reg" else slice(1, None, 2)
    assert after[own].tolist() == cat
    others = torch.ones(new, dtype=torch.bool)
    others[own] = False
    assert torch.equal(after[others], before[others])


def test_published_weights_are_taken_by_name_and_those_of_another_network_refused(
    folder, capsys, monkeypatch, tmp_path
):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    (tmp_path / "hub/checkpoints").mkdir(parents=True)
    urls = get_torchvision_models()
    for name in ("resnet50", "resnet101"):
        with torch.device("meta"):
            state = getattr(torchvision.models, name)().state_dict()
        # One number is stored for each weight.
        state = {key: torch.zeros(()).expand(value.shape) for key, value in state.items()}
        torch.save(state, tmp_path / "hub/checkpoints" / urls[name].rpartition("/")[2])
    arguments = ["init", str(folder("detection")), "--model", "atss-r50", "--work-dir", "out"]
    assert main([*arguments, "--weights", "torchvision://resnet101"]) == 2
    refused = capsys.readouterr().err
    assert "'torchvision://resnet101' are of another network" in refused
    assert "weights have no place in it" in refused and "left: layer3.6.conv1" in refused
    assert not Path("out/config.py").exists()
    assert main([*arguments, "--weights", "torchvision://resnet50"]) == 0
    cfg = Config.fromfile("out/config.py")
    assert cfg.load_from == "torchvision://resnet50" and cfg.model.backbone.init_cfg is None


def test_training_on_more_classes_starts_from_a_work_dir(folder, capsys):
    root = folder("classification")
    options = {"model": "classifier-r20", "iters": 1, "batch": 2}
    negvision.train(root, work_dir="first", **options)
    for number in range(4):
        _image(root / "ant" / f"{number}.png", number + 50)
    capsys.readouterr()
    run = negvision.train(root, work_dir="second", weights="first", **options)
    assert "classes by name: cat, dog; new: ant): all" in capsys.readouterr().out
    again = negvision.train(root, work_dir="second", resume=True)
    assert again == run and set(run.metrics) >= {"classification/accuracy"}
    assert all(type(value) is float and "/" in name for name, value in run.metrics.items())


def test_published_weights_of_faces_choose_their_network(folder, tmp_path):
    data = complete_splits(read_folder(folder("faces"), task="faces"))
    backbone = negvision.IResNet(depth=18, widths=(4, 8, 12, 16))
    neck = negvision.FaceEmbeddingNeck(in_channels=16, spatial_size=7, embedding_size=6)
    torch.save({**backbone.state_dict(), **neck.state_dict()}, tmp_path / "backbone.pth")
    weights = str(tmp_path / "backbone.pth")
    cfg = plan(data, tmp_path / "lists", TrainOptions(weights=weights)).cfg
    model = negvision.FaceRecognizer(**{k: v for k, v in cfg.model.items() if k != "type"})
    content = torch.load(weights, weights_only=True)
    assert load_weights(model, content, weights).missing == ("head.weight",)
    assert model.head.weight.shape == (cfg.model.head.num_classes, 6)
    for options, says in (({"imgsz": 64}, "takes 112 pixels"), ({"freeze": 5}, "has 4 stages")):
        with pytest.raises(ConfigError, match=says):
            plan(data, tmp_path / "lists", TrainOptions(weights=weights, **options))
    assert cfg.model.backbone.frozen_stages == 4  # few images of each person
    made = plan(data, tmp_path / "lists", TrainOptions(weights=weights, freeze=0, lr=0.1, epochs=3))
    assert (
        made.cfg.model.backbone.frozen_stages == -1 and made.cfg.optim_wrapper.optimizer.lr == 0.1
    )
    assert "images of a person (--batch)" in made.table()
