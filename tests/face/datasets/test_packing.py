import numpy as np
import pytest
import torch

from negvision.face.datasets import PackFaceInputs


def test_channels_first_and_bgr_stays():
    image = np.random.default_rng(0).integers(0, 256, (4, 6, 3), dtype=np.uint8)
    results = {
        "img": image[:, ::-1],  # a view, as a flip leaves
        "label": np.int64(7),
        "sample_idx": 3,
        "img_path": "a.jpg",
        "img_shape": (4, 6),
        "other": 1,
    }
    packed = PackFaceInputs()(results)
    assert packed["inputs"].dtype == torch.uint8 and packed["inputs"].is_contiguous()
    for channel in range(3):
        assert packed["inputs"][channel].tolist() == image[:, ::-1, channel].tolist()
    sample = packed["data_samples"]
    assert sample.label.dtype == torch.int64 and sample.label.shape == () and sample.label == 7
    assert sample.metainfo == {"sample_idx": 3, "img_path": "a.jpg", "img_shape": (4, 6)}
    assert sample.to_dict()["sample_idx"] == 3


def test_label_is_unknown_where_missing():
    packed = PackFaceInputs(meta_keys=())({"img": np.zeros((2, 2, 3), np.uint8), "sample_idx": 1})
    assert packed["data_samples"].label == -1
    assert packed["data_samples"].metainfo == {}


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((4, 4, 3), np.float32),
        np.zeros((4, 4), np.uint8),
        np.zeros((4, 4, 4), np.uint8),
    ],
)
def test_what_the_model_would_misread(image):
    with pytest.raises(ValueError, match=r"the image has shape \(4, 4.*keep \(H, W, 3\) and uint8"):
        PackFaceInputs()({"img": image})
