"""From a work dir to an OOD page, and errors on the way."""

import os
from pathlib import Path

import numpy as np
from helpers.commands import command

from negvision.ood.records import OODRecords

main = command("ood-report")


def write_scores(path: Path, is_ood: tuple[int, ...] = (0, 0, 1, 1), shift: float = 0.0) -> Path:
    count = len(is_ood)
    records = OODRecords(
        task="images",
        scores={"abet": np.arange(count) + shift},
        is_ood=np.array(is_ood, dtype=bool),
        image=np.arange(count),
        paths=[f"{index}.png" for index in range(count)],
        classes=("a", "b"),
    )
    return records.save(path)


def test_page_of_the_newest_scores_of_a_work_dir(tmp_path, capsys):
    old = write_scores(tmp_path / "work" / "1" / "ood_scores.npz")
    new = write_scores(tmp_path / "work" / "2" / "ood_scores.npz", (1, 0, 0, 1))
    os.utime(old, (1, 1))
    assert main([str(tmp_path / "work")]) == 0
    page = new.with_name("ood_report.html")
    text = page.read_text(encoding="utf-8")
    assert "<title>OOD images: work</title>" in text
    assert "0.5000" in text  # the AUROC of the newer file
    assert str(new) in text
    assert str(page) in capsys.readouterr().out
    assert not old.with_name("ood_report.html").exists()


def test_file_out_and_title_are_given(tmp_path):
    scores = write_scores(tmp_path / "scores.npz")
    out = tmp_path / "new" / "page.html"
    assert main(scores, "--out", out, "--title", "A & B") == 0
    assert "<title>A &amp; B</title>" in out.read_text(encoding="utf-8")
    assert os.listdir(out.parent) == ["page.html"]


def test_unusable_scores_are_reported(tmp_path, capsys):
    assert main([str(tmp_path / "nowhere")]) == 2
    assert "nowhere: there is no such file or folder" in capsys.readouterr().err
    assert main([str(tmp_path)]) == 2
    printed = capsys.readouterr().err
    assert f"no ood_scores.npz in or below {tmp_path}" in printed
    assert "negvision test CONFIG CHECKPOINT" in printed
    scores = tmp_path / "ood_scores.npz"
    scores.write_text("not an archive")
    assert main([str(tmp_path)]) == 2
    assert "does not hold OOD scores" in capsys.readouterr().err
    assert main([str(write_scores(scores, (0, 0, 0)))]) == 2
    assert "there is no OOD sample (0 OOD, 3 ID)" in capsys.readouterr().err
    assert os.listdir(tmp_path) == ["ood_scores.npz"]


def test_out_that_cannot_be_written(tmp_path, capsys):
    scores = write_scores(tmp_path / "ood_scores.npz")
    (tmp_path / "folder.html").mkdir()
    for out in ("folder.html", "ood_scores.npz/page.html"):
        assert main([str(scores), "--out", str(tmp_path / out)]) == 2
        assert f"{tmp_path / out} cannot be written" in capsys.readouterr().err
    assert sorted(os.listdir(tmp_path)) == ["folder.html", "ood_scores.npz"]
    assert main([str(scores), "--out", str(tmp_path / "page.pdf")]) == 2
    assert "page.pdf: the page is written as .html" in capsys.readouterr().err
