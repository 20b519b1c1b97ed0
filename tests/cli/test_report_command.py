"""From work dirs to a page about a detector, and errors on the way."""

import json
import re
import shutil
from html import unescape
from pathlib import Path

import pytest
import torch
from helpers.commands import command

from negvision.cli.main import main as negvision
from negvision.report import run_evaluation as evaluation

main = command("report")
train = command("train")
compare, run_test = command("compare"), command("test")

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def trained() -> list[Path]:
    """The work dir of the first test, shared with the others."""
    return []


@pytest.fixture
def work_dir(tiny_config, trained, tmp_path) -> Path:
    """A copy of a work dir whose model detects something."""
    if not trained:
        folder = tmp_path / "trained" / "tiny"
        options = ["train_cfg.max_epochs=16", "train_cfg.val_interval=8", "randomness.seed=0"]
        options += ["optim_wrapper.optimizer.type=AdamW", "optim_wrapper.optimizer.lr=0.003"]
        argv = [str(tiny_config), "--work-dir", str(folder), "--cfg-options", *options]
        assert train(*argv) == 0
        trained.append(folder)
    return Path(shutil.copytree(trained[0], tmp_path / "work" / "tiny"))


def files_of(folder: Path) -> dict[str, float]:
    return {str(file): file.stat().st_mtime for file in folder.rglob("*") if file.is_file()}


def text_of(page: Path) -> str:
    return unescape(re.sub(r"<style>.*?</style>|<[^>]+>", " ", page.read_text(), flags=re.DOTALL))


def test_page_of_a_detector_and_of_two(work_dir, tmp_path, capsys, monkeypatch):
    [scalars] = work_dir.glob("*/vis_data/scalars.json")
    evaluated = [json.loads(line) for line in scalars.read_text().splitlines()][-1]
    before = files_of(work_dir)
    assert main([str(work_dir)]) == 0
    assert "report.html" in capsys.readouterr().out
    after = files_of(work_dir)
    page = work_dir / "report.html"
    assert after.pop(str(page)) and after == before
    text = text_of(page)
    # The same checkpoint and images as at the end of training.
    shown = float(re.search(r"mAP\s+([\d.]+)\s", text)[1])
    assert shown > 0.01
    assert shown == pytest.approx(evaluated["coco/bbox_mAP"], abs=2e-3)
    assert "No config tiny.py below configs" in text
    assert re.search(r"The 8 worst of 8 images \(median loss \d", text)
    losses = [float(found) for found in re.findall(r"loss (\d+\.\d{3})\s", text)]
    assert len(losses) == 8 and losses == sorted(losses, reverse=True)
    assert page.read_text().count("data:image/jpeg") == 8
    assert "in 8 of 8 train images" in text
    assert "The config's test evaluator is not an OOD metric." in text
    meta = torch.load(work_dir / "epoch_16.pth", weights_only=False)["meta"]
    assert str(meta["git"]) in text or "not in the checkpoint" in text

    other = tmp_path / "other"
    shutil.copytree(work_dir, other)
    config = other / "tiny.py"
    config.write_text(config.read_text().replace("min_pos_iou=0,", "min_pos_iou=0.4,"))
    shutil.rmtree(next(other.glob("*/vis_data")))
    monkeypatch.chdir(tmp_path)
    assert negvision(["report", str(work_dir), str(other)]) == 0
    text = text_of(tmp_path / "report.html")
    assert "+model.train_cfg.assigner.min_pos_iou = 0.4" in text
    assert re.search(r"mAP\s+[\d.]+\s+[\d.]+\s+±0.000", text)
    # Fewer boxes have a positive.
    assert re.search(r"all\s+0\.000 ★\s+0\.250\s+\+0\.250", re.sub(r"\s+", " ", text))
    assert "other has no curves" in text


def test_one_file_is_enough(work_dir, tmp_path, capsys):
    """A checkpoint that was moved away from its run, and an exported model."""
    from negvision.engine.config.reading import load_config
    from negvision.export.formats import save, write_onnx
    from negvision.export.graphs.choice import graph_and_metadata
    from negvision.inference.weights import load_model

    assert main([str(work_dir)]) == 0
    moved = tmp_path / "moved"
    moved.mkdir()
    file = Path(shutil.copy(work_dir / "epoch_16.pth", moved / "tiny.pth"))
    cfg = load_config(file)
    model, meta = load_model(cfg, file)
    meta["score_threshold"] = {"value": 0.0625, "f1": 0.5}
    save(write_onnx(*graph_and_metadata(cfg, model, meta), 18, legacy=True), moved / "tiny.onnx")
    shown = []
    for name in ("tiny.pth", "tiny.onnx"):
        assert main([str(moved / name)]) == 0
        assert f"report  {moved / 'report.html'}" in capsys.readouterr().out
        text = text_of(moved / "report.html")
        assert "The config is the one stored in the model" in text and "has no curves" in text
        shown.append(float(re.search(r"mAP\s+([\d.]+)\s", text)[1]))
    expected = float(re.search(r"mAP\s+([\d.]+)\s", text_of(work_dir / "report.html"))[1])
    assert shown == pytest.approx([expected, expected], abs=2e-3) and expected > 0.01
    assert "ExportedNetwork cannot be trained" in text and "scores from 0.0625" in text
    assert command("test")(moved / "tiny.onnx", "--work-dir", tmp_path / "w") == 0
    (moved / "words.onnx").write_text("hello")
    for argv, message in (
        ([moved / "words.onnx"], "words.onnx: not an exported model: "),
        ([file, "--checkpoint", file], "is a model already"),
        ([moved / "tiny.txt"], "is neither a work dir nor a model"),
    ):
        assert main(list(map(str, argv))) == 2
        assert message in capsys.readouterr().err


def test_test_set_without_annotations_and_missing_train_set(work_dir, tmp_path):
    config = work_dir / "tiny.py"
    text = config.read_text()
    head, mark, test = text.partition("test_dataloader = dict(")
    test = re.sub(r"dict\(type='LoadAnnotations', with_bbox=True\),", "", test, count=1)
    config.write_text(head + mark + test)
    options = ["--cfg-options", "train_dataloader.dataset.ann_file=gone.json"]
    out = tmp_path / "page.html"
    assert main([str(work_dir), "--out", str(out), *options]) == 0
    text = text_of(out)
    assert "There are no losses of single images: the test pipeline loads no annotations" in text
    assert "The train set is missing" in text
    assert re.search(r"mAP\s+[\d.]+\s", text)


def test_out_is_checked_before_anything_is_evaluated(work_dir, tmp_path, capsys, monkeypatch):
    def evaluated(*args, **kwargs):
        raise AssertionError("it was evaluated")

    monkeypatch.setattr(evaluation, "build_runner", evaluated)
    (tmp_path / "folder.html").mkdir()
    (tmp_path / "file").write_text("")
    for out, message in (
        ("page.pdf", "the page is written as .html"),
        ("folder.html", "cannot be written: choose another file"),
        ("file/page.html", "cannot be written"),
    ):
        assert main([str(work_dir), "--out", str(tmp_path / out)]) == 2
        assert message in capsys.readouterr().err
    assert not list(tmp_path.glob("*.partial"))


def test_invalid_work_dirs_are_reported(work_dir, tmp_path, capsys):
    for argv, message in (
        ([str(tmp_path / "gone")], "is neither a work dir nor a model"),
        ([str(work_dir.parent)], "and no checkpoint; did you mean"),
        ([str(work_dir), str(work_dir)], "given twice"),
        ([str(work_dir), str(tmp_path), "--checkpoint", "x.pth"], "needs a single work dir"),
        ([str(work_dir), "--checkpoint", "x.pth"], "the file does not exist"),
    ):
        assert main(argv) == 2
        assert message in capsys.readouterr().err
    damaged = tmp_path / "damaged.pth"
    damaged.write_bytes((work_dir / "epoch_16.pth").read_bytes()[:5000])
    assert main([str(work_dir), "--checkpoint", str(damaged)]) == 2
    assert "cannot be read" in capsys.readouterr().err
    (work_dir / "tiny.py").write_text("model = dict(\n")
    assert main([str(work_dir)]) == 2
    assert "SyntaxError" in capsys.readouterr().err
    for file in work_dir.glob("*.pth"):
        file.unlink()
    (work_dir / "last_checkpoint").unlink()
    assert main([str(work_dir)]) == 2
    assert "no checkpoint" in capsys.readouterr().err
    assert not (work_dir / "report.html").exists()


def test_a_run_is_compared_with_its_own_results(work_dir, tmp_path, capsys):
    results, page = tmp_path / "results.json", tmp_path / "compare.html"
    assert run_test(work_dir, "--out", results, "--work-dir", tmp_path / "test") == 0
    before = files_of(work_dir)
    capsys.readouterr()
    assert compare(work_dir, results, "--resamples", 20, "--out", page) == 0
    printed = capsys.readouterr().out
    assert "8 images, 20 resamples" in printed and "there is none at all" in printed
    assert files_of(work_dir) == before
    assert "0 better and 0 worse of 8 images" in page.read_text()
    # Certain of every box, the detector makes more errors, and the photos show them.
    certain = [{**one, "score": 0.99} for one in json.loads(results.read_text())]
    results.write_text(json.dumps(certain))
    assert compare(work_dir, results, "--resamples", 20, "--out", page) == 0
    assert page.read_text().count("data:image/jpeg") == 16
