"""From logs to a plot and a table."""

import json

import cv2
import pytest
from helpers.commands import command

main = command("analyze-logs")


def write_log(folder, values=(0.1, 0.4, 0.3), scale=1.0):
    folder.mkdir(parents=True, exist_ok=True)
    lines = []
    for index, value in enumerate(values, 1):
        step = 10 * index
        loss = scale / index
        lines.append({"loss": loss, "loss_cls": loss / 3, "iter": step, "step": step})
        metrics = {"coco/bbox_mAP": value, "coco/bbox_mAP_50": 2 * value, "coco/bbox_mAP_s": -1}
        lines.append({**metrics, "coco/bbox_mAP/cat": value, "step": step})
    (folder / "scalars.json").write_text("\n".join(map(json.dumps, lines)))
    return folder


def test_one_run(tmp_path, capsys):
    log = write_log(tmp_path / "run")
    assert main([str(log)]) == 0
    printed = capsys.readouterr().out
    row = printed.splitlines()[1].split()
    assert row == ["run", "30", "0.3333", "bbox_mAP", "0.3000", "0.4000", "20"]
    picture = cv2.imread(str(log / "curves.png"))
    assert picture.shape[0] > 300 and picture.std() > 5
    assert f"curves  {log / 'curves.png'}" in printed


def test_runs_are_overlaid(tmp_path, capsys, monkeypatch):
    from matplotlib.axes import Axes

    drawn = []
    plot = Axes.plot
    monkeypatch.setattr(Axes, "plot", lambda *a, **k: drawn.append((a[1:], k)) or plot(*a, **k))
    logs = [str(write_log(tmp_path / name, scale=scale)) for name, scale in (("a", 1), ("b", 2))]
    out = tmp_path / "new" / "both.svg"
    assert main([*logs, "--out", str(out), "--names", "ours", "theirs"]) == 0
    text = out.read_text()
    assert text.startswith("<?xml")
    names = [k["label"] for _, k in drawn]
    # Panels: loss, loss_cls, AP, AP50.
    assert names == ["ours", "theirs"] * 4
    assert [list(line) for line in drawn[0][0]] == [[10, 20, 30], pytest.approx([1, 0.5, 1 / 3])]
    assert drawn[1][0][1][0] == 2.0
    assert len({k["color"] for _, k in drawn}) == 2
    assert "theirs" in capsys.readouterr().out


def test_grouped_training_metrics_have_panels(tmp_path):
    lines = [{"loss": 2.0 / k, "acc": 0.1, "pairs/gap": k - 2.0, "step": k} for k in (1, 2, 3)]
    (tmp_path / "scalars.json").write_text("\n".join(map(json.dumps, lines)))
    out = tmp_path / "curves.svg"
    assert main([str(tmp_path), "--out", str(out)]) == 0
    # Matplotlib draws text as outlines, with a comment.
    text = out.read_text()
    assert "<!-- pairs/gap -->" in text and "<!-- acc -->" not in text


def test_equal_names_missing_evaluations_and_nan(tmp_path, capsys):
    logs = [str(write_log(tmp_path / name / "run")) for name in ("a", "b")]
    assert main([*logs, "--out", str(tmp_path / "x.png")]) == 0
    printed = capsys.readouterr().out
    assert all(path in printed for path in logs)
    plain = tmp_path / "scalars.json"
    plain.write_text(json.dumps({"loss": 1.0, "step": 3}))
    assert main([str(plain)]) == 0
    assert "not evaluated" in capsys.readouterr().out
    log = write_log(tmp_path / "nan", values=(float("nan"),))
    assert main([str(log)]) == 0
    assert capsys.readouterr().out.splitlines()[1].split()[-3:] == ["-", "-", "-"]


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["nothing"], "nothing does not exist"),
        (["run", "--out", "x.gif"], "--out x.gif: the plot is written as"),
        (["run", "--names", "a", "b"], "--names: 1 logs need as many names"),
        (["."], "no line has a loss"),
    ],
)
def test_user_errors(tmp_path, monkeypatch, capsys, argv, message):
    monkeypatch.chdir(tmp_path)
    write_log(tmp_path / "run")
    if argv == ["."]:
        (tmp_path / "run" / "scalars.json").write_text('{"step": 1}')
    assert main(argv) == 2
    error = capsys.readouterr().err
    assert message in error and "Traceback" not in error
    assert not (tmp_path / "x.gif").exists()
