"""Each kind of problem, put into a dataset of each task, is found, counted and named."""

import json
import os
import shutil
import signal

import cv2
import numpy as np
import pytest
from helpers.dirty_sets import LOAD, Boxes, Lists, Pixels, picture, truncate, write
from mmengine.dataset import BaseDataset
from mmengine.registry import DATASETS, TRANSFORMS, init_default_scope
from PIL import Image

from negvision.data.check.check import DataCheck
from negvision.data.check.cues import cue_auroc
from negvision.data.check.report import as_data, as_text


def checked(*configs, workers=0) -> DataCheck:
    """The check of (split, config) pairs, or of one config as train."""
    check = DataCheck([("train", c) if isinstance(c, dict) else c for c in configs])
    check.run(workers)
    return check


def found_in(check) -> dict[str, int]:
    found = check.problems.counts.copy()
    for scan in check.scans:
        found.update(scan.problems.counts)
    return dict(found)


def the_example(check, kind) -> str:
    for problems in (check.problems, *(scan.problems for scan in check.scans)):
        if kind in problems.counts:
            return problems.examples(kind)[0]
    raise AssertionError(found_in(check))


boxes = pytest.fixture(lambda tmp_path: Boxes(tmp_path), name="boxes")
pixels = pytest.fixture(lambda tmp_path: Pixels(tmp_path), name="pixels")
lists = pytest.fixture(lambda tmp_path: Lists(tmp_path), name="lists")


@pytest.mark.parametrize("workers", [0, 2])
def test_clean_sets_have_no_problem(boxes, tmp_path, workers):
    (tmp_path / "seg").mkdir()
    pixels = Pixels(tmp_path / "seg")
    lists = Lists(tmp_path / "list")
    for configs in (
        [boxes.config(), ("val", boxes.config("val", test_mode=True))],
        [pixels.config()],
        [lists.config("FaceListDataset", num_classes=2)],
        [lists.config("ImageListDataset", metainfo={"classes": ("a", "b")})],
        [lists.record_config()],
    ):
        check = checked(*configs, workers=workers)
        assert found_in(check) == {} and check.number_of_problems == 0
        assert check.images == sum(len(scan.dataset) for scan in check.scans) > 0
        assert all(scan.complete and not scan.notes for scan in check.scans)
        assert "no problem in" in as_text(check)


def test_statistics_of_boxes(boxes):
    boxes.content["train"]["annotations"][0]["iscrowd"] = 1
    (scan,) = checked(boxes.config()).scans
    assert scan.sizes == {(32, 40): [3, 0]}
    assert dict(scan.amounts) == {0: 2, 1: 3} and dict(scan.images_with) == {0: 2, 1: 3}
    assert dict(+scan.per_image) == {1: 1, 2: 2}


IMAGES = {
    "missing": (lambda path: path.unlink(), None, "missing"),
    "empty": (lambda path: path.write_bytes(b""), "empty image file", "the file is empty"),
    "truncated": (truncate, "truncated image", "truncated JPEG"),
    "text": (lambda path: path.write_text("<html>"), "file that is no image", "<html>"),
    "folder": (lambda path: (path.unlink(), path.mkdir()), "unreadable file", "cannot be read"),
}


# One kind shows that processes find what a loop finds.
@pytest.mark.parametrize(("damage", "workers"), [*((name, 0) for name in IMAGES), ("truncated", 2)])
@pytest.mark.parametrize("task", ["boxes", "pixels", "faces", "images"])
def test_damaged_image(tmp_path, task, damage, workers):
    made = {"boxes": Boxes, "pixels": Pixels}.get(task, Lists)(tmp_path)
    if task == "pixels" and damage in ("missing", "folder"):
        return  # the set is what its folder holds
    change, kind, says = IMAGES[damage]
    change(made.files[1])
    if task in ("faces", "images"):
        config = made.config({"faces": "FaceListDataset", "images": "ImageListDataset"}[task])
    else:
        config = made.config()
    check = checked(config, workers=workers)
    (found,) = found_in(check)
    assert found == kind or (kind is None and "missing image" in found)
    assert check.number_of_problems == 1
    example = the_example(check, found)
    assert str(made.files[1]) in example and says in (example if kind else found)


def test_wrong_size(boxes):
    write(boxes.files[0], picture(0, 32, 40))
    check = checked(boxes.config())
    assert found_in(check) == {"image of another size than annotated": 1}
    assert "32 x 40" in the_example(check, "image of another size than annotated")


def test_annotation_problems_are_counted_and_images_still_read(boxes):
    annotations = boxes.content["train"]["annotations"]
    annotations[0]["bbox"] = [1, 2, float("nan"), 4]
    annotations[1]["category_id"] = 8
    annotations[3]["bbox"] = [-5, 5, 15, 11]
    truncate(boxes.files[2])
    check = checked(boxes.config())
    assert found_in(check) == {
        "box with NaN or infinite coordinates": 1,
        "unknown category id": 1,
        "truncated image": 1,
    }
    assert "train.json" in the_example(check, "unknown category id")
    assert check.scans[0].notes.counts == {"box clipped that reaches beyond its image": 1}
    assert check.scans[0].read == 3


@pytest.mark.parametrize(
    ("ids", "kind"),
    [
        (np.full((32, 40), 9, np.uint8), "label image with ids of no class"),
        (np.zeros((40, 32), np.uint8), "label image of another size than its image"),
        (np.zeros((32, 40, 3), np.uint8), "label image of several channels"),
        (np.full((32, 40), 300, np.uint16), "label image with ids beyond 255"),
    ],
)
def test_label_images(pixels, ids, kind):
    write(pixels.labels[1], ids)
    check = checked(pixels.config())
    assert found_in(check) == {kind: 1}
    assert str(pixels.labels[1]) in the_example(check, kind)


def test_record_file(lists):
    truncate(lists.files[3])
    check = checked(lists.record_config())
    assert found_in(check) == {"truncated image": 1}
    assert f"{lists.root}/list.rec[3]" in the_example(check, "truncated image")
    check = checked(lists.record_config(damaged=1))
    assert found_in(check) == {"record that cannot be read": 1, "truncated image": 1}


def test_faces_of_another_size(lists):
    write(lists.files[3], picture(3, 30, 20))
    kind = "image that the pipeline gives another size than most"
    for name in ("FaceListDataset", "ImageListDataset"):
        check = checked(lists.config(name))
        assert found_in(check) == {kind: 1}
        assert f"{lists.files[3]}: 30 x 20 becomes 30 x 20" in the_example(check, kind)
    config = lists.config("FaceListDataset")
    config["pipeline"].insert(1, {"type": "Resize", "scale": (24, 24)})
    assert found_in(checked(config)) == {}


def test_classes_without_a_sample(boxes, lists):
    for annotation in boxes.content["train"]["annotations"]:
        annotation["category_id"] = 3
    check = checked(boxes.config(), ("val", boxes.config("val")))
    assert found_in(check) == {"class without a sample in train": 1}
    assert the_example(check, "class without a sample in train") == "dog"
    # An evaluation set may lack a class; its metric is then missing.
    check = checked(("val", boxes.config()))
    assert found_in(check) == {} and check.notes.counts == {"class without a sample in val": 1}
    # What two sets of train have together counts.
    assert found_in(checked(boxes.config(), boxes.config("val"))) == {}
    check = checked(lists.config("FaceListDataset", num_classes=5))
    assert found_in(check) == {"class without a sample in train": 3}


def test_images_of_train_in_val(boxes):
    shutil.copy(boxes.files[1], boxes.files[4])
    check = checked(boxes.config(), ("val", boxes.config("val")))
    kind = "image of train that is in val too"
    assert found_in(check) == {kind: 1}
    assert the_example(check, kind) == f"{boxes.files[1]} = {boxes.files[4]}"


def _image_sets(root, suffix, mode="RGB"):
    """Thirty ID images of smooth noise as JPEG, and thirty OOD ones with another suffix."""
    rng = np.random.default_rng(0)
    load = [{"type": "negvision.LoadImageFromFile"}, {"type": "negvision.PackImageInputs"}]
    for name, ending in {"known": ".jpg", "unknown": suffix}.items():
        (root / name / "a").mkdir(parents=True)
        for index in range(30):
            noise = cv2.resize(rng.integers(0, 256, (8, 8, 3), np.uint8), (32, 32))
            picture = Image.fromarray(noise).convert("RGB" if name == "known" else mode)
            picture.save(root / name / "a" / f"{index}{ending}", quality=75)
    common = {"type": "negvision.ImageFolderDataset", "test_mode": True, "pipeline": load}
    return [
        ("test", dict(data_root=str(root / "known"), **common)),
        ("test", dict(data_root=str(root / "unknown"), is_ood=True, **common)),
    ]


@pytest.mark.parametrize(
    ("suffix", "mode", "problems", "notes"),
    [
        (".jpg", "RGB", [], []),
        (".png", "RGB", ["file type, AUROC 1.00"], []),
        (".jpg", "L", [], ["color mode, AUROC 1.00", "fine detail in chroma"]),
    ],
)
def test_a_codec_or_a_color_that_tells_ood_from_id(tmp_path, suffix, mode, problems, notes):
    check = checked(*_image_sets(tmp_path, suffix, mode))
    kind = "OOD set of test that {} tells from the ID sets"
    for found, what, expected in (
        (check.problems, "how files are written", problems),
        (check.notes, "a trivial statistic", notes),
    ):
        examples = found.examples(kind.format(what)) if expected else []
        assert bool(found.counts[kind.format(what)]) == bool(expected)
        assert all(any(one in text for text in examples) for one in expected)


@pytest.mark.parametrize("ties", [False, True])
def test_the_auroc_of_a_cue_equals_counting_pairs(ties):
    rng = np.random.default_rng(1)
    inside, outside = rng.normal(size=80), rng.normal(1.5, size=60)
    if ties:
        inside, outside = inside.round(), outside.round()
    pairs = np.sign(outside[:, None] - inside).mean() / 2 + 0.5
    assert cue_auroc(inside, outside) == pytest.approx(pairs)
    assert cue_auroc(outside, inside) == pytest.approx(pairs)
    # Two small or alike sets, and none.
    assert cue_auroc(inside[:4], outside[:4] + 9) is None
    assert cue_auroc(inside, inside[::-1]) is None and cue_auroc(inside, np.array([np.nan])) is None


def test_one_config_for_two_splits_is_read_once(boxes):
    config = boxes.config("val")
    check = checked(("val", config), ("test", config))
    assert check.images == 3 and check.scans[0].splits == ("val", "test") and not check.notes
    check = checked(("train", config), ("val", config))
    assert check.images == 3 and found_in(check) == {"image of train that is in val too": 3}


def test_equal_images_within_a_split(lists):
    for path in lists.files[1:3]:
        shutil.copy(lists.files[0], path)
    check = checked(lists.config("ImageListDataset", metainfo={"classes": ("a", "b")}))
    kind = "image that train has more than once, with different annotations"
    assert found_in(check) == {kind: 1}
    assert the_example(check, kind) == " = ".join(map(str, lists.files[:3]))
    shutil.copy(lists.files[3], lists.files[2])
    check = checked(lists.config("ImageListDataset", metainfo={"classes": ("a", "b")}))
    kind = "image that train has more than once, with the same annotations"
    assert found_in(check) == {} and check.notes.counts == {kind: 2}


def test_a_broken_dataset_does_not_stop_the_others(boxes):
    config = boxes.config()
    (boxes.root / "train.json").write_text('{"images": [')
    check = checked(config, ("val", boxes.config("val")))
    assert check.images == 3
    assert list(found_in(check)) == ["dataset that cannot be loaded"]
    assert "train.json" in the_example(check, "dataset that cannot be loaded")
    assert "none could be loaded" in as_text(check) and not as_data(check)["complete"]


def test_garbled_jpeg_becomes_a_note(boxes):
    data = bytearray(boxes.files[0].read_bytes())
    data[-300:-200] = b"\xff\xd0" * 50
    boxes.files[0].write_bytes(data)
    check = checked(boxes.config(), workers=1)
    assert not found_in(check)
    (note,) = check.scans[0].notes.examples("image that the decoder complains of")
    assert str(boxes.files[0]) in note and "Corrupt JPEG" in note


def test_orientations_depths_and_further_pages_become_notes(boxes):
    def name(index, suffix):
        file = boxes.files[index].with_suffix(suffix)
        boxes.content["train"]["images"][index]["file_name"] = file.name
        return file

    upside_down = Image.Exif()
    upside_down[0x112] = 3
    first, second, third = (Image.fromarray(picture(index)) for index in range(3))
    first.save(name(0, ".png"), exif=upside_down)
    write(name(1, ".png"), np.array(second).astype(np.uint16) * 16)
    third.save(name(2, ".tiff"), save_all=True, append_images=[second])
    kind = "image with an EXIF orientation {}: are its annotations too?"
    others = {
        "image of 16 bits, which is nearly black": 1,
        "image file of several pages or frames, of which the first is read": 1,
    }
    check = checked(boxes.config())
    turned = kind.format("by which it is turned or mirrored")
    assert found_in(check) == {} and check.scans[0].notes.counts == {turned: 1, **others}
    [note] = check.scans[0].notes.examples(turned)
    assert note.endswith("0.png: orientation 3 of 1 to 8")
    [dark] = check.scans[0].notes.examples("image of 16 bits, which is nearly black")
    assert dark.endswith("1.png: values up to 4,080 of 65,535")
    config = boxes.config()
    config["pipeline"][0] = {**LOAD, "color_type": "color_ignore_orientation"}
    check = checked(config, workers=1)
    stored = kind.format("that is read as stored")
    assert check.scans[0].notes.counts == {stored: 1, **others}


class Halve:
    """Stands for a transform with a resize of its own."""

    def __call__(self, results):
        results["img"] = cv2.resize(results["img"], None, fx=0.5, fy=0.5)
        return results


def test_thin_images_become_a_note_and_what_no_pipeline_takes_a_problem(boxes, monkeypatch):
    for index, height in enumerate((6000, 6000)):
        write(boxes.files[index], picture(index, 3, height))
        boxes.content["train"]["images"][index].update(width=3, height=height)
    boxes.content["train"]["annotations"] = []
    config = boxes.config()
    config["pipeline"][1] = {"type": "mmdet.Resize", "scale": (96, 72), "keep_ratio": True}
    check = checked(("val", config))
    kind = "image more than 20 times as long as wide"
    assert not found_in(check) and check.scans[0].notes.counts[kind] == 2
    [note] = check.scans[0].notes.examples(kind)
    assert note.endswith("0.jpg: 3 x 6000 becomes 1 x 96")
    monkeypatch.setitem(TRANSFORMS.module_dict, "Halve", Halve)
    config["pipeline"].insert(2, {"type": "mmengine.Halve"})
    check = checked(("val", config))
    kind = "image of a shape that the pipeline cannot take"
    assert found_in(check) == {kind: 2}
    assert "0.jpg: 3 x 6000: " in the_example(check, kind)


class Foreign(BaseDataset):
    """A set of another package, whose transforms check nothing."""

    def load_data_list(self):
        names = sorted(os.listdir(self.data_root))
        return [
            {"img_path": os.path.join(self.data_root, name), "height": 32, "width": 40}
            for name in names
        ]


class LoadLeniently:
    """Stands for a decoder that fills what is missing with gray, and that may crash."""

    def __call__(self, results):
        path = results["img_path"]
        if path.endswith("kill.jpg"):
            os.kill(os.getpid(), signal.SIGKILL)
        data = np.fromfile(path, np.uint8)
        if data[:2].tobytes() != b"\xff\xd8":
            raise ValueError("neither JPEG nor JPEG")
        image = cv2.imdecode(data, cv2.IMREAD_COLOR)
        results["img"] = np.full((32, 40, 3), 128, np.uint8) if image is None else image
        results["ori_shape"] = results["img"].shape[:2]
        return results


@pytest.fixture
def foreign(tmp_path, monkeypatch):
    """The config of a set of five pictures, three of which are bad."""
    monkeypatch.setitem(TRANSFORMS.module_dict, "LoadLeniently", LoadLeniently)
    monkeypatch.setitem(DATASETS.module_dict, "Foreign", Foreign)
    init_default_scope("mmengine")
    for number, name in enumerate(("a", "b", "c", "d", "e")):
        write(tmp_path / f"{name}.jpg", picture(number))
    (tmp_path / "b.jpg").write_bytes((tmp_path / "b.jpg").read_bytes()[:-50])
    (tmp_path / "c.jpg").write_text("no image")
    write(tmp_path / "d.jpg", picture(3, 30, 20))
    return {"type": "Foreign", "data_root": str(tmp_path), "pipeline": [{"type": "LoadLeniently"}]}


def test_sets_of_other_packages(foreign):
    check = checked(foreign)
    assert check.images == 5
    assert found_in(check) == {
        "truncated image, which this pipeline does not notice": 1,
        "image of another size than annotated, which this pipeline does not notice": 1,
        "ValueError in LoadLeniently": 1,
    }
    example = the_example(check, "ValueError in LoadLeniently")
    assert example == f"{foreign['data_root']}/c.jpg: neither JPEG nor JPEG"


def test_a_sample_that_kills_the_process_is_named(foreign, tmp_path):
    write(tmp_path / "kill.jpg", picture(9))
    check = checked(foreign, workers=2)
    kind = "sample that the process died of"
    assert check.images == 6 and found_in(check)[kind] == 1
    assert "SIGKILL" in the_example(check, kind)


def test_ctrl_c_reports_what_was_found_so_far(boxes):
    truncate(boxes.files[0])
    check = DataCheck([("train", boxes.config()), ("val", boxes.config("val"))])

    def interrupted(samples, scan):
        for count, step in enumerate(samples, 1):
            yield step
            if count == 2:
                raise KeyboardInterrupt

    check.run(1, interrupted)
    assert check.interrupted and check.images == 2
    # Classes of a set that was read in part are not missed.
    assert found_in(check) == {"truncated image": 1}
    assert "interrupted: 1 problem in 2 of 3 images" in as_text(check)
    assert as_data(check)["complete"] is False


def test_data_and_text_agree(boxes):
    truncate(boxes.files[0])
    check = checked(boxes.config())
    data = json.loads(json.dumps(as_data(check)))
    (scan,) = data["datasets"]
    assert scan["samples"] == scan["read"] == 3 and scan["unusable"] == 1
    assert scan["problems"][0]["kind"] == "truncated image" and scan["problems"][0]["count"] == 1
    assert scan["sizes"] == [{"width": 40, "height": 32, "images": 2}]
    assert [(c["name"], c["amount"], c["images"]) for c in scan["classes"]] == [
        ("cat", 2, 2),
        ("dog", 2, 2),
    ]
    text = as_text(check)
    assert "3 of 3 read, 1 of them unusable" in text and "1 x truncated image" in text
    assert str(boxes.files[0]) in text


def test_a_config_without_datasets_has_no_problem():
    assert not checked().number_of_problems
