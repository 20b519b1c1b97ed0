"""Class centers that start at mean embeddings."""

from types import SimpleNamespace

import pytest
import torch
from mmengine.logging import MMLogger
from torch.nn import functional

from negvision.errors import ConfigError
from negvision.face.mean_center_hook import MeanCenterHook
from negvision.face.recognizer import FaceRecognizer
from negvision.face.structures import FaceDataSample


def a_run(iteration=0, **head):
    torch.manual_seed(0)
    backbone = {"type": "negvision.IResNet", "depth": 18, "widths": (4, 4, 4, 8)}
    neck = {"type": "negvision.FaceEmbeddingNeck", "in_channels": 8, "kind": "gap",
            "embedding_size": 6}  # fmt: skip
    centers = {"type": "negvision.UNPGLoss", "num_classes": 4, "embedding_size": 6, **head}
    model = FaceRecognizer(backbone, neck, centers)
    data = [
        {"inputs": torch.randint(256, (3, 32, 32), dtype=torch.uint8),
         "data_samples": FaceDataSample.of(torch.tensor(number % 3), {})}
        for number in range(9)
    ]  # fmt: skip
    loader = SimpleNamespace(dataset=data)
    logger = MMLogger.get_current_instance()
    return SimpleNamespace(model=model, iter=iteration, train_dataloader=loader, logger=logger)


def test_centers_point_to_the_mean_embedding_of_their_person():
    run = a_run()
    model, before = run.model, run.model.head.weight.detach().clone()
    MeanCenterHook().before_train(run)
    assert model.training
    model.eval()
    for person in range(3):
        images = [d["inputs"] for d in run.train_dataloader.dataset[person::3]]
        inputs = model.data_preprocessor({"inputs": images}, False)["inputs"]
        with torch.no_grad():
            mean = functional.normalize(model.embed(inputs), dim=1).mean(0)
        center = model.head.weight[person].detach()
        assert functional.cosine_similarity(mean, center, dim=0) > 0.9999
        torch.testing.assert_close(center.norm(), before[person].norm())
    # Nobody is the last class.
    assert torch.equal(model.head.weight[3], before[3])


def test_a_resumed_run_keeps_its_centers():
    run = a_run(iteration=5)
    before = run.model.head.weight.detach().clone()
    MeanCenterHook().before_train(run)
    assert torch.equal(run.model.head.weight, before)


def test_sharded_centers_are_refused():
    with pytest.raises(ConfigError, match="not sharded"):
        MeanCenterHook().before_train(a_run(sharded=True))
