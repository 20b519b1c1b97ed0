"""The file of suspects: what an audit writes and a training reads."""

import json

import pytest

from negvision.data.suspects import Suspect, Suspects
from negvision.errors import DatasetError

FOUND = [
    Suspect("class", "a.jpg", 1, 7, (1, 2, 3, 4.5), "cat", "dog", score=0.4, probability=0.2),
    Suspect("missing", "b.jpg", 2, None, (1, 2, 3, 4), None, "dog", score=0.9, probability=0.8),
]


@pytest.fixture
def saved(tmp_path):
    (tmp_path / "train.json").write_text("{}")
    path = tmp_path / "suspects.json"
    Suspects.of(FOUND, tmp_path / "train.json", ["cat", "dog"], "model").save(path)
    return path


def test_what_is_read_is_what_was_written_the_likeliest_first(saved):
    audit = Suspects.load(saved)
    assert audit.found == FOUND[::-1]
    assert audit.check(saved.parent / "train.json", ["cat", "dog"]) is audit


def test_an_audit_without_suspects_is_a_file_too(saved):
    Suspects.of([], saved.parent / "train.json", [], "model").save(saved)
    assert Suspects.load(saved).found == []


def test_changed_annotations_and_other_classes_are_refused(saved):
    audit = Suspects.load(saved)
    with pytest.raises(DatasetError, match="classes cat, dog, and there are dog, cat"):
        audit.check(saved.parent / "train.json", ["dog", "cat"])
    (saved.parent / "train.json").write_text("{ }")
    with pytest.raises(DatasetError, match="run negvision audit on it again"):
        audit.check(saved.parent / "train.json")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": "other"}, "is no file of suspects"),
        ({"suspects": [{"kind": "odd", "image": "a"}]}, "damaged .kind 'odd'"),
        ({"suspects": [{"kind": "class", "image": "a", "bbox": [1, 2, 3]}]}, "damaged .a box"),
        ({"suspects": [{"kind": "class", "image": "a", "score": float("nan")}]}, "damaged"),
        ({"suspects": [{"kind": "class"}]}, "damaged"),
        ({"suspects": None}, "damaged"),
    ],
)
def test_a_damaged_or_other_file_is_refused(saved, change, message):
    saved.write_text(json.dumps({**json.loads(saved.read_text()), **change}))
    with pytest.raises(DatasetError, match=message):
        Suspects.load(saved)


def test_missing_files_are_named(tmp_path):
    with pytest.raises(DatasetError, match="no such file of suspects"):
        Suspects.load(tmp_path / "none.json")
    with pytest.raises(DatasetError, match="annotation file cannot be read"):
        Suspects.of([], tmp_path / "none.json", [], "model")
