"""``negvision test CONFIG MODEL.onnx`` returns the metrics of the checkpoint."""

import json
import re
from pathlib import Path

import pytest
from helpers.commands import command
from mmengine.config import Config

evaluate = command("test")

ROOT = Path(__file__).parents[2]


@pytest.fixture
def digits_config(digits, tmp_path):
    """Function from the name of a quick start to a config that tests it on the small set."""

    def write(name: str) -> Path:
        cfg = Config.fromfile(ROOT / "configs/quickstart" / name, format_python_code=False)
        own = {"digits": {"train": 24, "val": 12, "test": 12, "test_ood": 6}}
        own["data_root"] = str(digits) + "/"
        loader = cfg.test_dataloader
        for dataset in loader.dataset.get("datasets", [loader.dataset]):
            dataset.update(own)
            if "split" in dataset:  # of pixels: the few test images show no unknown digit
                dataset.split = "test_ood"
        for evaluator in (cfg.test_evaluator, cfg.val_evaluator):
            if "ann_file" in evaluator:
                evaluator.ann_file = f"{digits}/annotations/{Path(evaluator.ann_file).name}"
        cfg.val_dataloader = loader
        if "visualizer" in cfg:
            cfg.visualizer.name = f"{tmp_path.name}_{name}"
        cfg.work_dir = str(tmp_path / "work")
        path = tmp_path / name
        cfg.dump(path)
        return path

    return write


def _metrics(work: Path) -> dict[str, float]:
    newest = max(work.glob("*/*.json"), key=lambda path: path.stat().st_mtime_ns)
    return json.loads(newest.read_text().splitlines()[-1])


@pytest.mark.parametrize(
    ("config", "name"),
    [
        ("abet_boxes.py", "abet"),
        ("abet_pixels.py", "pixels"),
        ("abet_images.py", "images"),
    ],
)
def test_metrics_are_those_of_the_checkpoint(
    digits_config, checkpoints, exported, tmp_path, config, name
):
    path = str(digits_config(config))
    work = tmp_path / "work"
    found = []
    for file in (checkpoints(name), exported(name)):
        assert evaluate([path, str(file), "--work-dir", str(work)]) == 0
        found.append(_metrics(work))
    wanted, own = found
    shared = {key for key in wanted if key in own and "time" not in key}
    assert {"ood/auroc", "ood/ap_out"} <= shared
    # Scores from logits are left out, because the file does not return any.
    assert "ood/msp/auroc" in wanted and "ood/msp/auroc" not in own
    # Rates at a threshold and counts change by full boxes, and one may be at a threshold.
    for key in shared:
        if "fpr" not in key and "num_" not in key and "_boxes_" not in key:
            assert own[key] == pytest.approx(wanted[key], abs=2e-3, nan_ok=True), key


def test_in_tiles_too_but_not_of_models_with_ood_scores(
    digits_config, checkpoints, exported, tmp_path, capsys
):
    path, work, found = str(digits_config("atss_digits.py")), tmp_path / "work", []
    for file in (checkpoints("atss"), exported("atss")):
        options = ["--work-dir", str(work), "--tiles", "100:20"]
        assert evaluate([path, str(file), *options]) == 0
        found.append({key: value for key, value in _metrics(work).items() if "coco" in key})
    assert found[0] == pytest.approx(found[1], abs=2e-3, nan_ok=True) and found[0]
    path = str(digits_config("abet_boxes.py"))
    assert evaluate([path, str(exported("abet")), "--tiles", "100:20"]) == 2
    assert "has OOD scores, which are evaluated on whole images" in capsys.readouterr().err


def test_threshold_marks_unknown_boxes(digits_config, exported, tmp_path, capsys):
    path = str(digits_config("abet_boxes.py"))
    out = tmp_path / "found.json"
    options = ["--work-dir", str(tmp_path / "work"), "--out", str(out), "--ood-threshold", "-0.5"]
    assert evaluate([path, str(exported("abet")), *options]) == 0
    assert re.search(r"^model +ExportedNetwork$", capsys.readouterr().out, re.MULTILINE)
    boxes = json.loads(out.read_text())
    assert {box["is_ood"] for box in boxes} == {True, False}
    assert all(box["is_ood"] == (box["ood_score"] > -0.5) for box in boxes)


def test_a_model_without_metadata_is_an_error(digits_config, tmp_path, capsys):
    (tmp_path / "bad.onnx").write_bytes(b"no model")
    assert evaluate([str(digits_config("abet_boxes.py")), str(tmp_path / "bad.onnx")]) == 2
    assert "cannot be opened by ONNX Runtime" in capsys.readouterr().err


@pytest.mark.slow
def test_int8_reports_its_losses(digits_config, checkpoints, digits, tmp_path, capsys):
    path = str(digits_config("abet_images.py"))  # the smallest model
    out = tmp_path / "int8.onnx"
    options = ["--out", str(out), "--precision", "int8", "--calibration", str(digits / "val")]
    arguments = [path, str(checkpoints("images")), *options, "--work-dir", str(tmp_path / "w")]
    assert command("export")(arguments) == 0
    printed = capsys.readouterr().out
    assert re.search(r"ood/auroc: [\d.]+ in fp32, [\d.]+ in int8, [+-][\d.]+", printed)
    assert out.exists()
