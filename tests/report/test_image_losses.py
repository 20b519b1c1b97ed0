"""The loss of single images, from samples as a test pipeline leaves them."""

import pytest
import torch
from helpers.small_models import build_model, load_named_config
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData

from negvision.report.detection_sections import loss_of_image, why_no_loss

SIZE, SCALE = (64, 96), 2.0


def sample_of(boxes, scale: float) -> DetDataSample:
    meta = {
        "img_shape": SIZE,
        "ori_shape": (int(SIZE[0] / scale), int(SIZE[1] / scale)),
        "scale_factor": (scale, scale),
    }
    boxes = torch.tensor(boxes).reshape(-1, 4)
    labels = torch.arange(len(boxes)) % 3
    none = InstanceData(bboxes=boxes[:0], labels=labels[:0])
    return DetDataSample(
        metainfo=meta,
        gt_instances=InstanceData(bboxes=boxes, labels=labels),
        ignored_instances=none,
    )


@pytest.fixture(params=["atss", "retina"])
def model(request):
    return build_model(load_named_config(request.param))


@pytest.fixture
def image():
    torch.manual_seed(1)
    return torch.randint(0, 256, (3, *SIZE), dtype=torch.uint8)


BOXES = [[4.0, 4.0, 20.0, 24.0], [20.0, 10.0, 44.0, 30.0]]


def test_equals_the_training_loss_of_the_image(model, image):
    found = loss_of_image(model, image, sample_of(BOXES, SCALE))
    # The same boxes as a training pipeline has them, in pixels of the resized image.
    resized = sample_of((SCALE * torch.tensor(BOXES)).tolist(), 1.0)
    data = model.data_preprocessor({"inputs": [image], "data_samples": [resized]}, False)
    with torch.no_grad():
        losses = model.loss(data["inputs"], data["data_samples"])
    total = sum(
        torch.stack([torch.as_tensor(part) for part in parts]).sum()
        if isinstance(parts, list)
        else parts
        for parts in losses.values()
    )
    assert next(iter(found)) == "loss"
    assert found["loss"] == pytest.approx(float(total), rel=1e-5)
    assert sum(value for key, value in found.items() if key != "loss") == pytest.approx(
        found["loss"], rel=1e-5
    )
    elsewhere = loss_of_image(model, image, sample_of([[1.0, 1.0, 9.0, 9.0]], SCALE))
    assert elsewhere["loss"] != pytest.approx(found["loss"])


def test_nothing_changes(model, image):
    sample = sample_of(BOXES, SCALE)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    state = torch.get_rng_state()
    first = loss_of_image(model, image, sample)
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert sample.gt_instances.bboxes.tolist() == BOXES
    assert not model.training and all(weight.grad is None for weight in model.parameters())
    assert loss_of_image(model, image, sample) == first
    assert loss_of_image(model, image, sample_of([], SCALE))["loss"] > 0


def test_missing_losses_are_explained(model):
    assert why_no_loss(model, sample_of(BOXES, SCALE)) == ""
    assert "cannot be trained" in why_no_loss(torch.nn.Identity(), sample_of(BOXES, SCALE))
    bare = DetDataSample(metainfo={"scale_factor": (1, 1)}, gt_instances=InstanceData())
    assert "loads no annotations" in why_no_loss(model, bare)
    unscaled = sample_of(BOXES, SCALE)
    unscaled = DetDataSample(gt_instances=unscaled.gt_instances)
    assert (
        "meta_keys of PackDetInputs in the test pipeline lack scale_factor and img_shape"
        in why_no_loss(model, unscaled)
    )
