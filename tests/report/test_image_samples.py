"""Which samples are shown as most wrong, and what their images show."""

import base64
import io
from dataclasses import replace

import cv2
import numpy as np
import pytest
from PIL import Image

from negvision.report.image_samples import heat_maps, most_wrong
from negvision.visualization import BOX_COLOR, UNKNOWN_COLOR


def pixels(embedded) -> np.ndarray:
    data = base64.b64decode(embedded.uri.removeprefix("data:image/jpeg;base64,"))
    shown = np.array(Image.open(io.BytesIO(data)))
    assert shown.shape == (embedded.height, embedded.width, 3)
    return shown.astype(int)


def oracle(records, is_ood: bool, count: int) -> list[str]:
    """Paths of the worst, one sample at a time."""
    own = next(iter(records.scores.values()))
    rows = sorted(
        (row for row in range(len(own)) if records.is_ood[row] == is_ood),
        key=lambda row: own[row] if is_ood else -own[row],
    )
    paths = []
    for row in rows:
        others = own[records.is_ood != is_ood]
        wrong = own[row] < others.max() if is_ood else own[row] > others.min()
        path = records.paths[records.image[row]]
        if wrong and path not in paths:
            paths.append(path)
    return paths[:count]


@pytest.mark.parametrize("task", ["boxes", "images"])
def test_worst_come_first_one_per_image(make_records, task):
    records = make_records(task)
    wrong = most_wrong(records, count=5)
    for kind, is_ood in (("ID", False), ("OOD", True)):
        assert [sample.path for sample in wrong[kind]] == oracle(records, is_ood, 5)
        assert wrong[kind]
    own = np.where(records.is_ood, 2.0, 1.0)
    own[np.flatnonzero(~records.is_ood)[0]] = 2.0  # not higher than any OOD sample
    assert most_wrong(replace(records, scores={"abet": own})) == {"ID": [], "OOD": []}


def test_captions_have_rank_class_and_side_of_the_threshold(make_records):
    records = make_records("images", num_images=6)
    records = replace(
        records,
        scores={"abet": np.array([0.25, 3.0, 0.0, 4.0, 0.1, 0.2])},
        labels=np.array([0, 1, 2, 0, 1, 9]),
    )
    wrong = most_wrong(records, threshold=1.0)
    assert [sample.tag for sample in wrong["ID"]] == ["ID called unknown 3.00"]
    assert wrong["ID"][0].facts == [
        "predicted: spades",
        "scores higher than 50 % of the OOD images",
    ]
    assert [sample.tag for sample in wrong["OOD"]] == ["OOD called known 0.25"]
    assert wrong["OOD"][0].facts[1] == "scores lower than 25 % of the ID images"
    assert "OOD called known 0.25" in wrong["OOD"][0].images[0].alt
    [sample] = most_wrong(records)["ID"]
    assert sample.tag == "ID, score 3.00"
    strange = replace(records, labels=np.full(6, 9))
    assert most_wrong(strange)["ID"][0].facts[0] == "predicted: class 9"


@pytest.mark.parametrize(
    "box",
    [(0, 0, 128, 96), (-50, -50, 300, 300), (120, 90, 128, 96), (5, 5, 5, 5), (300, 5, 310, 9)],
)
def test_box_at_the_edge_or_outside_has_an_image(make_records, box):
    records = make_records("boxes", num_images=10)
    boxes = np.tile(np.float32(box), (len(records.is_ood), 1))
    for samples in most_wrong(replace(records, boxes=boxes), count=1).values():
        assert max(pixels(samples[0].images[0]).shape) == 320


def test_crop_is_the_box_and_its_surroundings(make_records):
    records = make_records("boxes", num_images=10)
    for path in records.paths:
        image = np.zeros((400, 400, 3), np.uint8)
        image[200:240, 300:340] = 255, 0, 0  # blue, in BGR
        cv2.imwrite(path, image)
    boxes = np.tile(np.float32([300, 200, 340, 240]), (len(records.is_ood), 1))
    wrong = most_wrong(replace(records, boxes=boxes), count=1)
    shown, known = (pixels(wrong[kind][0].images[0]) for kind in ("OOD", "ID"))
    # ID boxes look unknown, and OOD boxes do not.
    for image, color in ((shown, BOX_COLOR), (known, UNKNOWN_COLOR)):
        assert (np.abs(image - color).max(-1) < 40).sum() > 50
    blue = np.argwhere((shown[..., 2] > 150) & (shown[..., 0] < 80))
    (top, left), (bottom, right) = blue.min(0), blue.max(0)
    # 40 of 88 pixels of the image, in the middle of 320.
    for start, end in ((left, right), (top, bottom)):
        assert start == pytest.approx(87, abs=8) and end == pytest.approx(233, abs=8)


def test_damaged_file_is_reported(make_records, tmp_path):
    records = make_records("images")
    damaged = tmp_path / "damaged.png"
    damaged.write_bytes(b"")
    broken = replace(records, paths=[str(damaged)] * len(records.paths))
    sample = most_wrong(broken)["OOD"][0]
    assert sample.problem.startswith("the file is empty") and not sample.images


def test_heat_maps_are_sorted_by_auroc_and_aligned_with_their_images(make_records):
    records = make_records("pixels")
    own = records.scores["abet"].copy()
    own[records.image == 4] *= -1
    records = replace(records, scores={"abet": own})
    samples = heat_maps(records, count=3)
    assert len(samples) == 3
    assert samples[0].path == records.paths[4]
    assert samples[0].facts[0].startswith("AUROC 0.") and len(samples[0].facts) == 3
    shown, heat = map(pixels, samples[0].images)
    assert shown.shape == heat.shape
    # The blob of image 4 is at a half of the width and a third of the height.
    brightness = heat.sum(-1)
    row, column = np.unravel_index(brightness.argmax(), brightness.shape)
    assert row / heat.shape[0] == pytest.approx(8.5 / 24, abs=0.05)
    assert column / heat.shape[1] == pytest.approx(16.5 / 32, abs=0.05)


def test_heat_map_without_ood_or_without_an_image(make_records):
    records = make_records("pixels")
    is_ood = records.is_ood & (records.image != 2)
    samples = heat_maps(replace(records, is_ood=is_ood, paths=list("abcdef")))
    assert samples[-1].path == "c"
    [fact] = samples[-1].facts
    assert fact.startswith("median score of ID ")
    assert samples[-1].problem == "cannot be read: No such file or directory."
    assert len(samples[-1].images) == 1
