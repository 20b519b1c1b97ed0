"""Weights, operations, and memory of models with known costs."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import torch
from torch import nn

from negvision.benchmark import memory, subjects
from negvision.benchmark.cost import operations_of, weights_of
from negvision.benchmark.subjects import Setup, Subject

SETUP = Setup((32, 48), 2, "cpu", 1, "detection", Path("nowhere"))


def test_operations_of_a_convolution_and_a_product():
    convolution, product = nn.Conv2d(3, 8, 3), nn.Linear(10, 7)
    image, rows = torch.rand(2, 3, 10, 12), torch.rand(4, 10)
    # Two per multiply-add; anything else counts as none.
    assert operations_of(lambda: convolution(image).relu()) == 2 * (2 * 8 * 8 * 10) * (3 * 3 * 3)
    assert operations_of(lambda: product(rows)) == 2 * 4 * 7 * 10


def test_weights_of_a_file_are_its_floats(tmp_path):
    tensors = [np.zeros((3, 4), np.float32), np.zeros(5, np.float16), np.zeros(6, np.int64)]
    initializers = [onnx.numpy_helper.from_array(t, str(n)) for n, t in enumerate(tensors)]
    graph = onnx.helper.make_graph([], "weights", [], [], initializers)
    onnx.save(onnx.helper.make_model(graph), tmp_path / "model.onnx")
    assert weights_of(tmp_path / "model.onnx") == 3 * 4 + 5


def test_peak_memory_includes_the_weights(monkeypatch):
    weights = np.ones(2**22, np.float32)  # 16 MiB, allocated before it runs

    def build(kind, setup):
        return Subject(1, lambda _: np.ones(2**25, np.uint8).sum(), list, weights=weights.nbytes)

    monkeypatch.setattr(subjects, "build", build)
    peak = memory._measure("eager", SETUP) / 2**20
    assert 40 < peak < 64  # 32 MiB beside the weights


def test_images_fill_whole_batches():
    for batch_size, count in ((1, 4), (3, 6), (8, 8)):
        drawn = replace(SETUP, batch_size=batch_size).images()
        assert [picture.shape for picture in drawn] == [(32, 48, 3)] * count
    faces = replace(SETUP, task="face", size=(32, 32)).images()
    assert [crop.shape for crop in faces] == [(32, 32, 3)] * 4
    assert not np.array_equal(faces[0], drawn[0][:, :32])
