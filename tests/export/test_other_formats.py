"""OpenVINO where it is installed, and the calls of TensorRT up to the engine with a stand-in."""

import dataclasses
import sys
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import onnx
import pytest

from negvision.errors import ExportError
from negvision.export import formats
from negvision.export.describe import graph_and_metadata
from negvision.export.onnx_file import save, write_onnx
from negvision.inference.runtime import ExportedModel


@pytest.fixture
def face(built, tmp_path):
    """The graph of a face model, its metadata, and an ONNX file without defaults."""
    cfg, model = built("face")
    graph, metadata = graph_and_metadata(cfg, model, {})
    path = tmp_path / "face.onnx"
    save(write_onnx(graph, metadata, 18, legacy=True), path)
    return graph, metadata, path


class _TensorRT:
    """What of the package is called, noting it; the parser is onnx's own."""

    def __init__(self, parses=True, builds=True):
        self.parses, self.builds, self.profiles, self.flags = parses, builds, [], []
        self.Logger = type("Logger", (), {"ERROR": 1, "__init__": lambda self, level: None})
        self.BuilderFlag = SimpleNamespace(FP16="fp16")
        self.Builder = lambda logger: self
        self.OnnxParser = lambda network, logger: self
        self.num_errors = 1

    def create_network(self, flags):
        return self

    def parse_from_file(self, path):
        graph = onnx.load(path).graph
        self.inputs = [
            SimpleNamespace(
                name=value.name,
                shape=[axis.dim_value or -1 for axis in value.type.tensor_type.shape.dim],
            )
            for value in graph.input
        ]
        return self.parses

    num_inputs = property(lambda self: len(self.inputs))

    def get_input(self, number):
        return self.inputs[number]

    def get_error(self, number):
        return "no operator Poem"

    def create_builder_config(self):
        return SimpleNamespace(
            set_flag=self.flags.append, add_optimization_profile=self.profiles.append
        )

    def create_optimization_profile(self):
        return SimpleNamespace(set_shape=lambda *args: self.profiles.append(args))

    def build_serialized_network(self, network, config):
        return b"engine" if self.builds else None


def test_tensorrt_gets_the_graph_the_sizes_and_the_precision(face, tmp_path, monkeypatch):
    _, metadata, path = face
    package = _TensorRT()
    monkeypatch.setitem(sys.modules, "tensorrt", package)
    formats.require_package("tensorrt")
    metadata = dataclasses.replace(metadata, precision="fp16")
    formats.write_tensorrt(path, metadata, tmp_path / "face.engine")
    assert (tmp_path / "face.engine").read_bytes() == b"engine"
    assert '"task": "face"' in (tmp_path / "face.json").read_text()
    assert package.flags == ["fp16"]
    assert package.profiles[0] == ("image", (1, 3, 32, 32), (1, 3, 32, 32), (8, 3, 32, 32))


@pytest.mark.parametrize(
    ("options", "message"), [({"parses": False}, "no operator Poem"), ({"builds": False}, "engine")]
)
def test_what_tensorrt_cannot_do_is_told(face, tmp_path, monkeypatch, options, message):
    _, metadata, path = face
    monkeypatch.setitem(sys.modules, "tensorrt", _TensorRT(**options))
    with pytest.raises(ExportError, match=message):
        formats.write_tensorrt(path, metadata, tmp_path / "face.engine")
    assert not (tmp_path / "face.engine").exists()


def test_sides_of_an_engine_cover_small_and_large_images():
    shapes = [formats._engine_shape((-1, 3, -1, -1), place) for place in range(3)]
    assert shapes == [(1, 3, 64, 64), (1, 3, 640, 640), (8, 3, 1344, 1344)]


@pytest.mark.skipif(find_spec("openvino") is None, reason="openvino is not installed")
def test_openvino_gives_the_same_embeddings(face, tmp_path):
    graph, metadata, path = face
    run = formats.write_openvino(path, graph, metadata, Path(tmp_path / "face.xml"))
    picture = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    picture = cv2.GaussianBlur(picture, (0, 0), 2)
    [found] = ExportedModel.of_graph(run, metadata).predict([picture])
    [wanted] = ExportedModel(path).predict([picture])
    np.testing.assert_allclose(found.vector, wanted.vector, atol=1e-4 * np.abs(wanted.vector).max())
    assert (tmp_path / "face.bin").exists()
