"""``negvision compare`` on files of results: figures, verdicts, page and errors."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest
from helpers.coco_cases import random_case
from helpers.commands import command

from negvision.errors import UserError
from negvision.report.comparison import common_truth

compare = command("compare")


@pytest.fixture(scope="module")
def case(tmp_path_factory):
    """A folder with annotations, two files of results of which the second is better, and images."""
    folder = tmp_path_factory.mktemp("compared")
    truth, detections = random_case(3, images=40, crowd=0.0)
    (folder / "truth.json").write_text(json.dumps(truth))
    (folder / "a.json").write_text(json.dumps(detections))
    better = [
        {**{k: one[k] for k in ("image_id", "category_id", "bbox")}, "score": 0.9}
        for one in truth["annotations"]
    ]
    (folder / "b.json").write_text(json.dumps(better))
    # Nearly as good as a: other scores of the same detections.
    noise = np.random.default_rng(0).normal(0, 0.001, len(detections))
    slightly = [
        {**one, "score": one["score"] + float(change)}
        for one, change in zip(detections, noise, strict=True)
    ]
    (folder / "c.json").write_text(json.dumps(slightly))
    for image in truth["images"]:
        cv2.imwrite(str(folder / image["file_name"]), np.zeros((250, 250, 3), np.uint8))
    return folder


def test_a_better_detector_is_called_better(case, tmp_path, capsys):
    page = tmp_path / "page.html"
    sides = [case / "a.json", case / "b.json"]
    options = ["--ann-file", case / "truth.json", "--images", case, "--resamples", 200]
    assert compare(*sides, *options, "--out", page) == 0
    printed = capsys.readouterr().out
    assert "40 images, 200 resamples" in printed
    assert "b.json is better: AP of b.json against a.json +0." in printed
    assert "Classes whose AP differs, corrected for their number: class 1 +0." in printed
    assert "says nothing about its recipe" in printed
    text = page.read_text()
    assert text.count("<img") == 24 and "Images whose results differ most" in text
    assert "a.json: " in text and "b.json: 0 errors" in text


def test_a_difference_of_noise_is_called_none(case, tmp_path, capsys):
    sides = [case / name for name in ("a.json", "c.json", "b.json")]
    options = ["--ann-file", case / "truth.json", "--resamples", 100]
    assert compare(*sides, *options, "--out", tmp_path / "page.html") == 0
    printed = capsys.readouterr().out
    assert "c.json against a.json: no difference in AP that 40 images could show" in printed
    assert "would show one of this size" in printed and "b.json is better" in printed
    assert "Its folder is not known" in (tmp_path / "page.html").read_text()


def test_trainings_of_a_recipe_are_pooled(case, tmp_path, capsys):
    sides = [f"{case / 'a.json'},{case / 'c.json'}", f"{case / 'b.json'},{case / 'a.json'}"]
    # A file that is named twice would have no unique name.
    copy = case / "d.json"
    copy.write_text((case / "a.json").read_text())
    sides[1] = f"{case / 'b.json'},{copy}"
    options = ["--ann-file", case / "truth.json", "--resamples", 100]
    assert compare(*sides, *options, "--out", tmp_path / "page.html") == 0
    printed = capsys.readouterr().out
    assert "a.json and 1 more, 2 trainings" in printed
    # The second recipe has one good and one bad training.
    assert "more images would not show it, more trainings might" in printed
    assert "says nothing about its recipe" not in printed


def test_identical_results_differ_by_nothing(case, tmp_path, capsys):
    copy = case / "e.json"
    copy.write_text((case / "a.json").read_text())
    options = ["--ann-file", case / "truth.json", "--resamples", 20]
    assert compare(case / "a.json", copy, *options, "--out", tmp_path / "page.html") == 0
    printed = capsys.readouterr().out
    assert "there is none at all" in printed and "-0.000" not in printed


def test_scenes_are_drawn_together(case, tmp_path, capsys):
    truth = json.loads((case / "truth.json").read_text())
    for number, image in enumerate(truth["images"]):
        image["video"] = number // 10
    path = tmp_path / "videos.json"
    path.write_text(json.dumps(truth))
    sides = [case / "a.json", case / "b.json", "--ann-file", path, "--out", tmp_path / "p.html"]
    assert compare(*sides, "--group-by", "video", "--resamples", 50) == 0
    assert "4 values of video, 50 resamples" in capsys.readouterr().out
    assert compare(*sides, "--group-by", "scene") == 2
    error = capsys.readouterr().err
    assert "40 of 40 images have no 'scene'" in error and "video" in error


def edited(case, path, change):
    results = json.loads((case / "a.json").read_text())
    change(results)
    path.write_text(json.dumps(results))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda found: found[0].update(image_id=4321), "image that is not in the annotation file"),
        (lambda found: found[0].update(category_id=77), "category that is not in the annotation"),
        (lambda found: found[0].pop("score"), "no score"),
        (lambda found: found[0].update(bbox=[1, 2, 3]), "box or score that is no number"),
        (lambda found: found[0].update(score=float("nan")), "box or score that is no number"),
    ],
)
def test_results_of_something_else_are_refused(case, tmp_path, capsys, change, message):
    edited(case, tmp_path / "bad.json", change)
    sides = [case / "a.json", tmp_path / "bad.json", "--ann-file", case / "truth.json"]
    assert compare(*sides, "--out", tmp_path / "p.html") == 2
    error = capsys.readouterr().err
    assert message in error and "bad.json" in error and "--ann-file" in error
    assert not (tmp_path / "p.html").exists()


def test_other_input_that_cannot_be_compared(case, tmp_path, capsys):
    options = ["--ann-file", case / "truth.json", "--out", tmp_path / "p.html"]

    def refused(*argv):
        assert compare(*argv) == 2
        return capsys.readouterr().err

    assert "at least two sides" in refused(case / "a.json", *options)
    assert "there is no such" in refused(case / "a.json", case / "none.json", *options)
    assert "name the annotation file" in refused(case / "a.json", case / "b.json")
    assert "holds a dict, of annotations" in refused(case / "a.json", case / "truth.json", *options)
    (tmp_path / "text.json").write_text("{")
    assert "is not JSON" in refused(case / "a.json", tmp_path / "text.json", *options)
    truth = json.loads((case / "truth.json").read_text())
    image = truth["images"][0]["id"]
    truth["images"] = truth["images"][:1]
    truth["annotations"] = [one for one in truth["annotations"] if one["image_id"] == image]
    (tmp_path / "one.json").write_text(json.dumps(truth))
    (tmp_path / "none.json").write_text("[]")
    (tmp_path / "none2.json").write_text("[]")
    empty = [tmp_path / "none.json", tmp_path / "none2.json", "--out", tmp_path / "p.html"]
    assert "has 1 images" in refused(*empty, "--ann-file", tmp_path / "one.json")
    # No detections at all are results.
    assert compare(*empty, "--ann-file", case / "truth.json", "--resamples", 5) == 0
    assert "there is none at all" in capsys.readouterr().out


def test_groups_are_told_apart_and_a_trade_is_noted(tmp_path, capsys):
    truth, detections = random_case(3, images=40, crowd=0.0)
    for number, image in enumerate(truth["images"]):
        image["light"] = "night" if number % 5 == 0 else "day"
    night = {image["id"] for image in truth["images"] if image["light"] == "night"}
    (tmp_path / "truth.json").write_text(json.dumps(truth))
    perfect = [
        {**{k: one[k] for k in ("image_id", "category_id", "bbox")}, "score": 0.9}
        for one in truth["annotations"]
    ]
    dark = [one for one in perfect if one["image_id"] in night]
    light = [one for one in perfect if one["image_id"] not in night]
    own = [one for one in detections if one["image_id"] not in night]
    (tmp_path / "a.json").write_text(json.dumps(dark + own))
    (tmp_path / "b.json").write_text(json.dumps(light))
    sides = [tmp_path / "a.json", tmp_path / "b.json", "--out", tmp_path / "page.html"]
    options = ["--ann-file", tmp_path / "truth.json", "--resamples", 100]
    assert compare(*sides, *options, "--groups", "light") == 0
    printed = capsys.readouterr().out
    assert "AP by light" in printed and "AUROC by light" in printed and "\ngap " in printed
    assert "b.json against a.json, AP: light day (" in printed
    assert "and what is rarer loses: light night (" in printed
    assert "AP by light" in (tmp_path / "page.html").read_text()
    assert compare(*sides, *options, "--groups", "size") == 0
    assert "small (" in capsys.readouterr().out
    assert compare(*sides, *options, "--groups", "weather") == 2
    assert "have no 'weather'" in capsys.readouterr().err


def test_equal_copies_of_the_annotations_are_one_file(case, tmp_path):
    """Each training on a folder has its own copy."""
    copy, other = tmp_path / "copy.json", tmp_path / "other.json"
    copy.write_bytes((case / "truth.json").read_bytes())
    other.write_text(json.dumps({**json.loads(copy.read_text()), "info": {}}))
    own = {"a": str(case / "truth.json"), "b": str(copy)}
    assert common_truth(own, None)[0] == str(case / "truth.json")
    with pytest.raises(UserError, match="tested on different annotation files"):
        common_truth({**own, "c": str(other)}, None)
