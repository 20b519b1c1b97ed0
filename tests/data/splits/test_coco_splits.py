"""COCO splits compared with a slow search of every image."""

import copy
import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from negvision.data.splits import join_coco_parts, lost_boxes, split_coco
from negvision.errors import DatasetError

NAMES = ("ace", "jack", "queen", "ten", "two")


@st.composite
def coco_contents(draw) -> dict:
    """A COCO content of up to six images, with ids in any order, crowds and other entries."""
    names = draw(st.lists(st.sampled_from(NAMES), min_size=1, unique=True))
    category_ids = draw(
        st.lists(st.integers(0, 99), min_size=len(names), max_size=len(names), unique=True)
    )
    image_ids = draw(
        st.lists(st.integers(0, 999) | st.text("ab", min_size=1), max_size=6, unique=True)
    )
    annotations = []
    if image_ids:
        pairs = st.tuples(
            st.sampled_from(image_ids), st.sampled_from(category_ids), st.integers(0, 1)
        )
        for number, (image, category, crowd) in enumerate(draw(st.lists(pairs, max_size=12))):
            box = [number / 3, 1.1, 5, 6.25]
            annotations.append(
                {"id": number, "image_id": image, "category_id": category, "bbox": box}
                | ({"iscrowd": 1, "ignore": 1} if crowd else {})
            )
    return {
        "info": {"year": 2024},
        "images": [
            {"id": i, "file_name": f"{i}.jpg", "width": 64, "height": 64} for i in image_ids
        ],
        "licenses": [{"id": 1}],
        "annotations": annotations,
        "categories": [{"id": i, "name": n} for i, n in zip(category_ids, names, strict=True)],
    }


def shown(content: dict, image_id) -> set[str]:
    """Names of the classes in an image, by going through all annotations."""
    found = set()
    for annotation in content["annotations"]:
        if annotation["image_id"] == image_id:
            for category in content["categories"]:
                if category["id"] == annotation["category_id"]:
                    found.add(category["name"])
    return found


@settings(max_examples=200, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(coco_contents(), st.sets(st.sampled_from(NAMES)))
def test_every_image_is_in_the_right_part(content, held_out):
    before = copy.deepcopy(content)
    parts = split_coco(content, held_out, "a.json")
    assert content == before
    expected = {"known": [], "held_out": [], "mixed": []}
    for image in content["images"]:
        classes = shown(content, image["id"])
        if not classes & held_out:
            expected["known"].append(image)
        else:
            expected["mixed" if classes - held_out else "held_out"].append(image)
    for kind, images in expected.items():
        part = getattr(parts, kind)
        assert part["images"] == images
        ids = [image["id"] for image in images]
        assert part["annotations"] == [a for a in content["annotations"] if a["image_id"] in ids]
        assert (part["info"], part["licenses"]) == (content["info"], content["licenses"])
        names = {"known": set(NAMES) - held_out, "held_out": held_out, "mixed": set(NAMES)}[kind]
        assert part["categories"] == [c for c in content["categories"] if c["name"] in names]


def content_of(*images: tuple[str, ...], crowd: bool = False) -> dict:
    """One image for each tuple, with an object of each class that is named."""
    annotations = [
        {"id": 10 * i + j, "image_id": i, "category_id": NAMES.index(name), "iscrowd": int(crowd)}
        for i, names in enumerate(images)
        for j, name in enumerate(names)
    ]
    return {
        "images": [{"id": i, "file_name": f"{i}.jpg"} for i in range(len(images))],
        "annotations": annotations,
        "categories": [{"id": i, "name": name} for i, name in enumerate(NAMES)],
    }


@pytest.fixture
def paths(tmp_path) -> tuple[Path, Path]:
    files = tmp_path / "train.json", tmp_path / "test.json"
    for file in files:
        file.touch()
    return files


def join(paths, train: dict, test: dict) -> dict[str, dict]:
    parts = [split_coco(content, ["queen"], "cards") for content in (train, test)]
    return join_coco_parts(*zip(paths, parts, strict=True))


def test_names_and_contents_of_the_files(paths):
    train = content_of(("ace",), ("ace", "queen"), ())
    test = content_of(("queen",), ("ten",), ("queen", "ten"), ())
    files = join(paths, train, test)
    assert {name: [i["id"] for i in c["images"]] for name, c in files.items()} == {
        "train_id.json": [0, 2],
        "test_id.json": [1, 3],
        "test_ood.json": [0],
        "test_mixed.json": [2],
    }


@pytest.mark.parametrize(
    ("train", "test", "says"),
    [
        (
            content_of(("queen", "ace"), ()),
            content_of(("ace",), ("queen",)),
            r"train\.json: nothing is left to train on\. 1 images show held-out classes, and the "
            r"other 1 have no object",
        ),
        (
            content_of(("ace",)),
            content_of(("ace",), ("ace", "queen")),
            r"test\.json: no image shows held-out classes alone, .* 1 of 2 images show them beside",
        ),
        (content_of(("ace",)), content_of(("queen",)), r"test\.json: all images show held-out"),
        (content_of(("ace",)), content_of(), r"test\.json: no image shows held-out classes alone"),
    ],
)
def test_unusable_datasets(paths, train, test, says):
    with pytest.raises(DatasetError, match=says):
        join(paths, train, test)


def test_a_held_out_crowd_counts_as_shown():
    parts = split_coco(content_of(("queen",), crowd=True), ["queen"], "a.json")
    assert [len(part["images"]) for part in (parts.known, parts.held_out)] == [0, 1]


def test_classes_that_lost_more_than_half():
    content = content_of(*[("ace", "queen")] * 3, ("ace",), ("ten", "queen"), ("ten",))
    known = split_coco(content, ["queen"], "a.json").known
    assert lost_boxes(content, known) == [("ace", 4, 1)]  # one of two is half, not more


@pytest.mark.parametrize(
    ("entry", "value", "says"),
    [
        ("images", {"file_name": "x.jpg"}, "1 x image record without an id"),
        ("images", {"id": 0}, "1 x image id that was used before"),
        ("images", {"id": [0]}, "1 x image record without an id"),
        ("annotations", 7, "1 x annotation that is no object"),
        ("annotations", {"image_id": 0}, "1 x annotation without image_id or category_id"),
        ("annotations", {"image_id": {}, "category_id": 1}, "annotation without image_id"),
        ("annotations", {"image_id": 5, "category_id": 1}, "an image that the file does not list"),
        ("annotations", {"image_id": 0, "category_id": 77}, "1 x unknown category id"),
        ("categories", {"name": "x"}, "a category needs an integer id and a name"),
        ("categories", {"id": 9, "name": "ace"}, "2 categories have the name 'ace'"),
    ],
)
def test_broken_references_are_errors(entry, value, says):
    content = content_of(("ace",), ("queen",))
    content[entry].append(value)
    with pytest.raises(DatasetError, match=says) as caught:
        split_coco(content, ["queen"], "cards.json")
    assert "cards.json" in str(caught.value)


def test_cards_as_they_were_split_by_hand(shared_data):
    """All images that are not for training as one file: its parts are the files of the pack."""
    folder = shared_data / "cards" / "annotations"
    given_parts = [
        json.loads((folder / f"test_{kind}.json").read_text()) for kind in ("id", "ood", "mixed")
    ]
    content = {
        "images": [i for part in given_parts for i in part["images"]],
        "annotations": [a for part in given_parts for a in part["annotations"]],
        "categories": given_parts[2]["categories"],
    }
    parts = split_coco(content, ["queen", "ten"], "test.json")
    for found, part in zip((parts.known, parts.held_out, parts.mixed), given_parts, strict=True):
        for entry in ("images", "annotations"):
            assert found[entry] == part[entry]
    assert [c["name"] for c in parts.known["categories"]] == ["ace", "jack", "king", "nine"]
    assert [c["id"] for c in parts.held_out["categories"]] == [101, 102]


def test_the_digits_set_holds_out_the_same(digits):
    """What the embedded set has as instances_train_id.json, from instances_train.json."""
    folder = digits / "annotations"
    content = json.loads((folder / "instances_train.json").read_text())
    expected = json.loads((folder / "instances_train_id.json").read_text())
    known = split_coco(content, ["seven", "nine"], "train").known
    assert {**known, "info": None} == {**expected, "info": None}
