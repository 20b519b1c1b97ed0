import json
import os
import subprocess
import sys

import cv2
import numpy as np
import pytest
from pycocotools import mask as mask_api
from pycocotools.coco import COCO

from negvision.toy.digits import DigitsParameters, ensure_digits

TINY = {"train": 4, "val": 2, "test": 2, "test_ood": 2}


def load(root, name: str) -> dict:
    return json.loads((root / "annotations" / f"instances_{name}.json").read_text())


def contents(root) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()}


def test_same_bytes_in_two_processes(tmp_path):
    code = "import sys; from negvision.toy.digits import ensure_digits as e; e(sys.argv[1], **{!r})"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    children = [
        subprocess.Popen(
            [sys.executable, "-c", code.format(TINY), str(tmp_path / name / "set")], env=environment
        )
        for name in "ab"
    ]
    assert [child.wait() for child in children] == [0, 0]
    first, second = (contents(tmp_path / name / "set") for name in "ab")
    assert len(first) == 2 * 10 + 7 + 4 + 1  # pictures and masks, annotations, crops, stamp
    assert first == second


@pytest.mark.parametrize("damaged", ["masks/val/000000.png", "crops/val_id.npz"])
def test_a_damaged_set_is_generated_again(tmp_path, damaged):
    root = ensure_digits(tmp_path / "digits", **TINY)
    before = contents(root)
    (root / damaged).unlink()
    ensure_digits(root, **TINY)
    assert contents(root) == before


@pytest.mark.parametrize(
    ("parameters", "says"),
    [
        ({"image_size": 50}, "image_size is 50"),
        ({"val": 0}, "val is 0"),
        ({"held_out": (7, 7)}, "held_out is"),
        ({"held_out": tuple(range(10))}, "held_out is"),
    ],
)
def test_parameters_out_of_range(parameters, says):
    with pytest.raises(ValueError, match=says):
        DigitsParameters(**parameters)


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_boxes_areas_and_masks_agree(digits, split):
    content = load(digits, split)
    assert content["annotations"]
    seen: dict[int, np.ndarray] = {}
    for annotation in content["annotations"]:
        mask = mask_api.decode(annotation["segmentation"])
        assert mask.shape == (192, 192)
        assert annotation["area"] == mask.sum() > 0
        ys, xs = np.nonzero(mask)
        expected = [xs.min(), ys.min(), np.ptp(xs) + 1, np.ptp(ys) + 1]
        assert annotation["bbox"] == expected
        # What is seen at a pixel is one object.
        total = seen.setdefault(annotation["image_id"], np.zeros_like(mask))
        total += mask
        assert total.max() == 1
        if annotation.get("ignore"):
            assert annotation["iscrowd"]
            assert annotation["visible"] < 0.5
        elif not annotation["iscrowd"]:
            assert annotation["visible"] >= 0.5
            assert max(expected[2:]) >= 7
    for image in content["images"]:
        pixels = cv2.imread(str(digits / split / image["file_name"]))
        assert pixels.shape == (image["height"], image["width"], 3)


def test_strokes_stand_out_from_the_background(digits):
    gaps = []
    for annotation in (content := load(digits, "train"))["annotations"]:
        if annotation["iscrowd"]:
            continue
        name = content["images"][annotation["image_id"] - 1]["file_name"]
        gray = cv2.imread(str(digits / "train" / name), cv2.IMREAD_GRAYSCALE).astype(float)
        mask = mask_api.decode(annotation["segmentation"])
        ring = cv2.dilate(mask, np.ones((11, 11))) - cv2.dilate(mask, np.ones((5, 5)))
        gaps.append(abs(gray[mask > 0].mean() - gray[ring > 0].mean()))
    assert np.median(gaps) > 60
    assert np.percentile(gaps, 5) > 25


def test_held_out_classes_are_kept_apart(digits):
    for split in ("train", "val", "test"):
        everything, known = load(digits, split), load(digits, f"{split}_id")
        assert [c["name"] for c in everything["categories"]][7] == "seven"
        names = {c["name"] for c in known["categories"]}
        assert len(names) == 8
        assert not names & {"seven", "nine"}
        held_out = {a["image_id"] for a in everything["annotations"] if a["category_id"] in (8, 10)}
        images = {image["id"] for image in everything["images"]}
        assert held_out or split != "train"
        assert {image["id"] for image in known["images"]} == images - held_out
        assert {a["category_id"] for a in known["annotations"]} <= {
            c["id"] for c in known["categories"]
        }
    unknown = load(digits, "test_ood")
    assert [c["name"] for c in unknown["categories"]] == ["seven", "nine"]
    objects = {a["image_id"] for a in unknown["annotations"] if not a["iscrowd"]}
    assert objects == {image["id"] for image in unknown["images"]}
    assert {a["category_id"] for a in unknown["annotations"]} <= {8, 10}


def test_pycocotools_scores_the_ground_truth_as_perfect(digits, capsys):
    from pycocotools.cocoeval import COCOeval

    path = digits / "annotations" / "instances_train.json"
    truth = COCO(str(path))
    found = [
        {**{k: a[k] for k in ("image_id", "category_id", "bbox")}, "score": 0.9}
        for a in truth.dataset["annotations"]
        if not a["iscrowd"]
    ]
    evaluation = COCOeval(truth, truth.loadRes(found), "bbox")
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    assert evaluation.stats[0] == pytest.approx(1.0)
