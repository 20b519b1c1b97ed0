"""Training, resuming and testing, from the command line to the files they leave."""

import json
import os
from pathlib import Path

import pytest
import torch
from helpers.commands import command

from negvision.engine.config.reading import load_config
from negvision.inference.weights import build_model

run_test = command("test")
run_train = command("train")
run_predict = command("predict")

ROOT = Path(__file__).parents[2]


def test_training_in_tiles_carries_over_to_tests_and_predictions(
    tiny_config, coco_root, tmp_path, capsys
):
    """Images of 64 pixels: four tiles of 40; the checkpoint knows them."""
    work, kind = tmp_path / "run", "train_dataloader.dataset."
    argv = [tiny_config, "--work-dir", work, "--tiles"]
    assert run_train(*argv, "40:0.2") == 2
    assert "needs training sets of negvision.CocoDataset" in capsys.readouterr().err
    argv += ["40:10", "--cfg-options", f"{kind}type=negvision.CocoDataset"]
    assert run_train(*argv, f"{kind}pipeline.0.type=negvision.LoadImageFromFile") == 0
    assert "val  after 1 epochs" in capsys.readouterr().out
    found = {}
    for tiles in ((), ("--tiles", "40:10"), ("--tiles", "none")):
        out = tmp_path / f"{len(found)}.json"
        assert run_test(work, "--work-dir", tmp_path / "t", "--out", out, *tiles) == 0
        found[tiles] = json.loads(out.read_text())
    assert found[()] == found["--tiles", "40:10"] != found["--tiles", "none"]
    assert run_predict(work, coco_root / "images", "--out", tmp_path / "p") == 0
    predicted = json.loads((tmp_path / "p" / "predictions.json").read_text())
    scores = [sorted(d["score"] for d in some) for some in (predicted, found[()])]
    assert scores[0] == pytest.approx(scores[1], rel=1e-3)


def test_train_resume_and_test(tiny_config, tmp_path, capsys):
    work = tmp_path / "run"
    assert run_train(tiny_config, "--work-dir", work) == 0
    first = capsys.readouterr().out
    lines = [line for line in first.splitlines() if line.startswith("epoch 1/1  iter")]
    assert len(lines) == 2, first
    for word in ("loss ", "cls ", "lr ", "eta ", "mem "):
        assert word in lines[-1]
    assert "RetinaNet" in first and "8 images, 2 per batch" in first
    assert "1 epochs of 4 iterations" in first
    assert "Average Precision" in first and "val  after 1 epochs, 4 iterations  bbox_mAP" in first
    assert "data_time" not in first and "warning:" not in first
    # The wall of start-up lines is in the log file, not on the console.
    (log,) = work.glob("*/*.log")
    for detail in ("System environment", "Config:", "Hooks will be executed"):
        assert detail in log.read_text()
        assert detail not in first
    assert "loading annotations" not in first and "Running per image" not in first
    assert len(first.splitlines()) < 60
    (scalars,) = work.glob("*/vis_data/scalars.json")
    entries = [json.loads(line) for line in scalars.read_text().splitlines()]
    assert entries[0]["loss"] > 0 and entries[0]["memory"] > 0
    assert any("coco/bbox_mAP" in entry for entry in entries)
    assert list(work.glob("*/vis_data/events.out.tfevents.*"))

    options = ["--cfg-options", "train_cfg.max_epochs=2"]
    assert run_train(tiny_config, "--work-dir", work, "--resume", *options) == 0
    second = capsys.readouterr().out
    assert "epoch 2/2  iter 4/4" in second and "epoch 1/2" not in second
    saved = torch.load(work / "epoch_2.pth", weights_only=False)
    assert (saved["meta"]["epoch"], saved["meta"]["iter"]) == (2, 8)

    results = tmp_path / "detections.json"
    drawn = tmp_path / "drawn"
    checkpoint = work / "epoch_2.pth"
    argv = [tiny_config, checkpoint, "--work-dir", tmp_path / "t"]
    options = ["--cfg-options", f"test_evaluator.outfile_prefix={tmp_path / 'metric'}"]
    assert run_test(*argv, "--out", results, "--drawings", drawn, *options) == 0
    printed = capsys.readouterr().out
    assert "Average Precision" in printed
    assert "Loads checkpoint" not in printed and "warning:" not in printed
    # The same detections as the metric evaluates.
    files = (results, tmp_path / "metric.bbox.json")
    key = lambda d: (d["image_id"], d["category_id"], -d["score"], d["bbox"])  # noqa: E731
    detections, evaluated = (sorted(json.loads(f.read_text()), key=key) for f in files)
    assert detections == evaluated
    assert {d["image_id"] for d in detections} == set(range(8))
    assert {d["category_id"] for d in detections} <= {3, 7}
    assert len(list(drawn.glob("*.png"))) == 8


class Payload:
    """Its pickle makes a folder when it is loaded."""

    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return os.mkdir, (str(self.target),)


def test_checkpoint_with_a_payload(tiny_config, tmp_path, capsys):
    made, path = tmp_path / "made", tmp_path / "bad.pth"
    torch.save({"state_dict": {}, "extra": Payload(made)}, path)
    work = ["--work-dir", tmp_path / "w"]
    for run, argv in ((run_train, ["--resume", path]), (run_test, [path])):
        assert run(tiny_config, *argv, *work) == 2
        assert "--trust-checkpoint" in capsys.readouterr().err
        assert not made.exists()
    assert run_test(tiny_config, path, *work, "--trust-checkpoint") == 2
    assert made.exists()
    assert "bad.pth' holds no weights" in capsys.readouterr().err


def test_results_need_all_weights(tiny_config, coco_root, tmp_path, capsys):
    """No command makes results of weights that were not loaded; a training shows what it took."""
    state = build_model(load_config(tiny_config)).state_dict()
    parts = {name: value for name, value in state.items() if not name.startswith("bbox_head")}
    path, rest = tmp_path / "a.pth", ["--work-dir", tmp_path / "w"]
    commands = {
        "test": [tiny_config, path, *rest],
        "calibrate-ood": [tiny_config, path, *rest],
        "export": [tiny_config, path, "--out", tmp_path / "a.onnx"],
        "predict": [tiny_config, path, coco_root / "images", "--out", tmp_path / "out"],
        "benchmark": [tiny_config, "--checkpoint", path],
        "train": [tiny_config, *rest, "--cfg-options", f"load_from={path}"],
    }
    capsys.readouterr()
    for content, says in (
        ({f"trunk.{name}": value for name, value in parts.items()} | {"fc.w": torch.ones(2)},
         "none of its weights fit the model"),
        (parts, "whose results would be random"),
        ({"model": {**state, "bbox_head.retina_cls.bias": torch.ones(5)}},
         "bbox_head.retina_cls.bias (5,) in the file, (2,) in the model"),
    ):  # fmt: skip
        torch.save(content, path)
        for name in commands if "none" in says else list(commands)[:-1]:
            assert command(name)(commands[name]) == 2, name
            printed = capsys.readouterr()
            assert says in printed.err and "Average Precision" not in printed.out
    assert not list(tmp_path.glob("*.onnx")) and not list(tmp_path.glob("w/*.pth"))
    assert command("train")(commands["train"]) == 0
    table = capsys.readouterr().out.partition(f"weights of the model from {path}")[2]
    assert "bbox_head " in table and "retina_cls.bias (5,) in the file" in table


def test_training_by_iterations_with_a_bar(tiny_config, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = tiny_config.read_text().replace(
        'type="EpochBasedTrainLoop", max_epochs=1, val_interval=1',
        'type="IterBasedTrainLoop", max_iters=6, val_interval=3',
    )
    text = text.replace("interval=2)", "interval=2, bar=True, log_metric_by_epoch=False)").replace(
        'type="DefaultSampler", shuffle=True', 'type="InfiniteSampler", shuffle=True'
    )
    text += (
        'log_processor = dict(type="LogProcessor", by_epoch=False)\n'
        'default_hooks["checkpoint"] = dict(type="CheckpointHook", by_epoch=False, interval=6)\n'
    )
    tiny_config.write_text(text)
    assert run_train(tiny_config) == 0
    printed = capsys.readouterr().out
    # What a terminal shows of a line is what follows its last return to the line's start.
    shown = [line.rpartition("\r")[2] for line in printed.split("\n")]
    lines = [line for line in shown if line.startswith("iter ")]
    assert [line.split()[1] for line in lines] == ["2/6", "4/6", "6/6"]
    assert "6 iterations" in printed and "val  after 3 iterations" in printed
    assert "\rtrain: " in printed and "\rval: " in printed
    assert not any("%|" in line for line in shown)
    assert (tmp_path / "work_dirs" / "tiny" / "iter_6.pth").is_file()


def test_data_root_moves_every_dataset(tiny_config, coco_root, tmp_path, capsys):
    broken = tmp_path / "moved.py"
    broken.write_text(tiny_config.read_text().replace(str(coco_root), "nowhere/coco"))
    assert run_train(broken, "--work-dir", tmp_path / "a") == 2
    message = capsys.readouterr().err
    assert "nowhere/coco/annotations/all.json does not exist" in message
    assert "--data-root" in message and "make quickstart" in message
    assert "Traceback" not in message
    assert run_train(broken, "--work-dir", tmp_path / "b", "--data-root", coco_root) == 0


def test_an_evaluator_of_other_images_is_refused(tiny_config, coco_root, tmp_path, capsys):
    truth = json.loads((coco_root / "annotations" / "all.json").read_text())
    for image in truth["images"]:
        image["file_name"] = f"other_{image['file_name']}"
    (tmp_path / "other.json").write_text(json.dumps(truth))
    options = ["--cfg-options", f"val_evaluator.ann_file={tmp_path / 'other.json'}"]
    work = tmp_path / "w"
    assert run_train(tiny_config, "--work-dir", work, *options) == 2
    printed = capsys.readouterr()
    assert "8 x image of another name in the file" in printed.err and "iter 2/4" not in printed.out
    assert not list(work.glob("*.pth"))


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        (["--resume"], "Train without --resume, name a file"),
        (["--resume", "{tmp}/a.safetensors"], "--cfg-options load_from="),
        (["--work-dir", "{tmp}/a.safetensors"], "cannot be written"),
        (["--resume", "nothing.pth"], "nothing.pth: there is no such file"),
        (["--cfg-options", "model.bakbone.depth=50"], "nearest: 'backbone'"),
        (["--cfg-options", "load_from=pip://no-such-weights"], "  pip install no-such-weights\n"),
        (["--cfg-options", "data_root=/x"], "dataset.data_root, which is"),
        (["--cfg-options", "train_cfg.max_epochs=two"], "is the text 'two'"),
        (["--cfg-options", "train_dataloader=None"], "no train set: train_dataloader is None"),
        (["--cfg-options", "model.bbox_head.num_classes=80"], "2 classes: square, bar. Set num"),
        (["--cfg-options", "train_dataloader.dataset.metainfo.classes=square"], "is the text"),
        (
            ["--cfg-options", "train_dataloader.dataset.metainfo.classes=(cat,dog)"],
            "none of the categories",
        ),
        (
            ["--cfg-options", "custom_hooks=[dict(type='EarlyStoppingHook',monitor='bbox_mAP')]"],
            "monitor of EarlyStoppingHook is 'bbox_mAP', which the evaluation does not return",
        ),
        (["--compile", "--checkpoint-activations"], "cannot be combined"),
        (["--checkpoint-activations", "bakbone"], "nearest: 'backbone'"),
        (["--launcher", "slurm"], "needs a CUDA device"),
        (["--launcher", "pytorch"], "torchrun"),
    ],
)
def test_wrong_arguments_of_train(tiny_config, tmp_path, capsys, monkeypatch, argv, expected):
    if "--launcher" in argv and torch.cuda.is_available():
        pytest.skip("about machines without a GPU")
    for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "a.safetensors").touch()
    argv = [word.format(tmp=tmp_path) for word in argv]
    assert run_train(tiny_config, "--work-dir", tmp_path / "w", *argv) == 2
    assert expected in capsys.readouterr().err


def test_wrong_arguments_of_test(tiny_config, tmp_path, capsys):
    file = tmp_path / "x.pth"
    file.touch()
    for argv, message in (
        ([tmp_path / "none.pth"], "does not exist"),
        ([file, "--out", "results.pkl"], "is not FILE.json"),
        ([file, "--cfg-options", "test_dataloader=None"], "no test set: test_dataloader is None"),
    ):
        assert run_test(tiny_config, *argv) == 2
        assert message in capsys.readouterr().err


def test_training_options(tiny_config, tmp_path):
    options = ["--amp", "bf16", "--accumulate", "2", "--sync-bn", "--ema", "0.01"]
    options += ["--checkpoint-activations", "backbone.layer2", "neck", "--auto-scale-lr"]
    # One key switches the evaluation off; without workers none persist.
    options += ["--cfg-options", "val_dataloader=None", "train_dataloader.persistent_workers=True"]
    work = tmp_path / "run"
    assert run_train(tiny_config, "--work-dir", work, *options) == 0
    (log,) = work.glob("*/*.log")
    text = log.read_text()
    assert "['backbone.layer2', 'neck']" in text and "EMAHook" in text
    (scalars,) = work.glob("*/vis_data/scalars.json")
    rates = [json.loads(line).get("lr") for line in scalars.read_text().splitlines()]
    assert [rate for rate in rates if rate][-1] == pytest.approx(0.01 * 2 * 2 / 4)
    assert "ema_state_dict" in torch.load(work / "epoch_1.pth", weights_only=False)
