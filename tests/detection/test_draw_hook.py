"""Drawings and results of a test: one per image, with unknown boxes dashed and tagged."""

import copy
import json
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData, PixelData
from mmseg.structures import SegDataSample
from PIL import Image
from pycocotools import mask as coco_mask
from torch.utils.data import ConcatDataset

from negvision.data.images.loading import LoadImageFromFile
from negvision.detection.prediction_hooks import DetectionsWriter, DrawDetectionsHook
from negvision.errors import ConfigError, UserError
from negvision.visualization.boxes import draw_predictions

RUNNER = SimpleNamespace(
    test_dataloader=SimpleNamespace(dataset=SimpleNamespace(metainfo={"classes": ("cat", "dog")})),
    score_threshold=None,
    logger=SimpleNamespace(info=print),
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


def test_boxes_and_masks_lie_on_pixels_as_the_pipeline_reads_them(tmp_path):
    """An EXIF orientation that the pipeline ignores does not turn the drawing."""
    masks = torch.zeros(3, 80, 120, dtype=torch.bool)
    masks[0, 20:40, 20:40] = True
    plain, masked = (sample(tmp_path / "a.jpg", 1, **f) for f in ({}, {"masks": masks}))
    exif = Image.Exif()
    exif[0x112] = 6
    Image.new("RGB", (120, 80)).save(tmp_path / "a.jpg", exif=exif)
    loading = LoadImageFromFile(color_type="color_ignore_orientation")
    runner = copy.deepcopy(RUNNER)
    runner.test_dataloader.dataset.pipeline = SimpleNamespace(transforms=[loading])
    shown = []
    for number, one in enumerate((plain, masked)):
        hook = DrawDetectionsHook(draw=True, test_out_dir=str(tmp_path / str(number)))
        hook.before_test(runner)
        hook.after_test_iter(runner, 0, outputs=[one])
        shown.append(cv2.imread(str(tmp_path / str(number) / "a.jpg")).astype(int))
    assert shown[0].shape == (480, 720, 3)
    difference = np.abs(shown[0] - shown[1]).max(2)
    assert difference[130:230, 130:230].mean() > 20 and difference[300:, :].max() < 10


def test_masks_are_among_the_results_of_a_test(tmp_path):
    masks = torch.zeros(3, 80, 120, dtype=torch.bool)
    masks[1, 5:10, 7:20] = True
    writer = DetectionsWriter(tmp_path / "out.json")
    runner = copy.deepcopy(RUNNER)
    runner.test_dataloader.dataset = [None]
    runner.logger = SimpleNamespace(info=print)
    writer.before_test_epoch(runner)
    writer.after_test_iter(runner, 0, outputs=[sample(tmp_path / "a.png", 1, masks=masks)])
    writer.after_test_epoch(runner)
    found = json.loads((tmp_path / "out.json").read_text())
    assert [coco_mask.area(box["segmentation"]) for box in found] == [0, 65, 0]
    assert np.array_equal(coco_mask.decode(found[1]["segmentation"]), masks[1].numpy())
    with pytest.raises(ConfigError, match="writes detections, and this model predicts pred_sem_se"):
        other = SegDataSample(pred_sem_seg=PixelData(data=torch.zeros(1, 2, 2)))
        writer.after_test_iter(runner, 0, outputs=[other])


def test_results_of_several_data_sets_name_the_files(tmp_path):
    runner = copy.deepcopy(RUNNER)
    runner.logger = SimpleNamespace(info=print)
    names = [str(tmp_path / name) for name in ("one.png", "two.png")]
    for several in (False, True):
        runner.test_dataloader.dataset = ConcatDataset([[0], [1]]) if several else [0, 1]
        writer = DetectionsWriter(tmp_path / "out.json")
        writer.before_test_epoch(runner)
        writer.after_test_iter(runner, 0, outputs=[sample(Path(name), 1) for name in names])
        writer.after_test_epoch(runner)
        found = json.loads((tmp_path / "out.json").read_text())
        assert {box["image_id"] for box in found} == {1}
        assert {box.get("file_name") for box in found} == (set(names) if several else {None})


def test_nothing_is_drawn_by_default(tmp_path):
    run(DrawDetectionsHook(test_out_dir=str(tmp_path / "out")), [])
    assert not (tmp_path / "out").exists()


def test_errors():
    with pytest.raises(ValueError, match="score_thr must be from 0 to 1, got 2"):
        DrawDetectionsHook(score_thr=2)
    with pytest.raises(UserError, match="draw=True needs test_out_dir"):
        DrawDetectionsHook(draw=True).before_test(RUNNER)
