"""Images and tables of the browsing commands."""

import json

import cv2
import pytest
from helpers.commands import command

browse_assignments = command("browse-assignments")
browse_dataset = command("browse-dataset")

NONE_MATCH = [
    "model.train_cfg.assigner.pos_iou_thr=0.99",
    "model.train_cfg.assigner.min_pos_iou=0.99",
]


def pictures(folder):
    found = {path.name: cv2.imread(str(path)) for path in sorted(folder.iterdir())}
    assert all(picture is not None for picture in found.values())
    return found


def test_assignments(tiny_config, tmp_path, capsys):
    out = tmp_path / "out"
    assert browse_assignments(tiny_config, "--out", out, "--num", 3) == 0
    printed = capsys.readouterr().out
    found = pictures(out)
    assert list(found) == ["000000_0.png", "000003_3.png", "000007_7.png"]
    # 64 pixels become the first multiple above 900; title and legend are above.
    assert all(p.shape[1] == 960 and p.shape[0] > 1000 for p in found.values())
    lines = [line.split() for line in printed.splitlines()]
    assert lines[0] == ["level", "anchor", "px", "anchors", "positives", "share"]
    assert [line[:3] for line in lines[1:4]] == [
        ["0", "32", "192"],
        ["1", "64", "48"],
        ["2", "128", "12"],
    ]
    assert int(lines[1][3]) > 0
    assert "3 images, 6 boxes; positives per box: min 1" in printed
    assert "boxes with no positive: none" in printed
    assert f"images  {out}/ (3 files)" in printed


def test_boxes_without_positives_are_listed_and_red(tiny_config, tmp_path, capsys):
    out = tmp_path / "out"
    argv = [tiny_config, "--out", out, "--indices", 2, 5, "--cfg-options", *NONE_MATCH]
    assert browse_assignments(*argv) == 0
    printed = capsys.readouterr().out
    assert "boxes with no positive: 4 of 4 (100.0%)" in printed
    rows = [line.split() for line in printed.splitlines() if line.startswith(("2.png", "5.png"))]
    assert sorted(rows) == [
        ["2.png", "2", "bar", "30.0", "x", "14.0"],
        ["2.png", "2", "square", "24.0", "x", "24.0"],
        ["5.png", "5", "bar", "30.0", "x", "14.0"],
        ["5.png", "5", "square", "24.0", "x", "24.0"],
    ]
    picture = pictures(out)["000002_2.png"][..., ::-1]
    assert (picture[-960:] == (255, 30, 30)).all(-1).sum() > 500


def test_images_are_reproducible(tiny_config, tmp_path):
    text = tiny_config.read_text()
    tiny_config.write_text(
        text.replace(
            'dict(type="Resize"', 'dict(type="RandomFlip", prob=0.5),\n    dict(type="Resize"', 1
        )
    )
    for name in ("a", "b"):
        for browse, kind in ((browse_assignments, ""), (browse_dataset, "_data")):
            argv = ["--num", 3, "--out", tmp_path / f"{name}{kind}"]
            assert browse(tiny_config, *argv) == 0
    for kind in ("", "_data"):
        first, second = pictures(tmp_path / f"a{kind}"), pictures(tmp_path / f"b{kind}")
        assert len(first) == 3
        assert all((first[name] == second[name]).all() for name in first)


def test_dataset_in_the_default_folder(tiny_config, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert browse_dataset(tiny_config) == 0
    printed = capsys.readouterr().out
    assert "images  work_dirs/tiny/dataset/ (8 files)" in printed
    assert len(pictures(tmp_path / "work_dirs" / "tiny" / "dataset")) == 8
    lines = [line.split() for line in printed.splitlines()]
    assert lines[1:4] == [
        ["square", "8", "8", "0"],
        ["bar", "8", "8", "0"],
        ["all", "16", "8", "0"],
    ]
    assert "8 images, 0 of them without objects" in printed


def test_masks_crowds_and_data_root(tiny_config, coco_root, tmp_path, capsys):
    """The same images with a mask on each box, and the bar of image 0 as a crowd."""
    root = tmp_path / "moved"
    (root / "annotations").mkdir(parents=True)
    (root / "images").symlink_to(coco_root / "images")
    content = json.loads((coco_root / "annotations" / "all.json").read_text())
    for item in content["annotations"]:
        x, y, width, height = item["bbox"]
        item["segmentation"] = [[x, y, x + width, y, x + width, y + height, x, y + height]]
    crowd = content["annotations"][1]
    counts = [0, 64 * 64]
    crowd.update(iscrowd=1, segmentation={"size": [64, 64], "counts": counts})
    (root / "annotations" / "all.json").write_text(json.dumps(content))
    config = tmp_path / "masks.py"
    shown = []
    for mask in ("with_mask=False", "with_mask=True"):
        text = tiny_config.read_text().replace("with_bbox=True", f"with_bbox=True, {mask}")
        config.write_text(text)
        out = tmp_path / mask
        argv = [config, "--out", out, "--indices", 0, "--data-root", root]
        assert browse_dataset(*argv) == 0
        printed = capsys.readouterr().out
        assert ["bar", "7", "7", "1"] in [line.split() for line in printed.splitlines()]
        shown += pictures(out).values()
    # The mask tints the inside of its box only.
    x, y, width, height = (10 * value for value in content["annotations"][0]["bbox"])
    changed = (shown[0] != shown[1]).any(-1)[-640:]
    assert changed[y + 20 : y + 60, x + 20 : x + 200].mean() > 0.5
    changed[y : y + height, x : x + width] = False
    assert not changed.any()


@pytest.mark.parametrize("browse", [browse_assignments, browse_dataset])
@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--num", "0"], "--num: '0' is not an integer above 0"),
        (["--indices", "3", "8"], "--indices 8: the train set has images 0 to 7"),
        (["--cfg-options", "model.bakbone=1"], "bakbone"),
        (["--data-root", "nowhere"], "nowhere/annotations/all.json does not exist"),
        (["--cfg-options", "train_dataloader=None"], "has no train_dataloader with a dataset"),
    ],
)
def test_user_errors(tiny_config, tmp_path, capsys, browse, argv, message):
    assert browse(tiny_config, "--out", tmp_path / "out", *argv) == 2
    error = capsys.readouterr().err
    assert message in error and "Traceback" not in error
    assert not (tmp_path / "out").exists()
