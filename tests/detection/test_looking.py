"""Looking at a dataset changes neither random numbers, pipelines nor annotations."""

import random

import numpy as np
import pytest
import torch
from mmengine.registry import DATASETS, init_default_scope

from negvision.visualization.looking import copy_for_looking, evenly_spaced, seeded


def draws():
    return random.random(), np.random.rand(), torch.rand(1).item()  # noqa: NPY002


def test_random_state_is_restored():
    with seeded(3):
        first = draws()
        expected = draws()
    with seeded(3):
        assert draws() == first
        with seeded(0):
            inside = draws()
            draws()
        assert draws() == expected
    with seeded(0):
        assert draws() == inside != first


@pytest.mark.parametrize("wrapped", [False, True])
def test_copy_shares_annotations_and_not_the_state_of_transforms(tiny_detector, wrapped):
    init_default_scope("mmdet")
    config = tiny_detector().train_dataloader.dataset
    if wrapped:
        config = {"type": "ConcatDataset", "datasets": [config, config]}
    dataset = DATASETS.build(config)
    inner = dataset.datasets[1] if wrapped else dataset
    inner.pipeline.transforms[0].cache = []
    copied = copy_for_looking(dataset)
    copied_inner = copied.datasets[1] if wrapped else copied
    copied_inner.pipeline.transforms[0].cache.append(1)
    copied_inner.skipped_images["a"] += 1
    assert inner.pipeline.transforms[0].cache == [] and not inner.skipped_images
    assert copied_inner.data_bytes is inner.data_bytes and len(copied) == len(dataset)


@pytest.mark.parametrize(
    ("size", "count", "expected"),
    [(10, 4, [0, 3, 6, 9]), (3, 8, [0, 1, 2]), (0, 4, []), (5, 1, [0]), (1, 1, [0])],
)
def test_evenly_spaced(size, count, expected):
    assert evenly_spaced(size, count) == expected
