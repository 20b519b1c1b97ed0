"""The network is converted to fp16 or int8; decoding and AbeT's heads are not."""

from collections import Counter

import numpy as np
import onnx
import pytest
from helpers.small_models import write_images

from negvision.errors import ExportError
from negvision.export.formats import save
from negvision.export.graphs.choice import choose_graph
from negvision.export.parity import check_defaults
from negvision.export.precision import network_nodes, to_fp16, to_int8
from negvision.inference.runtime import ExportedModel


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    sizes = {f"{number}_png": (32, 32) for number in range(8)}
    return write_images(tmp_path_factory.mktemp("calibration") / "images", **sizes)


@pytest.fixture
def written(built, exported):
    """Function from a model's name to what the current exporter writes, and the nodes to narrow."""

    def load(name):
        model = onnx.load(exported(name, legacy=False, scopes=True))
        return model, network_nodes(model, choose_graph(built(name)[1]).module)

    return load


def _vectors(path, images):
    return np.stack([one.vector for one in ExportedModel(path).predict(images, 4)])


@pytest.mark.parametrize(
    ("kind", "smaller", "cosine"), [("fp16", 0.55, 0.9999), ("int8", 0.4, 0.98)]
)
def test_converted_embeddings_stay_close(
    written, exported, images, tmp_path, kind, smaller, cosine
):
    narrow = to_fp16(*written("face")) if kind == "fp16" else to_int8(*written("face"), images)
    wide_file, narrow_file = exported("face", legacy=False), tmp_path / "narrow.onnx"
    save(narrow, narrow_file)
    assert narrow_file.stat().st_size < smaller * wide_file.stat().st_size
    wanted, found = _vectors(wide_file, images), _vectors(narrow_file, images)
    assert not np.array_equal(wanted, found)
    cosines = (
        (wanted * found).sum(1) / np.linalg.norm(wanted, axis=1) / np.linalg.norm(found, axis=1)
    )
    assert cosines.min() > cosine


def test_decoding_and_temperatures_stay_in_fp32(written):
    model, network = written("abet")
    kinds = Counter(node.op_type for node in model.graph.node if node.name in network)
    # All but the logits and temperatures of three levels.
    assert kinds["Conv"] == 40
    assert not {"NonMaxSuppression", "TopK", "Sigmoid", "Exp", "ReduceL2"} & set(kinds)
    half = to_fp16(model, network)
    types = {weights.name: weights.data_type for weights in half.graph.initializer}
    kept = [name for name in types if ".abet." in name]
    assert kept and {types[name] for name in kept} == {onnx.TensorProto.FLOAT}
    halved = sum(data_type == onnx.TensorProto.FLOAT16 for data_type in types.values())
    assert halved > 20


def test_heads_of_an_int8_detector_stay_in_fp32(written, images, tmp_path):
    model = to_int8(*written("abet"), images)
    quantized = {w.name for w in model.graph.initializer if w.data_type == onnx.TensorProto.INT8}
    assert len(quantized) > 20 and not [name for name in quantized if ".abet." in name]
    save(model, tmp_path / "int8.onnx")
    [found] = ExportedModel(tmp_path / "int8.onnx").predict(images[:1])
    assert len(found) and np.isfinite(found.ood_scores).all()


def test_fp16_runs_without_its_optional_inputs(written, images, tmp_path):
    save(to_fp16(*written("abet")), tmp_path / "half.onnx")
    exported = ExportedModel(tmp_path / "half.onnx")
    file = images[0]
    check_defaults(exported, file, (1, 3))
    graph_of = exported.graph
    exported.graph = lambda inputs: graph_of({"sizes": np.array([[9, 9]]), **inputs})
    with pytest.raises(ExportError, match="without the optional inputs sizes, the output"):
        check_defaults(exported, file)
