"""The recognizer: its modes, the mirrored image, and other backbones."""

import pytest
import torch

from negvision.face.recognizer import FaceRecognizer
from negvision.face.structures import FaceDataSample

BACKBONE = {"type": "negvision.IResNet", "depth": 18, "widths": (16, 16, 16, 16)}
NECK = {
    "type": "negvision.FaceEmbeddingNeck",
    "in_channels": 16,
    "spatial_size": 3,
    "embedding_size": 16,
}
HEAD = {"type": "negvision.UNPGLoss", "num_classes": 5, "embedding_size": 16}


def recognizer(**changed):
    torch.manual_seed(0)
    return FaceRecognizer(**{"backbone": BACKBONE, "neck": NECK, "head": HEAD, **changed})


def batch(count=4, side=48):
    g = torch.Generator().manual_seed(1)
    images = torch.randint(256, (count, 3, side, side), generator=g, dtype=torch.uint8)
    samples = [
        FaceDataSample(label=torch.tensor(i % 5), metainfo={"sample_idx": i}) for i in range(count)
    ]
    return {"inputs": list(images), "data_samples": samples}


def test_images_become_rgb_between_minus_one_and_one():
    model = recognizer()
    data = batch(1)
    data["inputs"][0][0] = 255  # blue, as OpenCV has it first
    data["inputs"][0][2] = 0
    inputs = model.data_preprocessor(data, True)["inputs"]
    assert inputs.shape == (1, 3, 48, 48)
    assert (inputs[0, 0] == -1).all() and (inputs[0, 2] == 1).all()


@pytest.mark.parametrize("flip_test", [False, True])
def test_predictions_are_embeddings_of_the_image_and_its_mirror_image(flip_test):
    model = recognizer(flip_test=flip_test).eval()
    data = model.data_preprocessor(batch(), False)
    with torch.no_grad():
        want = model(data["inputs"])
        if flip_test:
            want = want + model(data["inputs"].flip(-1))
        found = model(**data, mode="predict")
    assert [sample.sample_idx for sample in found] == [0, 1, 2, 3]
    got = torch.stack([sample.embedding for sample in found])
    assert got.dtype == torch.float32 and torch.equal(got, want)


def test_a_backbone_of_mmdet():
    model = recognizer(
        backbone={"type": "mmdet.ResNet", "depth": 18, "num_stages": 2, "out_indices": (0, 1),
                  "strides": (1, 2), "dilations": (1, 1)},
        neck={"type": "negvision.FaceEmbeddingNeck", "in_channels": 128, "kind": "gap",
              "embedding_size": 16},
    )  # fmt: skip
    loss = model(**model.data_preprocessor(batch(), True), mode="loss")["loss"]
    assert loss.isfinite()


def test_wrong_calls():
    model = recognizer(head=None)
    data = model.data_preprocessor(batch(), True)
    with pytest.raises(ValueError, match="needs a head"):
        model(**data, mode="loss")
    with pytest.raises(ValueError, match="got 'train'"):
        model(**data, mode="train")
    with pytest.raises(ValueError, match="'predict' needs data_samples"):
        model(data["inputs"], mode="predict")
