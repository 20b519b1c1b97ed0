"""The sheets that hooks draw in the work dir of a run."""

import cv2
import pytest
import torch
from helpers.gloo import run_on_ranks
from helpers.sheet_on_ranks import draw_sheet

from negvision.detection.assignment_view import AssignmentSheetHook
from negvision.detection.prediction_hooks import PredictionSheetHook
from negvision.engine.runner import Runner

HOOKS = [
    {"type": "negvision.AssignmentSheetHook", "num_images": 4, "tile_size": 160},
    {
        "type": "negvision.PredictionSheetHook",
        "num_images": 5,
        "columns": 3,
        "score_thr": 0.0,
        "tile_size": 192,
    },
]


def trained(cfg):
    runner = Runner.from_cfg(cfg)
    runner.train()
    return runner


def test_training_draws_both_sheets_and_logs_one_line_each(
    tiny_detector, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    cfg = tiny_detector(hooks=HOOKS)
    trained(cfg)
    printed = capsys.readouterr().out
    # Two validations, one line.
    assert printed.count("predictions  work/predictions.png\n") == 1
    assert printed.count("assignments  work/assignments.png\n") == 1
    assert printed.index("assignments  ") < printed.index("iter 1/2")
    assert printed.index("val  after 2 iterations") < printed.index("predictions  ")
    predictions = cv2.imread(str(tmp_path / "work" / "predictions.png"))
    # Three columns and two rows of 192 pixels, with captions and margins.
    assert 3 * 192 < predictions.shape[1] < 4 * 192
    assert 2 * 192 < predictions.shape[0] < 3 * 192
    assignments = cv2.imread(str(tmp_path / "work" / "assignments.png"))
    assert assignments.shape[1] > 4 * 160


def test_hooks_do_not_change_the_training(tiny_detector, tmp_path):
    states = []
    for hooks in (HOOKS, []):
        cfg = tiny_detector(hooks=hooks)
        cfg.work_dir = str(tmp_path / str(len(hooks)))
        cfg.experiment_name += str(len(hooks))
        states.append(trained(cfg).model.state_dict())
    with_hooks, without = states
    assert (tmp_path / "2" / "predictions.png").exists()
    assert not (tmp_path / "0" / "predictions.png").exists()
    for name, value in without.items():
        assert torch.equal(value, with_hooks[name]), name


def test_truth_is_drawn_on_the_original_image(tiny_detector, monkeypatch):
    """The test pipeline resizes boxes to 160 pixels; the original image has 192."""
    drawn = []
    monkeypatch.setattr(
        "negvision.detection.prediction_hooks.draw_predictions",
        lambda image, *args, **options: drawn.append((image.shape, args, options)) or image,
    )
    cfg = tiny_detector(hooks=HOOKS[1:])
    runner = Runner.from_cfg(cfg)
    runner.val()
    dataset = runner.val_dataloader.dataset
    assert len(drawn) == 5
    indices = [0, 2, 5, 8, 11]
    for index, (shape, arguments, options) in zip(indices, drawn, strict=True):
        boxes, labels, scores, classes = arguments
        truth, ignored = options["truth"], options["ignored"]
        instances = dataset.get_data_info(index)["instances"]
        assert truth == [item["bbox"] for item in instances if not item["ignore_flag"]]
        assert ignored == [item["bbox"] for item in instances if item["ignore_flag"]]
        assert shape == (192, 192, 3) and classes[0] == "zero"
        assert len(boxes) == len(labels) == len(scores) <= 10


def test_model_without_an_assigner_trains_with_a_warning(tiny_detector, tmp_path, capsys):
    trained(tiny_detector("FCOSHead", hooks=HOOKS))
    printed = capsys.readouterr().out
    assert "warning: assignments.png is not drawn: model FCOS has no head with an assi" in printed
    assert "iter 2/2" in printed and (tmp_path / "work" / "predictions.png").is_file()
    assert not (tmp_path / "work" / "assignments.png").exists()


@pytest.mark.parametrize(
    ("hook", "arguments", "message"),
    [
        (PredictionSheetHook, {"num_images": 0}, "num_images must be at least 1, got 0"),
        (PredictionSheetHook, {"score_thr": 30}, "score_thr must be from 0 to 1, got 30"),
        (AssignmentSheetHook, {"columns": -1}, "columns must be at least 1, got -1"),
    ],
)
def test_wrong_arguments(hook, arguments, message):
    with pytest.raises(ValueError, match=message):
        hook(**arguments)


@pytest.mark.slow
def test_sheet_has_the_images_of_all_ranks(tmp_path):
    run_on_ranks(draw_sheet, 2, tmp_path, tmp_path)
    sheet = cv2.imread(str(tmp_path / "predictions.png"))
    for index in range(5):
        assert (sheet == 40 * index).all(-1).sum() >= 60 * 60
