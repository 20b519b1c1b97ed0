"""Relabeled label images compared with a loop over pixels."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from negvision.data.splits import label_tables, remaining_classes, write_label_images
from negvision.errors import DatasetError

IDS = {"sky": 0, "road": 3, "person": 4, "car": 7, "unlabeled": 11}
REMAINING, VOID = ("sky", "road", "car"), ("unlabeled",)


def by_hand(labels: np.ndarray, remaining, void) -> tuple[np.ndarray, np.ndarray]:
    classes, ood = np.zeros_like(labels), np.zeros_like(labels)
    for place in np.ndindex(labels.shape):
        names = [name for name, number in IDS.items() if number == labels[place]]
        if not names or names[0] in void:
            classes[place], ood[place] = 255, 255
        elif names[0] in remaining:
            classes[place], ood[place] = list(remaining).index(names[0]), 0
        else:
            classes[place], ood[place] = 255, 1
    return classes, ood


@given(
    st.lists(st.sampled_from([*IDS.values(), 255]), max_size=30),
    st.sets(st.sampled_from(list(IDS)), max_size=2),
    st.sets(st.sampled_from(list(IDS)), min_size=1, max_size=2),
)
def test_tables(pixels, void, held_out):
    labels = np.array(pixels, dtype=np.uint8)
    remaining = [name for name in IDS if name not in void | held_out]
    tables = label_tables(IDS, remaining, void)
    classes, ood = by_hand(labels, remaining, void)
    assert np.array_equal(tables.classes[labels], classes)
    assert np.array_equal(tables.ood[labels], ood)


def save(folder, name: str, labels, mode: str = "L") -> None:
    path = folder / "ann" / f"{name}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(np.array(labels, dtype=np.uint8))
    if mode == "P":
        image = image.convert("P")
        image.putdata(np.array(labels).ravel().tolist())
        image.putpalette([(7 * i) % 256 for i in range(768)])
    image.save(path)


def run(folder, drop_images: bool = False):
    (folder / "out").mkdir()
    tables = label_tables(IDS, REMAINING, VOID)
    return write_label_images(folder / "ann", folder / "out", IDS, tables, drop_images)


def read(folder, kind: str, name: str) -> np.ndarray:
    image = Image.open(folder / "out" / kind / f"{name}.png")
    assert image.mode == "L"
    return np.array(image)


@pytest.fixture
def labels(tmp_path) -> dict[str, np.ndarray]:
    """Three images: gray in a folder of its own, with a palette, and one without a person."""
    rng = np.random.default_rng(0)
    images = {
        "a/1": rng.choice([*IDS.values(), 255], size=(5, 9)),
        "b/1": rng.choice(list(IDS.values()), size=(4, 4)),
        "c": rng.choice([0, 3, 11], size=(6, 3)),
    }
    for name, mode in zip(images, "LPL", strict=True):
        save(tmp_path, name, images[name], mode)
    return images


def test_every_label_image_is_relabeled(tmp_path, labels):
    counts = run(tmp_path)
    for name, image in labels.items():
        classes, ood = by_hand(image, REMAINING, VOID)
        assert np.array_equal(read(tmp_path, "masks", name), classes)
        assert np.array_equal(read(tmp_path, "ood", name), ood)
        assert counts[name] == tuple((ood == kind).sum() for kind in (0, 1, 255))
    assert (tmp_path / "out" / "images.txt").read_text() == "a/1\nb/1\nc\n"


def test_images_are_dropped(tmp_path, labels):
    assert list(run(tmp_path, drop_images=True)) == ["a/1", "b/1", "c"]
    assert (tmp_path / "out" / "images.txt").read_text() == "c\n"
    files = [p.relative_to(tmp_path / "out").as_posix() for p in (tmp_path / "out").rglob("*.png")]
    assert sorted(files) == ["masks/c.png", "ood/c.png"]


def test_ids_without_a_class(tmp_path, labels):
    save(tmp_path, "wrong", [[0, 4, 5], [5, 9, 255]])
    with pytest.raises(
        DatasetError, match=r"wrong\.png: 3 of 6 .* 5 \(2 x\), 9 \(1 x\)\. Name all"
    ):
        run(tmp_path)


@pytest.mark.parametrize(
    ("mode", "says"), [("RGB", "one channel of ids, this one has 3"), ("cut", "not a complete")]
)
def test_files_that_are_not_label_images(tmp_path, labels, mode, says):
    path = tmp_path / "ann" / "wrong.png"
    Image.new("RGB", (40, 40), "red").save(path)
    if mode == "cut":
        path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(DatasetError, match=rf"wrong\.png: .*{says}"):
        run(tmp_path)


@pytest.mark.parametrize(("drop_images", "dropped"), [(True, 1), (False, 0)])
def test_nothing_left(tmp_path, drop_images, dropped):
    save(tmp_path, "a", [[4, 11 if not drop_images else 0]])
    save(tmp_path, "b", [[11]])
    says = f"nothing is left to train on: {dropped} of 2 images were dropped"
    with pytest.raises(DatasetError, match=says):
        run(tmp_path, drop_images)


def test_camvid(shared_data, tmp_path):
    """Three images of a real set; pedestrians and bicyclists are out, unlabeled pixels void."""
    lines = (shared_data / "camvid" / "classes.txt").read_text().splitlines()
    ids = {name: int(number) for number, name in map(str.split, lines)}
    known = remaining_classes(list(ids)[:11], ["pedestrian", "bicyclist"], "classes.txt")
    (tmp_path / "ann").mkdir()
    files = sorted((shared_data / "camvid" / "ann" / "test").iterdir())[:3]
    for file in files:
        (tmp_path / "ann" / file.name).write_bytes(file.read_bytes())
    (tmp_path / "out").mkdir()
    tables = label_tables(ids, known, list(ids)[11:])
    counts = write_label_images(tmp_path / "ann", tmp_path / "out", ids, tables, False)
    for file in files:
        image = np.array(Image.open(file))
        expected = [(image < 9).sum(), ((image == 9) | (image == 10)).sum(), (image == 11).sum()]
        assert list(counts[file.stem]) == expected
        mask = read(tmp_path, "masks", file.stem)
        assert np.array_equal(mask[image < 9], image[image < 9])
        assert (mask[image >= 9] == 255).all()
