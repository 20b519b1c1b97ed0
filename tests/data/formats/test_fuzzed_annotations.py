"""Damaged annotation files of every format load or raise an error that names them."""

import json
import pickle
import struct
import time

import cv2
import numpy as np
import pytest
from helpers.mutations import mutations

from negvision.classification.datasets import ImageListDataset, PackedImageDataset
from negvision.data.formats.coco_file import find_classes, read_coco_file
from negvision.data.images.loading import LoadImageFromFile
from negvision.data.splits import read_image_list, split_coco
from negvision.detection.datasets import CocoDataset
from negvision.detection.metrics.coco_annotations import load_coco_annotations
from negvision.errors import UserError
from negvision.face.datasets import (
    AlignFace,
    FaceBinDataset,
    FaceIdentificationDataset,
    FaceListDataset,
    FacePairDataset,
    FaceRecordDataset,
    FaceTemplateDataset,
)

NAMES = ["a.jpg", "b.jpg", "c.jpg", "d.jpg"]
LOAD = [LoadImageFromFile(max_pixels=1 << 20)]
POINTS = "38.3 51.7 73.5 51.5 56.0 71.7 41.5 92.4 70.7 92.2"
LIST = "".join(f"{name} {label}\n" for name, label in zip(NAMES, (0, 0, 1, 1), strict=True))


def jpeg(number: int) -> bytes:
    noise = np.random.default_rng(number).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    return cv2.imencode(".jpg", noise)[1].tobytes()


def coco() -> dict:
    box = {"bbox": [2.5, 3, 10, 8.25], "area": 82.5, "iscrowd": 0}
    images = [{"id": i, "file_name": n, "width": 30, "height": 20} for i, n in enumerate(NAMES)]
    annotations = [
        {"id": i + 1, "image_id": i // 2, "category_id": 1 + i % 2, **box} for i in range(8)
    ]
    categories = [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}]
    return {"images": images, "annotations": annotations, "categories": categories}


def records() -> tuple[bytes, bytes]:
    """``train.rec`` of four images, two identities and the header, and its index."""
    contents = {i + 1: struct.pack("<IfQQ", 0, i // 2, 0, 0) + jpeg(i) for i in range(4)}
    for key, pair in ((5, (1, 3)), (6, (3, 5)), (0, (5, 7))):
        contents[key] = struct.pack("<IfQQff", 2, 0, 0, 0, *pair)
    data, index = b"", b""
    for key, content in contents.items():
        index += f"{key}\t{len(data)}\n".encode()
        data += struct.pack("<II", 0xCED7230A, len(content)) + content + bytes(-len(content) % 4)
    return data, index


def pack(path) -> bytes:
    data = [jpeg(i) for i in range(4)]
    offsets = np.cumsum([0, *map(len, data)])
    array = np.frombuffer(b"".join(data), np.uint8)
    np.savez(path, data=array, offsets=offsets, labels=np.arange(4) % 2, classes=["a", "b"])
    return path.read_bytes()


def lists(kind, **options):
    def load(root, mode):
        return kind(data_root=str(root), pipeline=LOAD, on_bad_sample=mode, **options)

    return load


def splits(root, mode):
    path = str(root / "x.json")
    split_coco(read_coco_file(path), {"dog"}, path)


def evaluator(root, mode):
    path = root / "x.json"
    content = load_coco_annotations(path)
    find_classes(str(path), content, ["cat"])


FACES = {"data_prefix": {"img": ""}}


@pytest.fixture(autouse=True)
def _no_collection(monkeypatch):
    """MMEngine collects garbage for each dataset that it makes, which takes half a second."""
    monkeypatch.setattr("gc.collect", lambda *_: 0)


@pytest.fixture
def root(tmp_path):
    for number, name in enumerate(NAMES):
        (tmp_path / name).write_bytes(jpeg(number))
    rec, idx = records()
    files = {
        "x.json": json.dumps(coco()).encode(),
        "list.txt": LIST.encode(),
        "gallery.txt": b"a.jpg 0\nc.jpg 1\n",
        "probes.txt": b"b.jpg 0\nd.jpg 7\n",
        "points.txt": "".join(f"{name} {POINTS}\n" for name in NAMES).encode(),
        "pairs.txt": b"a.jpg b.jpg 1\nc.jpg d.jpg 1\na.jpg c.jpg 0\n",
        "lfw.txt": b"1 1\nAnn 1 2\nAnn 1 Bob 1\n",
        "templates.txt": "".join(f"{n} {1 + i // 2} {i}\n" for i, n in enumerate(NAMES)).encode(),
        "template_pairs.txt": b"1 2 0\n1 1 1\n",
        "x.bin": pickle.dumps(([jpeg(0), jpeg(1), jpeg(2), jpeg(3)], [True, False])),
        "old.bin": pickle.dumps(
            ([np.frombuffer(jpeg(i), np.uint8) for i in range(4)], np.array([True, False])),
            protocol=2,
        ),
        "train.rec": rec,
        "train.idx": idx,
        "segments.txt": "".join(f"{name[0]}\n" for name in NAMES).encode(),
        "classes.txt": b"0 sky\n1 road\n2 car\n",
        "x.npz": pack(tmp_path / "x.npz"),
    }
    for name, number in (("Ann/Ann_0001", 0), ("Ann/Ann_0002", 1), ("Bob/Bob_0001", 2)):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / f"{name}.jpg").write_bytes(jpeg(number))
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    return tmp_path


def segmentation(**options):
    def load(root, mode):
        folder = pytest.importorskip("negvision.segmentation.datasets.folder")
        prefix = {"img_path": "", "seg_map_path": ""}
        return folder.SegDataset(
            data_root=str(root), data_prefix=prefix, seg_map_suffix=".jpg", pipeline=LOAD,
            ann_file="segments.txt", on_bad_sample=mode, **options,
        )  # fmt: skip

    return load


def aligned(root, mode):
    return FaceListDataset(
        data_root=str(root), ann_file="list.txt", landmarks_file="points.txt", on_bad_sample=mode,
        pipeline=[*LOAD, AlignFace()], **FACES,
    )  # fmt: skip


# File that is damaged, how many times, and what reads it.
FORMATS = {
    "coco": ("x.json", 60, lists(CocoDataset, ann_file="x.json", data_prefix={"img": ""})),
    "coco-evaluator": ("x.json", 40, evaluator),
    "coco-splits": ("x.json", 40, splits),
    "images": ("list.txt", 30, lists(ImageListDataset, ann_file="list.txt")),
    "image-splits": ("list.txt", 20, lambda root, _: read_image_list(root / "list.txt", ["a"] * 2)),
    "pack": ("x.npz", 40, lists(PackedImageDataset, ann_file="x.npz")),
    "faces": ("list.txt", 30, lists(FaceListDataset, ann_file="list.txt")),
    "landmarks": ("points.txt", 30, aligned),
    "pairs": ("pairs.txt", 30, lists(FacePairDataset, ann_file="pairs.txt")),
    "lfw": ("lfw.txt", 30, lists(FacePairDataset, ann_file="lfw.txt")),
    "identification": (
        "probes.txt", 30,
        lists(FaceIdentificationDataset, ann_file="gallery.txt", probe_file="probes.txt"),
    ),
    "templates": (
        "templates.txt", 20,
        lists(FaceTemplateDataset, ann_file="points.txt", template_file="templates.txt",
              pairs_file="template_pairs.txt"),
    ),
    "template-pairs": (
        "template_pairs.txt", 20,
        lists(FaceTemplateDataset, ann_file="points.txt", template_file="templates.txt",
              pairs_file="template_pairs.txt"),
    ),
    "bin": ("x.bin", 50, lists(FaceBinDataset, ann_file="x.bin")),
    "old-bin": ("old.bin", 50, lists(FaceBinDataset, ann_file="old.bin")),
    "rec": ("train.rec", 50, lists(FaceRecordDataset, ann_file="train.rec")),
    "idx": ("train.idx", 30, lists(FaceRecordDataset, ann_file="train.rec")),
    "segments": ("segments.txt", 30, segmentation(metainfo={"classes": ["sky"]})),
    "classes": ("classes.txt", 30, segmentation(classes_file="classes.txt")),
}  # fmt: skip


def read_all(load, root, mode) -> None:
    """Load a dataset and each of its samples."""
    dataset = load(root, mode)
    if not hasattr(dataset, "prepare_data"):
        return
    assert len(dataset) < 1000
    for index in range(len(dataset)):
        dataset.prepare_data(index)


def outcome(load, root, name: str, mode: str) -> bool:
    """Whether it loaded; any error must be a user's that names the file or one beside it."""
    try:
        read_all(load, root, mode)
    except UserError as error:
        assert str(root) in str(error), f"{error} does not name {name}"
        return False
    return True


@pytest.mark.parametrize("name", FORMATS)
def test_damaged_files(root, name):
    file, count, load = FORMATS[name]
    whole = (root / file).read_bytes()
    assert outcome(load, root, file, "error")
    start, loaded = time.process_time(), 0
    for data in mutations(whole, whole[::-1], count, seed=len(whole)):
        (root / file).write_bytes(data)
        for mode in ("error", "skip"):
            loaded += outcome(load, root, file, mode)
    assert time.process_time() - start < 60
    assert loaded < 2 * count


VALUES = [
    None, True, -1, 0, 1.5, 1 << 70, -(1 << 70), 1e308, float("nan"), float("inf"), "", "x", "1",
    "\0", "\ud800", "../x", [], [1], [[]], {}, {"id": 1}, "9" * 5000, "a" * 3000,
]  # fmt: skip


@pytest.mark.parametrize("name", ["coco", "coco-evaluator", "coco-splits"])
def test_values_of_wrong_types_in_coco(root, name):
    """Every kind of value at every kind of place."""
    content = coco()
    places = [p for p in _places(content) if len(p) < 2 or p[1] in (0, 1)]
    for number, path in enumerate(places):
        for value in VALUES[number % 3 :: 3]:
            changed = json.loads(json.dumps(content))
            node = changed
            for key in path[:-1]:
                node = node[key]
            node[path[-1]] = value
            (root / "x.json").write_text(json.dumps(changed))
            for mode in ("error", "skip"):
                outcome(FORMATS[name][2], root, "x.json", mode)


def _places(node, path=()):
    if path:
        yield path
    if isinstance(node, list):
        node = dict(enumerate(node))
    for key, value in node.items() if isinstance(node, dict) else ():
        yield from _places(value, (*path, key))


@pytest.mark.parametrize(
    "text", ["[" * 100_000, '{"a":' * 100_000, '{"images": [' + "9" * 5000 + "]}", '{"x": 1e999}']
)
@pytest.mark.parametrize("name", ["coco", "coco-evaluator"])
def test_json_that_is_hard_to_parse(root, name, text):
    (root / "x.json").write_text(text)
    assert not outcome(FORMATS[name][2], root, "x.json", "error")


NUMBERS = ["9" * 5000, "9" * 30, "-" + "9" * 30, "²", "٣", "1e5", "0x1", "1_000", "+1", "nan"]


@pytest.mark.parametrize("number", NUMBERS, ids=range(len(NUMBERS)))
def test_numbers_in_lists(root, number):
    """What is no number of 64 bits is a fault of its line."""
    lines = {
        "list.txt": f"a.jpg {number}\n",
        "probes.txt": f"b.jpg {number}\n",
        "pairs.txt": f"a.jpg b.jpg {number}\n",
        "lfw.txt": f"1 {number}\nAnn {number} 2\nAnn 1 Bob {number}\n",
        "templates.txt": "".join(f"{name} {number} {number}\n" for name in NAMES),
        "template_pairs.txt": f"{number} 2 0\n",
        "train.idx": f"0\t0\n1\t{number}\n{number}\t0\n",
        "classes.txt": f"{number} sky\n",
        "points.txt": "".join(f"{name} {' '.join([number] * 10)}\n" for name in NAMES),
    }
    for name, (file, _, load) in FORMATS.items():
        if file in lines:
            whole = (root / file).read_bytes()
            (root / file).write_text(lines[file])
            for mode in ("error", "skip"):
                try:
                    outcome(load, root, file, mode)
                except AssertionError:
                    raise
                except Exception as error:
                    raise AssertionError(f"{name}: {type(error).__name__}: {error}") from error
            (root / file).write_bytes(whole)
