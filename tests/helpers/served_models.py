"""Exported models with known predictions: graphs of a few nodes with our metadata."""

from pathlib import Path

import onnx

from negvision.inference.runtime.metadata import KEY, Metadata, Preprocessing


def _save(path: Path, text: str, metadata: Metadata) -> Path:
    model = onnx.parser.parse_model('<ir_version: 10, opset_import: ["": 18]>\n' + text)
    onnx.helper.set_model_props(model, {KEY: metadata.to_json()})
    onnx.save(model, path)
    return path


def save_detector(path: Path, **known: object) -> Path:
    """Five boxes for an image of 160 x 120 pixels, whatever it shows; ``known`` is metadata."""
    text = """known (float[b, 3, h, w] image, int64[b, 2] sizes) => (
        float[1, 5, 4] boxes, float[1, 5] scores, int64[1, 5] labels, float[1, 5] ood_scores,
        int64[1] counts
    ) {
        boxes = Constant <value = float[1, 5, 4] {
            8, 8, 60, 60, 70, 10, 120, 70, 20, 70, 80, 112, 100, 60, 150, 110, 5, 5, 155, 115
        }> ()
        scores = Constant <value = float[1, 5] {0.95, 0.8, 0.55, 0.25, 0.1}> ()
        labels = Constant <value = int64[1, 5] {0, 1, 1, 2, 0}> ()
        ood_scores = Constant <value = float[1, 5] {-9, -3, -8, -2, -1}> ()
        counts = Constant <value = int64[1] {5}> ()
    }"""
    classes = ("<b>cat</b>", "dog", "bird")
    known = {"ood_score": "abet", "ood_threshold": -2.5, **known}
    own = Metadata("detection", Preprocessing(), classes, **known)
    return _save(path, text, own)


def save_segmentor(path: Path) -> Path:
    """Class 1 where red is above 128, else 0; the OOD score of a pixel is its green."""
    text = """known (float[b, 3, h, w] image, int64[2] size, int64[2] out_size) => (
        int32[b, h, w] labels, float[b, h, w] ood_scores
    ) {
        limit = Constant <value_float = 128.0> ()
        zero = Constant <value_int = 0> ()
        one = Constant <value_int = 1> ()
        red = Gather <axis = 1> (image, zero)
        ood_scores = Gather <axis = 1> (image, one)
        above = Greater (red, limit)
        labels = Cast <to = 6> (above)
    }"""
    own = Metadata("segmentation", Preprocessing(), ("road", "sky"), ood_score="abet")
    return _save(path, text, own)


def save_recognizer(path: Path, **known: object) -> Path:
    """The mean color of images of 112 x 112 pixels; ``known`` is metadata."""
    text = """known (float[b, 3, h, w] image) => (float[b, 3] embeddings) {
        axes = Constant <value_ints = [2, 3]> ()
        embeddings = ReduceMean <keepdims = 0> (image, axes)
    }"""
    return _save(path, text, Metadata("face", Preprocessing(size=(112, 112)), **known))
