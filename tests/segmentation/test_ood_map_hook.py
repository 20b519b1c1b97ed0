"""The drawings of OOD maps of a validation and a test."""

from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample

from negvision.errors import ConfigError
from negvision.segmentation.ood_map_hook import OODMapHook


class Data(list):
    """Five images of 60 x 40 pixels."""

    get_data_info = list.__getitem__


@pytest.fixture
def dataset(tmp_path):
    infos = Data()
    for index in range(5):
        path = tmp_path / "images" / f"{index}.png"
        path.parent.mkdir(exist_ok=True)
        cv2.imwrite(str(path), np.full((40, 60, 3), 20 + 40 * index, np.uint8))
        infos.append({"img_path": str(path)})
    return infos


def sample(info, truth=True, threshold=None):
    found = SegDataSample(metainfo=info)
    scores = torch.linspace(-3, 0, 40 * 60).view(1, 40, 60)
    found.ood_map = PixelData(data=scores)
    if threshold is not None:
        found.ood_mask = PixelData(data=scores > threshold)
    if truth:
        found.gt_ood_map = PixelData(data=(scores > -0.3).byte())
    return found


def runner_of(tmp_path, dataset, threshold=None):
    shown = []
    model = torch.nn.Module()
    model.ood_threshold = threshold
    return SimpleNamespace(
        work_dir=str(tmp_path),
        model=model,
        _train_loop=None,
        logger=SimpleNamespace(info=shown.append),
        val_dataloader=SimpleNamespace(dataset=dataset),
        test_dataloader=SimpleNamespace(dataset=dataset),
        shown=shown,
    )


def test_sheet_after_validation(tmp_path, dataset, monkeypatch):
    monkeypatch.chdir(tmp_path)
    hook = OODMapHook(num_images=3, columns=2, tile_size=120)
    runner = runner_of(tmp_path, dataset)
    hook.before_val_epoch(runner)
    for info in dataset:
        hook.after_val_iter(runner, 0, None, [sample(info)])
    hook.after_val_epoch(runner)
    assert runner.shown == ["OOD maps  ood_maps.png"]
    sheet = cv2.imread(str(tmp_path / "ood_maps.png"))
    # Two columns of an image, its map and a bar; two rows.
    assert 4 * 120 < sheet.shape[1] < 5 * 130 + 60
    # The first, third and last image, which is gray 180; the second is missing.
    for gray, there in ((20, True), (60, False), (100, True), (180, True)):
        assert ((sheet == gray).all(-1).sum() > 80 * 100) == there


def test_drawings_of_a_test(tmp_path, dataset):
    hook = OODMapHook(draw=True, test_out_dir=str(tmp_path / "show"))
    runner = runner_of(tmp_path, dataset, threshold=-1.0)
    twin = tmp_path / "other" / "0.png"
    twin.parent.mkdir()
    cv2.imwrite(str(twin), np.zeros((40, 60, 3), np.uint8))
    dataset.append({"img_path": str(twin)})
    hook.before_test_epoch(runner)
    for info in dataset:
        hook.after_test_iter(runner, 0, None, [sample(info, threshold=-1.0)])
    hook.after_test_epoch(runner)
    names = sorted(path.name for path in (tmp_path / "show").iterdir())
    assert names == ["0.png", "1.png", "2.png", "3.png", "4.png", "other_0.png"]
    assert (tmp_path / "ood_maps.png").is_file()
    drawn = cv2.imread(str(tmp_path / "show" / "1.png"))
    # Enlarged, beside its map.
    assert drawn.shape[1] > 2 * 640
    # Outlines of the truth and, dashed, of predicted unknown regions.
    for color in ((90, 220, 255), (60, 255, 120)):
        assert (drawn == color[::-1]).all(-1).sum() > 200


def test_caption_has_share_of_ood_and_auroc(tmp_path, dataset, monkeypatch):
    texts = []
    monkeypatch.setattr(
        "negvision.segmentation.ood_map_hook.contact_sheet",
        lambda pictures, captions, *rest: texts.extend(captions) or pictures[0],
    )
    hook = OODMapHook(num_images=1, tile_size=60)
    runner = runner_of(tmp_path, dataset)
    hook.before_val_epoch(runner)
    hook.after_val_iter(runner, 0, None, [sample(dataset[0])])
    hook.after_val_epoch(runner)
    assert texts == ["0.png: 10.0% OOD, AUROC 1.000"]


def test_predictions_without_a_map(tmp_path, dataset):
    hook = OODMapHook()
    hook.before_val_epoch(runner_of(tmp_path, dataset))
    with pytest.raises(ConfigError, match=r'0.png: OODMapHook .*"negvision.AbeTEncoderDecoder"'):
        hook.after_val_iter(None, 0, None, [SegDataSample(metainfo=dataset[0])])
