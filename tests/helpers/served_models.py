"""Exported models with known predictions: graphs of a few nodes with our metadata."""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from negvision.inference.runtime.metadata import KEY, Metadata, Preprocessing

# For an image of 160 x 120 pixels, sorted by descending score.
BOXES = [
    [8, 8, 60, 60],
    [70, 10, 120, 70],
    [20, 70, 80, 112],
    [100, 60, 150, 110],
    [5, 5, 155, 115],
]
SCORES = [0.95, 0.8, 0.55, 0.25, 0.1]
LABELS = [0, 1, 1, 2, 0]
OOD = [-9.0, -3.0, -8.0, -2.0, -1.0]
CLASSES = ("<b>cat</b>", "dog", "bird")


def _constant(name: str, values, dtype) -> onnx.NodeProto:
    return helper.make_node(
        "Constant", [], [name], value=numpy_helper.from_array(np.asarray(values, dtype))
    )


def _save(path: Path, nodes, inputs, outputs, metadata: Metadata) -> Path:
    graph = helper.make_graph(nodes, "known", inputs, outputs)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    helper.set_model_props(model, {KEY: metadata.to_json()})
    onnx.save(model, path)
    return path


def _value(name: str, kind: int, *shape) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)


_IMAGE = _value("image", TensorProto.FLOAT, "b", 3, "h", "w")


def save_detector(path: Path) -> Path:
    """The boxes above, whatever the image."""
    nodes = [
        _constant("boxes", [BOXES], np.float32),
        _constant("scores", [SCORES], np.float32),
        _constant("labels", [LABELS], np.int64),
        _constant("ood_scores", [OOD], np.float32),
        _constant("counts", [5], np.int64),
    ]
    outputs = [
        _value("boxes", TensorProto.FLOAT, 1, 5, 4),
        _value("scores", TensorProto.FLOAT, 1, 5),
        _value("labels", TensorProto.INT64, 1, 5),
        _value("ood_scores", TensorProto.FLOAT, 1, 5),
        _value("counts", TensorProto.INT64, 1),
    ]
    inputs = [_IMAGE, _value("sizes", TensorProto.INT64, "b", 2)]
    own = Metadata("detection", Preprocessing(), CLASSES, ood_score="abet", ood_threshold=-2.5)
    return _save(path, nodes, inputs, outputs, own)


def save_segmentor(path: Path) -> Path:
    """Class 1 where red is above 128, else 0; the OOD score of a pixel is its green."""
    nodes = [
        _constant("limit", 128, np.float32),
        _constant("red_at", 0, np.int64),
        _constant("green_at", 1, np.int64),
        helper.make_node("Gather", ["image", "red_at"], ["red"], axis=1),
        helper.make_node("Gather", ["image", "green_at"], ["ood_scores"], axis=1),
        helper.make_node("Greater", ["red", "limit"], ["above"]),
        helper.make_node("Cast", ["above"], ["labels"], to=TensorProto.INT32),
    ]
    outputs = [
        _value("labels", TensorProto.INT32, "b", "h", "w"),
        _value("ood_scores", TensorProto.FLOAT, "b", "h", "w"),
    ]
    inputs = [
        _IMAGE,
        _value("size", TensorProto.INT64, 2),
        _value("out_size", TensorProto.INT64, 2),
    ]
    own = Metadata("segmentation", Preprocessing(), ("road", "sky"), ood_score="abet")
    return _save(path, nodes, inputs, outputs, own)


def save_recognizer(path: Path) -> Path:
    """The mean color of images of 112 x 112 pixels."""
    nodes = [
        helper.make_node("GlobalAveragePool", ["image"], ["mean"]),
        _constant("shape", [0, 3], np.int64),
        helper.make_node("Reshape", ["mean", "shape"], ["embeddings"]),
    ]
    outputs = [_value("embeddings", TensorProto.FLOAT, "b", 3)]
    own = Metadata("face", Preprocessing(size=(112, 112)))
    return _save(path, nodes, [_IMAGE], outputs, own)
