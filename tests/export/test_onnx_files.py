"""ONNX files against their graphs in torch, with other sizes and batches than at export."""

import json
from importlib.util import find_spec

import numpy as np
import onnx
import pytest
import torch

from negvision.errors import CheckpointError, ExportError
from negvision.export.formats import save, write_onnx, write_openvino
from negvision.export.graphs.choice import choose_graph, graph_and_metadata
from negvision.export.parity import Differences, compare_results
from negvision.inference.runtime import Detections, ExportedModel, Metadata
from negvision.inference.runtime.metadata import KEY, Preprocessing
from negvision.ood import FEATURE_SCORE_NAMES, fit_statistics

# The current exporter for one model of each kind; the others with the faster, older one.
FILES = [
    ("abet", False), ("pixels", False), ("face", False), ("faster_abet", False),
    ("abet", True), ("lite", True), ("retina", True), ("faster", True), ("pixels", True),
    ("face", True),
]  # fmt: skip


def _run(path, **inputs):
    given = {name: value.numpy() for name, value in inputs.items()}
    return [torch.from_numpy(value) for value in ExportedModel(path).graph(given).values()]


@pytest.mark.parametrize(("name", "legacy"), FILES)
def test_any_batch_and_size_matches_torch(built, exported, name, legacy):
    _, model = built(name)
    graph = choose_graph(model)
    path = exported(name, legacy)
    generator = torch.Generator().manual_seed(1)
    for batch, height, width in ((1, 129, 257), (3, 96, 64)):
        side = graph.size or (height, width)
        inputs = {"image": torch.randn(batch, 3, *side, generator=generator)}
        for given in (False, True):
            others = dict(graph.defaults)
            if given and "sizes" in others:
                others["sizes"] = torch.tensor([[90, 60]] * batch)
            elif given and "size" in others:
                others = {"size": torch.tensor([90, 60]), "out_size": torch.tensor([45, 77])}
            with torch.no_grad():
                wanted = graph.module(*inputs.values(), *others.values())
            # Inputs that are not given have their defaults.
            found = _run(path, **inputs, **(others if given else {}))
            _check_close(graph, wanted, found)


def _check_close(graph, wanted, found):
    for output, own, other in zip(graph.outputs, wanted, found, strict=True):
        assert own.shape == other.shape, output
        if graph.task != "detection":
            torch.testing.assert_close(other, own, atol=1e-3, rtol=1e-4, msg=output)
    if graph.task != "detection":
        return
    # Boxes of nearly the same score may swap, and one at a threshold may be dropped.
    limits = Metadata("detection", Preprocessing(), **graph.limits)
    wanted, found = (dict(zip(graph.outputs, side, strict=True)) for side in (wanted, found))
    for row in range(len(wanted["counts"])):
        result = Differences()
        compare_results(_image(found, row), _image(wanted, row), limits, 1e-5, result)
        assert result.compared > 20
        assert result.unmatched == 0 and result.borderline <= 2
        assert result.largest["score"] < 1e-5 and result.largest["box"] < 1e-2
        assert result.largest.get("ood", 0) < 1e-5


def _image(outputs, row) -> Detections:
    count = int(outputs["counts"][row])
    kept = {
        name: values[row, :count].numpy() for name, values in outputs.items() if name != "counts"
    }
    return Detections(kept["boxes"], kept["scores"], kept["labels"], kept.get("ood_scores"))


@pytest.mark.parametrize(
    ("name", "score", "legacy"),
    [
        *(("images", score, True) for score in FEATURE_SCORE_NAMES),
        ("images", "knn", False), ("pixels", "mahalanobis", True),
    ],
)  # fmt: skip
def test_a_file_computes_scores_of_features(built, tmp_path, name, score, legacy):
    options = {"type": score} | ({"neighbors": 5} if score in ("knn", "nnguide") else {})
    cfg, model = built(name, model__score=options)
    with pytest.raises(CheckpointError, match="no statistics of in-distribution features"):
        choose_graph(model)
    generator, side = torch.Generator().manual_seed(0), (64, 64)
    with fit_statistics(model), torch.no_grad():
        image = torch.randn(40, 3, *side, generator=generator)
        if name == "images":
            model(image)
        else:
            with model.decode_head.conv_seg.temperature_appended():
                model.decode_head(model.extract_feat(image))
    graph, metadata = graph_and_metadata(cfg, model, {})
    others, side = list(graph.defaults.values()), graph.size or side
    images = torch.randn(3, 3, *side, generator=generator)
    with torch.no_grad():
        *_, wanted = graph.module(images, *others)
    save(write_onnx(graph, metadata, 18, legacy), tmp_path / "m.onnx")
    *_, found = _run(tmp_path / "m.onnx", image=images)
    torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("name", ["abet", "pixels"])
def test_inputs_and_outputs_have_names_and_axes(exported, name):
    model = onnx.load(exported(name, legacy=False))
    onnx.checker.check_model(model)
    axes = {
        value.name: [axis.dim_param or axis.dim_value for axis in value.type.tensor_type.shape.dim]
        for value in (*model.graph.input, *model.graph.output)
    }
    assert axes["image"] == ["batch", 3, "height", "width"]
    if name == "abet":
        assert axes["sizes"] == ["batch", 2]
        assert axes["boxes"] == ["batch", 100, 4] and axes["counts"] == ["batch"]
    else:
        assert axes["labels"] == axes["ood_scores"] == ["batch", "out_height", "out_width"]


def test_file_has_no_paths_of_the_machine(exported):
    model = onnx.load(exported("abet", legacy=False))
    texts = [entry.key for entry in model.metadata_props]
    texts += [entry.value for node in model.graph.node for entry in node.metadata_props]
    texts += [node.doc_string for node in model.graph.node]
    assert [text for text in texts if text] == [KEY]
    assert b"site-packages" not in model.SerializeToString()


def test_metadata_of_model_config_and_checkpoint(built, exported):
    cfg, model = built("abet")
    meta = {"dataset_meta": {"classes": ["a", "b", "c", "d", "e", "f", "g", "h"]}}
    model.bbox_head.ood_threshold = -2.5
    _, found = graph_and_metadata(cfg, model, meta)
    assert found.task == "detection" and found.classes == tuple("abcdefgh")
    assert (found.ood_score, found.ood_threshold) == ("abet", -2.5)
    assert (found.score_threshold, found.iou_threshold, found.max_boxes) == (0.05, 0.6, 100)
    own = found.preprocessing
    assert (own.scale, own.keep_ratio, own.rgb, own.pad_divisor) == ((192, 192), True, True, 32)
    np.testing.assert_allclose(own.mean, (123.675, 116.28, 103.53), rtol=1e-6)
    assert found.versions["torch"] == torch.__version__.partition("+")[0]
    assert "AbeTATSSHead" in found.config
    [entry] = onnx.load(exported("abet")).metadata_props
    assert json.loads(entry.value)["classes"][-1] == "eight"  # of the config


def test_wrong_number_of_classes_is_an_error(built):
    cfg, model = built("abet")
    with pytest.raises(ExportError, match=r"has 8 classes, .* names 2: a, b"):
        graph_and_metadata(cfg, model, {"dataset_meta": {"classes": ["a", "b"]}})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"type": "Resize", "scale": (9, 9), "interpolation": "area"}, "interpolation='area'"),
        ({"type": "Resize", "scale_factor": 0.5}, "scale_factor=0.5"),
        ({"type": "CenterCrop", "crop_size": 9}, "CenterCrop"),
        ({"type": "LoadImageFromFile", "color_type": "grayscale"}, "color_type='grayscale'"),
    ],
)
def test_unsupported_pipelines_are_an_error(built, change, message):
    cfg, model = built("atss")
    pipeline = cfg.test_dataloader.dataset.pipeline
    cfg.test_dataloader.dataset.pipeline = [change, *pipeline[2:]]
    with pytest.raises(ExportError, match=message):
        graph_and_metadata(cfg, model, {})


@pytest.mark.skipif(find_spec("openvino") is None, reason="openvino is not installed")
def test_openvino_returns_the_same_embeddings(built, exported, tmp_path):
    graph, metadata = graph_and_metadata(*built("face"), {})
    path = exported("face")
    run = write_openvino(path, graph, metadata, tmp_path / "face.xml")
    image = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    [found] = ExportedModel.of_graph(run, metadata).predict([image])
    [wanted] = ExportedModel(path).predict([image])
    np.testing.assert_allclose(found.vector, wanted.vector, atol=1e-4 * np.abs(wanted.vector).max())
    assert (tmp_path / "face.bin").exists()
