"""Drawings of a test: one per image, with unknown boxes dashed and tagged."""

from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData

from negvision.detection.prediction_hooks import DrawDetectionsHook
from negvision.errors import UserError
from negvision.visualization.boxes import draw_predictions

RUNNER = SimpleNamespace(
    test_dataloader=SimpleNamespace(dataset=SimpleNamespace(metainfo={"classes": ("cat", "dog")}))
)


def sample(path, img_id, **fields):
    cv2.imwrite(str(path), np.zeros((80, 120, 3), np.uint8))
    found = InstanceData(
        bboxes=torch.tensor([[10.0, 10, 60, 60], [50, 20, 110, 70], [0, 0, 5, 5]]),
        labels=torch.tensor([0, 1, 1]),
        scores=torch.tensor([0.9, 0.87, 0.1]),
        **fields,
    )
    made = DetDataSample(metainfo={"img_path": str(path), "img_id": img_id})
    made.pred_instances = found
    return made


def run(hook, samples):
    hook.before_test(RUNNER)
    hook.after_test_iter(RUNNER, 0, outputs=samples)


def test_unknown_boxes_are_drawn_differently(tmp_path):
    flags = torch.tensor([False, True, True])
    (tmp_path / "in").mkdir()
    known = sample(tmp_path / "in" / "a.png", 1)
    unknown = sample(tmp_path / "in" / "b.bmp", 2, is_ood=flags)
    run(DrawDetectionsHook(draw=True, test_out_dir=str(tmp_path / "out")), [known, unknown])
    pictures = {p.name: cv2.imread(str(p)) for p in (tmp_path / "out").iterdir()}
    assert set(pictures) == {"a.png", "b.jpg"}
    expected = draw_predictions(
        np.zeros((80, 120, 3), np.uint8),
        known.pred_instances.bboxes[:2].numpy(),
        [0, 1],
        [0.9, 0.87],
        ("cat", "dog"),
    )
    assert np.array_equal(pictures["a.png"], expected[..., ::-1])
    assert np.abs(pictures["b.jpg"].astype(int) - pictures["a.png"]).max() > 100


def test_images_of_the_same_name_get_two_drawings(tmp_path):
    for folder in ("x", "y"):
        (tmp_path / folder).mkdir()
    hook = DrawDetectionsHook(draw=True, test_out_dir=str(tmp_path / "out"))
    samples = [sample(tmp_path / folder / "a.png", i) for i, folder in enumerate(("x", "y"))]
    run(hook, samples)
    run(hook, samples)
    assert {p.name for p in (tmp_path / "out").iterdir()} == {"a.png", "1_a.png"}


def test_nothing_is_drawn_by_default(tmp_path):
    run(DrawDetectionsHook(test_out_dir=str(tmp_path / "out")), [])
    assert not (tmp_path / "out").exists()


def test_errors():
    with pytest.raises(ValueError, match="score_thr must be from 0 to 1, got 2"):
        DrawDetectionsHook(score_thr=2)
    with pytest.raises(UserError, match="draw=True needs test_out_dir"):
        DrawDetectionsHook(draw=True).before_test(RUNNER)
