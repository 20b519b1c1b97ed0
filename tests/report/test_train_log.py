"""Reading logs of training, including resumed and interrupted runs."""

import json
import os

import pytest

from negvision.report.train_log import LogError, read_train_log


def training(step, epoch=1, loss=1.0, **more):
    return {"lr": 0.1, "loss": loss, "loss_cls": loss / 2, "epoch": epoch, "iter": step} | {
        "step": step,
        **more,
    }


def evaluation(step, value):
    return {"coco/bbox_mAP": value, "coco/bbox_mAP_50": value * 2, "step": step, "time": 0.1}


def write(folder, entries, time=None, config=""):
    folder = folder / "vis_data"
    folder.mkdir(parents=True)
    file = folder / "scalars.json"
    file.write_text("\n".join(json.dumps(entry) for entry in entries))
    (folder / "config.py").write_text(config)
    if time is not None:
        os.utime(file, (time, time))
    return file


def test_epochs_are_converted_to_iterations(tmp_path):
    # Lines each 10 iterations of an epoch of 25; the rest of an epoch is not logged.
    entries = []
    for epoch in (1, 2, 3):
        start = 25 * (epoch - 1)
        entries += [training(start + 10, epoch, 4 - epoch), training(start + 20, epoch, 3 - epoch)]
        entries.append(evaluation(epoch, 0.1 * epoch))
    log = read_train_log(write(tmp_path, entries))
    assert log.train["loss"] == ([10, 20, 35, 45, 60, 70], [3, 2, 2, 1, 1, 0])
    assert log.train["loss_cls"][1][0] == 1.5 and "epoch" not in log.train
    steps, values = log.evaluations["coco/bbox_mAP"]
    assert steps == [25, 50, 75] and values == pytest.approx([0.1, 0.2, 0.3])
    assert "time" not in log.evaluations


@pytest.mark.parametrize(
    ("entries", "steps"),
    [
        ([training(5), evaluation(6, 0.2), training(10), evaluation(12, 0.3)], [6, 12]),
        ([training(10), training(20), evaluation(1, 0.2)], [20]),
    ],
)
def test_evaluations_by_iterations_and_after_a_single_epoch(tmp_path, entries, steps):
    log = read_train_log(write(tmp_path, entries))
    assert log.evaluations["coco/bbox_mAP"][0] == steps


def test_folder_gives_its_newest_run(tmp_path):
    write(tmp_path / "1", [training(1, loss=5.0)], time=100)
    newest = write(tmp_path / "2", [training(1, loss=6.0)], time=200)
    (tmp_path / "3" / "vis_data").mkdir(parents=True)
    (tmp_path / "3" / "vis_data" / "scalars.json").write_text("")
    log = read_train_log(tmp_path)
    assert log.train["loss"] == ([1], [6.0]) and log.files == [newest]
    # A killed run may leave an incomplete line.
    newest.write_text(newest.read_text() + '\n{"loss": 1.')
    assert read_train_log(newest).train["loss"] == ([1], [6.0])
    assert log.name == tmp_path.name


def test_resumed_run_continues_at_its_checkpoint(tmp_path):
    first = [training(10, loss=9.0), evaluation(10, 0.1), training(20, loss=8.0)]
    first += [evaluation(20, 0.2), training(30, loss=7.0)]
    old = write(tmp_path / "1", first, time=100)
    # A test run in between leaves a log without training.
    write(tmp_path / "2", [evaluation(0, 0.5)], time=150, config="resume = False")
    new = write(tmp_path / "3", [training(30, loss=1.0)], time=200, config="resume = True\n")
    log = read_train_log(tmp_path)
    assert log.files == [old, new]
    assert log.train["loss"] == ([10, 20, 30], [9.0, 8.0, 1.0])
    assert log.evaluations["coco/bbox_mAP"] == ([10, 20], [0.1, 0.2])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty: the run has not logged anything yet"),
        ("\n \n", "is empty"),
        ("not json\n{}\n", "scalars.json:1 is not JSON"),
        ('{"loss": 1, "step": 1}\n{oops\n{}', "scalars.json:2 is not JSON"),
        ("[1, 2]", "not a JSON object"),
        ('{"coco/bbox_mAP": 0.5, "step": 0}', "no line has a loss"),
    ],
)
def test_invalid_logs_are_reported(tmp_path, text, message):
    file = tmp_path / "scalars.json"
    file.write_text(text)
    with pytest.raises(LogError, match=message):
        read_train_log(file)
    with pytest.raises(LogError, match="does not exist; name a work dir"):
        read_train_log(tmp_path / "nothing")
