"""Counts, memory, and rows of a benchmark."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import torch
from torch import nn

from negvision.benchmark import measure as measuring
from negvision.benchmark import memory, subjects
from negvision.benchmark.cost import operations_of, weights_of
from negvision.benchmark.measure import ROUNDS, images_per_second, measure, table
from negvision.benchmark.subjects import Setup, Subject, images_of
from negvision.inference.runtime import Detections

SETUP = Setup((32, 48), "detection", Path("nowhere"), batch_size=2)


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
        drawn = images_of(replace(SETUP, batch_size=batch_size))
        assert [image.shape for image in drawn] == [(32, 48, 3)] * count
    faces = images_of(replace(SETUP, task="face", size=(32, 32)))
    assert [crop.shape for crop in faces] == [(32, 32, 3)] * 4
    assert not np.array_equal(faces[0], drawn[0][:, :32])


def _boxes(shift: float = 0.0) -> list[Detections]:
    boxes = np.array([[1, 2, 20, 30], [5, 5, 29, 40]], np.float32) + np.float32(shift)
    return [Detections(boxes, np.array([0.9, 0.4], np.float32), np.array([0, 1]))]


def test_subjects_take_turns_and_run_at_least_once_per_round():
    now, ran = [0.0], []

    def subject(name, seconds):
        def run(number):
            ran.append((name, number))
            now[0] += seconds

        return Subject(2, run, list)

    subjects = {"slow": subject("slow", 2.0), "fast": subject("fast", 0.125)}
    rates = images_per_second(subjects, 4, seconds=ROUNDS, clock=lambda: now[0])
    # Two batches of four images in four seconds, and in a quarter of a second.
    assert rates == {"slow": [2.0] * ROUNDS, "fast": [32.0] * ROUNDS}
    # The first of each turn is not timed.
    turn = [("slow", n) for n in (0, 0, 1)] + [("fast", n) for n in (0, *[0, 1] * 4)]
    assert ran == turn * ROUNDS


def test_rows_that_fail_or_differ_have_their_reasons(monkeypatch):
    def build(kind, setup):
        if kind == "compiled":
            raise RuntimeError("no compiler\nlong story")
        shift = 2 if kind == "onnxruntime" else 0
        return Subject(1, lambda number: None, lambda: _boxes(shift))

    def rates(subjects, *_):
        return {name: [10.0 * (place + 1)] * 3 for place, name in enumerate(subjects)}

    monkeypatch.setattr(measuring, "build", build)
    monkeypatch.setattr(measuring, "peak_memory", lambda kind, setup: 3 * 2**20)
    monkeypatch.setattr(measuring, "images_per_second", rates)
    rows = measure(dict.fromkeys(subjects.KINDS), SETUP, 1, lambda step: None)
    assert rows["compiled"].to_dict() == {"failed": "no compiler"}
    assert rows["onnxruntime"].ratio == 2 and rows["onnxruntime"].differences["box"] == 2
    [beyond] = rows["onnxruntime"].beyond
    assert "box: 2 of 2 differ by more than 0.5" in beyond
    eager = rows["eager"].to_dict()
    assert eager["images_per_s"] == 10 and eager["rounds"] == [10.0] * 3
    lines = table(rows).splitlines()
    assert lines[1].split() == ["eager", "10", "10", "10", "3", "MiB"]
    assert lines[2].split() == ["onnxruntime", "20", "20", "20", "2.00", "3", "MiB"]
    assert lines[3:5] == ["compiled: no compiler", "2 boxes per image"]
    assert lines[-1] == f"onnxruntime DIFFERS: {beyond}"
