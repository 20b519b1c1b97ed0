"""Face samples survive pickling, and their labels are not pickled as tensors."""

import copy
import pickle

import pytest
import torch

from negvision.face.structures import FaceDataSample

SAMPLES = {
    "as packed": FaceDataSample(label=torch.tensor(3), metainfo={"sample_idx": 7}),
    "unknown": FaceDataSample(label=torch.tensor(-1)),
    "without a label": FaceDataSample(metainfo={"img_path": "a.jpg"}),
    "predicted": FaceDataSample(label=torch.tensor(2), embedding=torch.arange(4.0)),
    "of other labels": FaceDataSample(label=torch.tensor([1, 2])),
}


@pytest.mark.parametrize("name", SAMPLES)
@pytest.mark.parametrize("through", [lambda s: pickle.loads(pickle.dumps(s)), copy.deepcopy])
def test_content_is_kept(name, through):
    sample = SAMPLES[name]
    got = through(sample)
    assert type(got) is FaceDataSample and got.metainfo == sample.metainfo
    assert set(got.keys()) == set(sample.keys())
    for key, value in sample.items():
        assert torch.equal(got.get(key), value) and got.get(key).dtype == value.dtype
    got.label = torch.tensor(5)
    assert "label" in got and int(got.label) == 5


def test_no_tensor_is_pickled_with_a_label():
    assert b"torch" not in pickle.dumps(SAMPLES["as packed"].__getstate__())
    assert isinstance(SAMPLES["as packed"].label, torch.Tensor)
