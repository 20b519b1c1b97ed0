"""Small datasets of each task on disk, intact until a test damages them."""

import json
import struct
from pathlib import Path

import cv2
import numpy as np

LOAD = {"type": "negvision.LoadImageFromFile"}


def picture(number: int, width: int = 40, height: int = 32) -> np.ndarray:
    """Noise; another for each number."""
    return np.random.default_rng(number).integers(0, 256, (height, width, 3), dtype=np.uint8)


def write(path: Path, image: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), image)
    return path


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


class Boxes:
    """Six pictures with a cat and a dog each: three of train, three of val."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.files = [
            write(root / ("train", "val")[n > 2] / f"{n}.jpg", picture(n)) for n in range(6)
        ]
        categories = [{"id": 3, "name": "cat"}, {"id": 7, "name": "dog"}]
        self.content = {
            split: {
                "images": [
                    {"id": n, "file_name": f"{n}.jpg", "width": 40, "height": 32} for n in numbers
                ],
                "annotations": [
                    {
                        "id": 2 * n + k,
                        "image_id": n,
                        "category_id": (3, 7)[k],
                        "bbox": [4 + 12 * k, 5, 10, 11],
                        "area": 110,
                        "iscrowd": 0,
                    }
                    for n in numbers
                    for k in (0, 1)
                ],
                "categories": categories,
            }
            for split, numbers in (("train", range(3)), ("val", range(3, 6)))
        }

    def config(self, split: str = "train", **options) -> dict:
        (self.root / f"{split}.json").write_text(json.dumps(self.content[split]))
        return {
            "type": "negvision.CocoDataset",
            "data_root": str(self.root),
            "ann_file": f"{split}.json",
            "data_prefix": {"img": split},
            "pipeline": [
                LOAD,
                {"type": "mmdet.Resize", "scale": (64, 64)},
                {"type": "mmdet.LoadAnnotations", "with_bbox": True},
                {"type": "mmdet.PackDetInputs"},
            ],
            **options,
        }


class Pixels:
    """Three pictures of sky, road and void."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.files = [write(root / "img" / f"{n}.jpg", picture(n)) for n in range(3)]
        ids = np.full((32, 40), 255, np.uint8)
        ids[:10], ids[10:20] = 0, 1
        self.labels = [write(root / "ann" / f"{n}.png", np.roll(ids, n)) for n in range(3)]
        (root / "classes.txt").write_text("0 sky\n1 road\n")

    def config(self, **options) -> dict:
        return {
            "type": "negvision.SegDataset",
            "data_root": str(self.root),
            "classes_file": "classes.txt",
            "data_prefix": {"img_path": "img", "seg_map_path": "ann"},
            "pipeline": [LOAD, {"type": "negvision.LoadSegAnnotations"}],
            **options,
        }


class Lists:
    """Four images of two labels in a list, for faces and for classification."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.files = [write(root / f"{n}.jpg", picture(n, 24, 24)) for n in range(4)]
        self.lines = [f"{n}.jpg {n // 2}" for n in range(4)]

    def config(self, kind: str, lines=None, **options) -> dict:
        (self.root / "list.txt").write_text("\n".join(lines or self.lines) + "\n")
        pack = "PackFaceInputs" if kind.startswith("Face") else "PackImageInputs"
        return {
            "type": f"negvision.{kind}",
            "data_root": str(self.root),
            "ann_file": "list.txt",
            "pipeline": [LOAD, {"type": f"negvision.{pack}"}],
            **options,
        }

    def record_config(self, damaged: int | None = None, **options) -> dict:
        """The same images in a .rec; the first bytes of record ``damaged`` are overwritten."""
        content, index = bytearray(), []
        for n, file in enumerate(self.files):
            record = struct.pack("<IfQQ", 0, n // 2, n, 0) + file.read_bytes()
            index.append(f"{n}\t{len(content)}\n")
            content += struct.pack("<II", 0xCED7230A, len(record)) + record
            content += bytes(-len(content) % 4)
        if damaged is not None:
            at = int(index[damaged].split()[1])
            content[at : at + 4] = b"\0\0\0\0"
        (self.root / "list.rec").write_bytes(content)
        (self.root / "list.idx").write_text("".join(index))
        return self.config("FaceRecordDataset", **options) | {"ann_file": "list.rec"}
