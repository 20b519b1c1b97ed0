"""Write one small detection set in every format, to read it back."""

import json
from pathlib import Path

import cv2
import numpy as np

CLASSES = ("cat", "dog")
SIZE = (60, 80)  # height, width
# Image -> label and box (x, y, width, height in pixels); the last one is background.
OBJECTS = {
    "a": [(0, (10, 20, 30, 10)), (1, (0, 0, 16, 12))],
    "b": [(1, (8, 6, 40, 30))],
    "c": [(0, (40, 30, 40, 30))],
    "d": [(1, (20, 12, 4, 6))],
    "e": [],
}
SPLITS = {"train": ("a", "b", "e"), "val": ("c",), "test": ("d",)}


def split_of(name: str) -> str:
    return next(split for split, names in SPLITS.items() if name in names)


def picture(path: Path, seed: int, size: tuple[int, int] = SIZE) -> Path:
    """Write an image that looks like no other with another seed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    coarse = np.random.default_rng(seed).integers(0, 255, (6, 8, 3), np.uint8)
    cv2.imwrite(str(path), cv2.resize(coarse, size[::-1], interpolation=cv2.INTER_CUBIC))
    return path


def pictures(root: Path, form: str = "images/{name}.jpg") -> None:
    """All images; ``form`` may use ``split`` and ``name``."""
    for seed, name in enumerate(OBJECTS):
        picture(root / form.format(name=name, split=split_of(name)), seed)


def text(path: Path, content: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))


def yolo_rows(name: str, shape: str = "box") -> str:
    rows = []
    for label, (x, y, w, h) in OBJECTS[name]:
        points = {
            "box": (x + w / 2, y + h / 2, w, h),
            "polygon": (x, y, x + w, y, x + w, y + h, x + w / 2, y + h, x, y + h),
            "quad": (x, y, x + w, y, x + w, y + h, x, y + h),
        }[shape]
        scaled = [value / (SIZE[1], SIZE[0])[i % 2] for i, value in enumerate(points)]
        rows.append(" ".join(map(str, [label, *scaled])))
    return "".join(f"{row}\n" for row in rows)


def yolo(
    root: Path,
    images: str = "images/{split}/{name}.jpg",
    labels: str = "labels/{split}/{name}.txt",
    config: str | None = "train: images/train\nval: images/val\ntest: images/test\n",
    shape: str = "box",
) -> Path:
    pictures(root, images)
    for name in OBJECTS:
        rows = yolo_rows(name, shape)
        if rows:
            text(root / labels.format(name=name, split=split_of(name)), rows)
    if config is not None:
        text(root / "data.yaml", f"{config}names: [cat, dog]\n")
    return root


def coco_content(names, form: str = "{name}.jpg") -> dict:
    images = [
        {"id": i, "file_name": form.format(name=n, split=split_of(n)), "width": 80, "height": 60}
        for i, n in enumerate(names)
    ]
    objects = [(i, *item) for i, n in enumerate(names) for item in OBJECTS[n]]
    annotations = [
        {"id": k, "image_id": i, "category_id": label + 1, "bbox": list(box), "area": 1}
        for k, (i, label, box) in enumerate(objects)
    ]
    categories = [{"id": i, "name": name} for i, name in enumerate(CLASSES, 1)]
    return {"images": images, "annotations": annotations, "categories": categories}


def voc_xml(name: str, first: int = 1) -> str:
    objects = "".join(
        f"<object><name>{CLASSES[label]}</name><bndbox><xmin>{x + first}</xmin><ymin>{y + first}"
        f"</ymin><xmax>{x + w}</xmax><ymax>{y + h}</ymax></bndbox></object>"
        for label, (x, y, w, h) in OBJECTS[name]
    )
    size = "<size><width>80</width><height>60</height><depth>3</depth></size>"
    return f"<annotation><filename>{name}.jpg</filename>{size}{objects}</annotation>"


def voc(root: Path, annotations: str = "Annotations", lists: bool = True, first: int = 1) -> Path:
    pictures(root, "JPEGImages/{name}.jpg")
    for name in OBJECTS:
        text(root / annotations / f"{name}.xml", voc_xml(name, first))
    for split, names in SPLITS.items() if lists else ():
        text(root / f"ImageSets/Main/{split}.txt", "".join(f"{n}\n" for n in names))
    return root


def cvat(root: Path, extra: str = "") -> Path:
    pictures(root)
    items = []
    for number, name in enumerate(OBJECTS):
        boxes = "".join(
            f'<box label="{CLASSES[label]}" xtl="{x}" ytl="{y}" xbr="{x + w}" ybr="{y + h}"/>'
            for label, (x, y, w, h) in OBJECTS[name]
        )
        subset = split_of(name).title()
        items.append(
            f'<image id="{number}" name="{name}.jpg" subset="{subset}" width="80" height="60">'
            f"{boxes}{extra if name == 'b' else ''}</image>"
        )
    labels = "".join(f"<label><name>{name}</name></label>" for name in CLASSES)
    meta = f"<version>1.1</version><meta><job><labels>{labels}</labels></job></meta>"
    text(root / "annotations.xml", f"<annotations>{meta}{''.join(items)}</annotations>")
    return root


def studio_value(box) -> dict:
    x, y, w, h = box
    return {"x": x / 0.8, "y": y / 0.6, "width": w / 0.8, "height": h / 0.6, "rotation": 0}


def label_studio(root: Path, minimal: bool = False, address: str = "/data/upload/1/{}") -> Path:
    pictures(root)
    tasks = []
    for number, name in enumerate(OBJECTS):
        regions = [
            {**studio_value(box), "rectanglelabels": [CLASSES[label]]}
            for label, box in OBJECTS[name]
        ]
        image = address.format(f"{number:08x}-{name}.jpg")
        if minimal:
            tasks.append({"image": image, "id": number, "label": regions, "annotator": 1})
            continue
        result = [
            {"type": "rectanglelabels", "value": region, "id": str(i), "original_width": 80}
            for i, region in enumerate(regions)
        ]
        tasks.append({"data": {"image": image}, "annotations": [{"result": result}]})
    text(root / "project.json", tasks)
    return root


def labelme(root: Path, form: str = "{split}/{name}") -> Path:
    pictures(root, form + ".jpg")
    for name in OBJECTS:
        shapes = [
            {
                "label": CLASSES[label],
                "points": [[x + w, y], [x, y + h]],
                "shape_type": "rectangle",
                "group_id": None,
            }
            for label, (x, y, w, h) in OBJECTS[name]
        ]
        content = {"version": "5.2.1", "shapes": shapes, "imagePath": f"..\\old\\{name}.jpg"}
        path = root / f"{form.format(name=name, split=split_of(name))}.json"
        text(path, {**content, "imageHeight": 60, "imageWidth": 80, "imageData": None})
    return root


def table(root: Path, header: str, row: str, images: str = "{split}/{name}.jpg") -> Path:
    """A CSV file; ``row`` may use name, split, label, x, y, w, h, r, b."""
    pictures(root, images)
    lines = [header] if header else []
    for name in OBJECTS:
        for label, (x, y, w, h) in OBJECTS[name]:
            places = {"x": x, "y": y, "w": w, "h": h, "r": x + w, "b": y + h}
            places |= {"X": x / 80, "Y": y / 60, "R": (x + w) / 80, "B": (y + h) / 60}
            lines.append(
                row.format(name=name, split=split_of(name), label=CLASSES[label], **places)
            )
    text(root / "boxes.csv", "\n".join(lines) + "\n")
    return root
