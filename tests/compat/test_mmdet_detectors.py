"""mmdet's own detectors train a step and predict on the substituted operators."""

from pathlib import Path

import pytest
import torch
from mmengine.config import Config, ConfigDict
from mmengine.registry import DefaultScope

from negvision.compat import quiet_imports

CONFIGS = {
    "Faster R-CNN": "faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py",
    "RetinaNet": "retinanet/retinanet_r50_fpn_1x_coco.py",
    "FCOS": "fcos/fcos_r50-caffe_fpn_gn-head-center-normbbox-centeronreg-giou_1x_coco.py",
    "GFL": "gfl/gfl_r50_fpn_1x_coco.py",
    "ATSS": "atss/atss_r50_fpn_1x_coco.py",
}
CLASSES = 3
SIZE = 96


def set_everywhere(node, key, value):
    """Replace ``key`` wherever it stands in a nested config."""
    for child in node.values() if isinstance(node, dict) else node:
        if isinstance(child, dict | list):
            set_everywhere(child, key, value)
    if isinstance(node, dict) and key in node:
        node[key] = value


def small_model(path):
    """The detector of a config of mmdet, on an untrained ResNet-18 and for few classes."""
    import mmdet
    from mmdet.registry import MODELS

    config = Config.fromfile(Path(mmdet.__file__).parent / ".mim" / "configs" / path).model
    set_everywhere(config, "init_cfg", None)
    set_everywhere(config, "num_classes", CLASSES)
    set_everywhere(config, "score_thr", 0.0)
    config.backbone.update(depth=18, frozen_stages=-1, style="pytorch")
    config.neck.in_channels = [64, 128, 256, 512]
    return MODELS.build(ConfigDict(config))


@pytest.mark.parametrize("name", CONFIGS)
def test_detector_trains_a_step_and_predicts(substituted_mmcv, name):
    with quiet_imports():
        import mmdet.models  # noqa: F401
    from mmdet.testing import demo_mm_inputs

    # The second image has no object: its losses come from negatives alone.
    batch = demo_mm_inputs(2, (3, SIZE, SIZE), num_items=[2, 0], num_classes=CLASSES)
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope("mmdet"):
        model = small_model(CONFIGS[name]).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)

    losses = model(**model.data_preprocessor(batch, training=True), mode="loss")
    loss, parsed = model.parse_losses(losses)
    assert all(value.isfinite() for value in parsed.values()), parsed
    assert loss > 0
    loss.backward()
    for weight in (model.backbone.conv1.weight, model.backbone.layer4[-1].conv2.weight):
        assert weight.grad.isfinite().all() and weight.grad.abs().sum() > 0
    optimizer.step()

    model.eval()
    with torch.no_grad():
        results = model(**model.data_preprocessor(batch), mode="predict")
    assert len(results) == 2
    for result in results:
        predicted = result.pred_instances
        assert 0 < len(predicted) <= 100
        assert predicted.bboxes.isfinite().all()
        assert predicted.bboxes.min() >= 0 and predicted.bboxes.max() <= SIZE
        assert (predicted.scores[:-1] >= predicted.scores[1:]).all()
        assert set(predicted.labels.tolist()) <= set(range(CLASSES))
