"""The embedded verification set."""

import hashlib
import json
import os
import subprocess
import sys
from collections import Counter

import cv2
import pytest

from negvision.toy.characters import characters
from negvision.toy.face_glyphs import FaceGlyphsParameters, ensure_face_glyphs

TINY = {
    "image_size": 24,
    "train_identities": 5, "val_identities": 2, "test_identities": 4,
    "train_images": 3, "val_images": 4, "test_images": 4,
    "val_pairs": 6, "test_pairs": 20,
}  # fmt: skip


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return ensure_face_glyphs(tmp_path_factory.mktemp("set") / "glyphs", **TINY)


def contents(root) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()}


def rows(root, name: str) -> list[list[str]]:
    return [line.split() for line in (root / name).read_text().splitlines()]


def identity(name: str) -> str:
    return name.split("/")[1].split("_")[0]


def test_same_bytes_in_another_process(root, tmp_path):
    code = "import sys; from negvision.toy.face_glyphs import ensure_face_glyphs as e; "
    code += f"e(sys.argv[1], **{TINY!r})"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "set")], env=environment, check=True)
    assert contents(tmp_path / "set") == contents(root)


def test_lists_name_every_image_with_its_label(root):
    for split, identities, images in (("train", 5, 3), ("val", 2, 4), ("test", 4, 4)):
        lines = rows(root, f"{split}.txt")
        assert sorted(name for name, _ in lines) == sorted(
            f"{split}/{path.name}" for path in (root / split).iterdir()
        )
        assert Counter(label for _, label in lines) == {str(i): images for i in range(identities)}
        assert len({(identity(name), label) for name, label in lines}) == identities
        assert all(chr(int(identity(name), 16)) in characters(split) for name, _ in lines)
        for name, _ in lines:
            assert cv2.imread(str(root / name)).shape == (24, 24, 3)


def test_splits_share_no_identity(root):
    sets = [{identity(n) for n, _ in rows(root, f"{s}.txt")} for s in ("train", "val", "test")]
    assert len(set.union(*sets)) == sum(map(len, sets)) == 11


@pytest.mark.parametrize(("split", "count"), [("val", 6), ("test", 20)])
def test_pairs_say_whether_they_are_of_one_identity(root, split, count):
    pairs = rows(root, f"{split}_pairs.txt")
    assert [same for *_, same in pairs] == ["1", "0"] * count
    listed = {name for name, _ in rows(root, f"{split}.txt")}
    for first, second, same in pairs:
        assert {first, second} <= listed and first != second
        assert (identity(first) == identity(second)) == (same == "1")
    assert len({frozenset(pair[:2]) for pair in pairs}) == len(pairs)


def test_images_do_not_depend_on_their_number(root, tmp_path):
    more = contents(ensure_face_glyphs(tmp_path / "set", **{**TINY, "train_images": 4}))
    for name, content in contents(root).items():
        if name.startswith("train/"):
            assert more[name] == content


def test_another_seed_gives_other_images(root, tmp_path):
    other = contents(ensure_face_glyphs(tmp_path / "set", **TINY, seed=1))
    assert sorted(other) == sorted(contents(root))
    for name, content in contents(root).items():
        if name.endswith(".jpg"):
            assert other[name] != content


def test_stamp_holds_the_hash_of_the_images(root):
    stamp = json.loads((root / "dataset.json").read_text())
    assert stamp["set"] == "face_glyphs"
    together = b"".join((root / name).read_bytes() for name, _ in rows(root, "test.txt"))
    assert stamp["picture_sha256"]["test"] == hashlib.sha256(together).hexdigest()


@pytest.mark.parametrize(
    ("parameters", "says"),
    [
        ({"image_size": 12}, "image_size is 12; it must be at least 16 pixels"),
        ({"train_identities": 281}, "train_identities is 281; it must be 2 to 280"),
        ({"test_identities": 1}, "test_identities is 1; it must be 2 to 75"),
        ({"val_images": 1}, "val_images is 1; it must be at least 2"),
        ({"val_pairs": 0}, "val_pairs is 0"),
        ({"test_images": 3}, "test_pairs is 3000; with 75 identities of 3 images it must .* 225"),
    ],
)
def test_parameters_out_of_range(parameters, says):
    with pytest.raises(ValueError, match=says):
        FaceGlyphsParameters(**parameters)
