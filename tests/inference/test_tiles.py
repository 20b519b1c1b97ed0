"""Boxes of tiles, joined to those of the image; a model in tiles, alone and in evaluations."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from helpers.small_models import build_model, load_named_config, write_images

from negvision.data.images.tiles import Tiles, cut
from negvision.engine.config.options import evaluate_in_tiles
from negvision.errors import ConfigError
from negvision.export.graphs.choice import graph_and_metadata
from negvision.inference.inferencer import Inferencer
from negvision.inference.runtime import ExportedModel
from negvision.inference.runtime.results import Detections
from negvision.inference.runtime.tiled import join

QUICK = Path(__file__).parents[2] / "configs/quickstart"


def detections(rows, scores=None, labels=None):
    boxes = np.array(rows, np.float32).reshape(-1, 4)
    scores = np.linspace(0.9, 0.5, len(boxes)) if scores is None else scores
    labels = np.zeros(len(boxes)) if labels is None else labels
    return Detections(boxes, np.array(scores, np.float32), np.array(labels, np.int64))


@pytest.mark.parametrize("merge", ["nms", "fusion"])
@pytest.mark.parametrize("largest", [14, 60, 150])
@pytest.mark.parametrize("text", ["64:16", "64x40:0.25", "90:30"])
def test_of_a_perfect_detector_each_object_counts_once(text, largest, merge):
    """Objects apart from each other, within one tile, on its edges, and over several tiles."""
    for seed in range(12):
        rng = np.random.default_rng(seed)
        height, width = (int(n) for n in rng.integers(70, 260, 2))
        truth: list[np.ndarray] = []
        for _ in range(60):
            low = rng.uniform(0, [width - 4, height - 4])
            high = np.minimum(low + rng.uniform(3, largest, 2), [width, height])
            box = np.concatenate([low, high])
            apart = [(box[:2] >= one[2:]).any() or (box[2:] <= one[:2]).any() for one in truth]
            if all(apart):
                truth.append(box)
        labels = rng.integers(0, 2, len(truth))
        scores = rng.uniform(0.1, 1, len(truth))
        windows = Tiles.of(text).windows(height, width)
        found = []
        for window in windows:
            inside, visible = cut(np.array(truth), window)
            seen = (visible > 0) & (inside[:, 2:] - inside[:, :2] > 1).all(1)
            found.append(detections(inside[seen], scores[seen], labels[seen]))
        joined = join(found, windows, merge)
        order = np.argsort(-scores, kind="stable")
        assert len(joined) == len(truth)
        np.testing.assert_allclose(joined.boxes, np.array(truth)[order], atol=1e-3)
        np.testing.assert_allclose(joined.scores, scores[order], rtol=1e-6)
        assert (joined.labels == labels[order]).all()


def test_what_is_joined_dropped_and_kept():
    windows = [(0, 0, 100, 100), (60, 0, 160, 100)]
    left = detections([[70, 10, 90, 30], [70, 10, 88, 30], [5, 5, 20, 20]], [0.6, 0.5, 0.4])
    right = detections([[10, 10, 30, 32], [10, 10, 30, 30]], [0.9, 0.8], [0, 1])
    joined = join([left, right], windows)
    # The whole with the best score; another box of the same tile is dropped; other classes stay.
    assert joined.boxes.tolist() == [[70, 10, 90, 32], [70, 10, 90, 30], [5, 5, 20, 20]]
    assert joined.scores.tolist() == pytest.approx([0.9, 0.8, 0.4])
    fused = join([left, right], windows, "fusion")
    assert fused.boxes[0, 3] == pytest.approx((0.6 * 30 + 0.9 * 32) / 1.5)
    empty = detections([])
    assert len(join([empty, empty], windows)) == 0
    assert join([empty, right], windows).boxes[0].tolist() == [70, 10, 90, 32]


@pytest.fixture
def large(tmp_path):
    """A wide image: two images of the small models, side by side."""
    files = write_images(tmp_path / "parts", a_png=(96, 128), b_png=(96, 128))
    image = np.concatenate([cv2.imread(file) for file in files], 1)
    path = tmp_path / "large.png"
    cv2.imwrite(str(path), image)
    return str(path), image


@pytest.mark.parametrize("kind", ["exported", "checkpoint"])
def test_one_tile_is_the_image_and_several_are_joined(exported, checkpoints, large, kind):
    model = (
        Inferencer(exported("atss"))
        if kind == "exported"
        else Inferencer(QUICK / "atss_digits.py", checkpoints("atss"))
    )
    path, image = large
    [whole] = model.predict([path])
    for tiles in ("1000", "256x96:10", 256):
        for source in (path, image):
            [same] = model.predict([source], tiles=tiles)
            assert np.array_equal(same.boxes, whole.boxes) and len(same) > 20
            assert np.array_equal(same.scores, whole.scores)
    tiles = Tiles.of("128x96:64")
    windows = tiles.windows(96, 256)
    parts = model.predict([np.ascontiguousarray(image[:, x1:x2]) for x1, _, x2, _ in windows])
    wanted = join(parts, windows)
    [found] = model.predict([path], 2, tiles)
    np.testing.assert_allclose(found.boxes, wanted.boxes, atol=1e-2)
    assert len(windows) == 3 and 20 < len(found) < sum(map(len, parts))
    assert len(model(path, tiles="128x96:64").scores) <= len(found)


def test_tiles_of_the_model_and_of_what_is_no_detector(exported, large):
    path, _ = large
    cfg = load_named_config("atss")
    evaluate_in_tiles(cfg, "128x96:64")
    graph, metadata = graph_and_metadata(cfg, build_model(cfg), {})
    assert ExportedModel.of_graph(graph, metadata).tiles == Tiles((128, 96), 64)
    model = Inferencer(exported("atss"), tiles="128x96:64", score_threshold=0.06)
    [found], [whole] = model.predict([path]), model.predict([path], tiles="none")
    assert len(found) != len(whole) and found.scores.min() >= 0.06
    with pytest.raises(ConfigError, match="is for classification; only detectors predict in tiles"):
        Inferencer(exported("images"), tiles=64)
