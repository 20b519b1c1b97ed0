"""Writing COCO, YOLO and VOC: a round trip loses nothing that the format can hold."""

import json
from collections import Counter

import cv2
import numpy as np
import pytest
from helpers import folders
from helpers.folders import CLASSES, SPLITS, picture, text

from negvision.data.formats.coco_masks import to_run_lengths
from negvision.data.formats.contents import Instance
from negvision.data.formats.converting import convert, with_objects
from negvision.data.formats.folder import read_folder
from negvision.data.formats.masks import polygon_area
from negvision.errors import DatasetError

TARGETS = ("coco", "yolo", "voc")


def content(data) -> dict:
    """What is in each split, whatever the images are called."""
    return {
        split: sorted(
            sorted(
                (data.classes[i.label], tuple(round(v, 4) for v in i.box), i.ignore)
                for i in image.instances
            )
            for image in data.split(split)
        )
        for split in data.splits
    }


def written(data, to, folder):
    folder.mkdir()
    return convert(data, to, folder), read_folder(folder)


@pytest.mark.parametrize("to", TARGETS)
@pytest.mark.parametrize(
    "make",
    [folders.yolo, folders.voc, folders.cvat, folders.labelme],
    ids=lambda make: make.__name__,
)
def test_round_trip_of_boxes(tmp_path, make, to):
    data = read_folder(make(tmp_path / "source"))
    lost, again = written(data, to, tmp_path / to)
    assert not lost and not again.notes
    assert content(again) == content(data)
    assert again.classes == CLASSES and again.format == {"coco": "COCO", "yolo": "YOLO"}.get(
        to, "Pascal VOC"
    )
    found = {hash((again.root / i.name).read_bytes()) for i in again.images}
    assert found == {hash((data.root / i.name).read_bytes()) for i in data.images}


def with_masks(root):
    """Every object has an outline; one has two parts, one is run lengths with a hole."""
    data = read_folder(folders.yolo(root, shape="polygon"))
    parts = [[4.0, 4.0, 12.0, 4.0, 12.0, 10.0], [20.0, 20.0, 30.0, 20.0, 30.0, 30.0, 20.0, 30.0]]
    data.images[-1].instances.append(Instance(0, (4, 4, 26, 26), parts))
    mask = np.zeros((60, 80), np.uint8)
    mask[10:30, 10:40] = 1
    mask[15:20, 20:25] = 0
    data.images[0].instances.append(
        Instance(1, (10, 10, 30, 20), rle=to_run_lengths(mask[None])[0])
    )
    return data


def test_masks_of_coco_are_kept(tmp_path):
    data = with_masks(tmp_path / "source")
    lost, again = written(data, "coco", tmp_path / "coco")
    assert not lost and again.has_masks
    ours = [i for image in data.images for i in image.instances]
    theirs = {tuple(map(tuple, i.polygons)) for image in again.images for i in image.instances}
    assert theirs == {tuple(map(tuple, i.polygons)) for i in ours}
    rles = [i.rle for image in again.images for i in image.instances if i.rle]
    assert rles == [i.rle for i in ours if i.rle]


def test_masks_of_yolo_keep_their_area(tmp_path):
    data = with_masks(tmp_path / "source")
    lost, again = written(data, "yolo", tmp_path / "yolo")
    assert again.has_masks and content(again) == content(data)
    assert lost.counts == {
        "mask of several parts, written as one outline that joins them": 1,
        "hole of a mask, which an outline does not hold: filled": 1,
    }
    joined = [i.polygons for i in again.images[-1].instances if len(i.polygons[0]) > 14]
    assert polygon_area(joined[0]) == pytest.approx(24 + 100, abs=1e-4)
    # The traced mask covers its pixels exactly, apart from the hole.
    traced = next(i for i in again.images[0].instances if i.box == pytest.approx((10, 10, 30, 20)))
    assert polygon_area(traced.polygons) == pytest.approx(600)


@pytest.mark.parametrize("seed", range(5))
def test_traced_masks_cover_the_same_pixels(seed):
    from negvision.data.formats.masks import outlines
    from negvision.errors import Problems

    random = np.random.default_rng(seed)
    noise = random.random((30, 40)).astype(np.float32)
    mask = (cv2.GaussianBlur(noise, (7, 7), 0) > 0.5).astype(np.uint8)
    # Without holes, which outlines do not hold.
    filled = np.zeros_like(mask)
    contours, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(filled, contours, -1, 1, cv2.FILLED)
    parts = outlines(filled, Problems(), "a")
    assert sum(polygon_area([part]) for part in parts) == pytest.approx(filled.sum(), rel=0.1)
    x, y = np.meshgrid(np.arange(40) + 0.5, np.arange(30) + 0.5)
    inside = np.zeros(filled.shape, bool)
    for part in parts:
        points = np.array(part, np.float32).reshape(-1, 1, 2)
        tested = [cv2.pointPolygonTest(points, p, False) > 0
                  for p in zip(x.ravel().tolist(), y.ravel().tolist(), strict=True)]  # fmt: skip
        inside |= np.array(tested).reshape(inside.shape)
    assert (inside != (filled > 0)).mean() < 0.03


def test_what_a_format_does_not_hold_is_counted(tmp_path):
    data = read_folder(folders.cvat(tmp_path / "source"))
    first = data.images[0].instances
    first[0].ignore = True
    first[1].polygons = [[0.0, 0.0, 16.0, 0.0, 16.0, 12.0]]
    lost, again = written(data, "yolo", tmp_path / "yolo")
    assert lost.counts == {
        "object to ignore, which YOLO does not hold: left out": 1,
        "mask, left out: YOLO holds masks only if every object has one": 1,
    }
    assert again.counts()[0] == ("train", 3, 1, 2, 0)
    lost, again = written(data, "voc", tmp_path / "voc")
    assert lost.counts == {"mask, which VOC's annotations do not hold: left out": 1}
    assert content(again) == content(data)
    lost, again = written(data, "coco", tmp_path / "coco")
    assert not lost and content(again) == content(data)


@pytest.mark.parametrize("to", TARGETS)
def test_images_of_one_name_stay_apart(tmp_path, to):
    for split in ("train", "val"):
        for folder in "xy":
            for suffix in ("jpg", "png"):
                name = f"{split}/{folder}/{suffix}/1"
                picture(tmp_path / f"source/{name}.{suffix}", len(name) + ord(folder))
                text(tmp_path / f"source/{name}.txt", "0 0.5 0.5 0.5 0.5\n")
    data = read_folder(tmp_path / "source")
    _, again = written(data, to, tmp_path / to)
    assert {s: len(p) for s, p in again.splits.items()} == {"train": 4, "val": 4}
    bytes_of = lambda d: Counter((d.root / i.name).read_bytes() for i in d.images)  # noqa: E731
    assert bytes_of(again) == bytes_of(data)


@pytest.mark.parametrize("to", TARGETS)
def test_an_image_of_two_splits_stays_in_both(tmp_path, to):
    root = folders.voc(tmp_path / "source")
    (root / "ImageSets/Main/val.txt").write_text("c\nb\n")
    data = read_folder(root)
    _, again = written(data, to, tmp_path / to)
    assert content(again) == content(data)


def test_without_splits(tmp_path):
    data = read_folder(folders.voc(tmp_path / "source", lists=False))
    for to in TARGETS:
        _, again = written(data, to, tmp_path / to)
        assert list(again.splits) == (["train"] if to == "yolo" else [])
        assert len(again.images) == 5


def test_connected_regions_become_objects(tmp_path):
    mask = np.zeros((60, 80), np.uint8)
    mask[5:15, 10:30] = 255
    mask[30:40, 50:70] = 255
    picture(tmp_path / "images/a.jpg", 0)
    (tmp_path / "masks").mkdir()
    cv2.imwrite(str(tmp_path / "masks/a.png"), mask)
    data = with_objects(read_folder(tmp_path))
    assert data.classes == ("foreground",)
    assert [i.box for i in data.images[0].instances] == [(10, 5, 20, 10), (50, 30, 20, 10)]
    assert [i.area for i in data.images[0].instances] == [200, 200]


def test_classes_of_images_are_no_boxes(tmp_path):
    for name in ("cat/1.jpg", "dog/1.jpg"):
        picture(tmp_path / name, ord(name[0]))
    with pytest.raises(DatasetError, match="have a class each"):
        with_objects(read_folder(tmp_path))


def test_a_coco_file_trains(tmp_path):
    from negvision.data.formats.datasets import dataset_configs
    from negvision.registry import DATASETS

    data = read_folder(folders.yolo(tmp_path / "source", shape="polygon"))
    configs = dataset_configs(data, tmp_path / "work")
    assert list(configs) == list(SPLITS)
    dataset = DATASETS.build(dict(configs["train"], pipeline=[]))
    assert dataset.metainfo["classes"] == CLASSES and len(dataset) == 3
    assert dataset.get_data_info(0)["instances"][0]["bbox"] == pytest.approx([10, 20, 40, 30])
    assert json.loads((tmp_path / "work/val.json").read_text())["annotations"][0]["segmentation"]
