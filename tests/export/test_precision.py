"""The network is converted to fp16 or int8; decoding and AbeT's heads are not."""

from collections import Counter

import numpy as np
import onnx
import pytest
from helpers.small_models import write_images

from negvision.errors import ExportError
from negvision.export.formats import save, write_onnx
from negvision.export.graphs.choice import graph_and_metadata
from negvision.export.parity import check_defaults
from negvision.export.precision import network_nodes, to_fp16, to_int8
from negvision.inference.runtime import ExportedModel


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    sizes = {f"{number}_png": (32, 32) for number in range(8)}
    return write_images(tmp_path_factory.mktemp("calibration") / "images", **sizes)


@pytest.fixture
def face(built):
    cfg, model = built("face")
    graph, metadata = graph_and_metadata(cfg, model, {})
    return write_onnx(graph, metadata, 18), graph


def _vectors(path, images):
    return np.stack([one.vector for one in ExportedModel(path).predict(images, 4)])


@pytest.mark.parametrize(
    ("kind", "smaller", "cosine"), [("fp16", 0.55, 0.9999), ("int8", 0.4, 0.98)]
)
def test_converted_embeddings_stay_close(face, images, tmp_path, kind, smaller, cosine):
    model, graph = face
    network = network_nodes(model, graph.module)
    narrow = to_fp16(_copy(model), network) if kind == "fp16" else to_int8(model, network, images)
    wide_file, narrow_file = tmp_path / "wide.onnx", tmp_path / "narrow.onnx"
    save(model, wide_file)
    save(narrow, narrow_file)
    assert narrow_file.stat().st_size < smaller * wide_file.stat().st_size
    wanted, found = _vectors(wide_file, images), _vectors(narrow_file, images)
    assert not np.array_equal(wanted, found)
    cosines = (
        (wanted * found).sum(1) / np.linalg.norm(wanted, axis=1) / np.linalg.norm(found, axis=1)
    )
    assert cosines.min() > cosine


def _copy(model):
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    return copy


def test_decoding_and_temperatures_stay_in_fp32(built):
    cfg, model = built("abet")
    graph, metadata = graph_and_metadata(cfg, model, {})
    written = write_onnx(graph, metadata, 18)
    network = network_nodes(written, graph.module)
    kinds = Counter(node.op_type for node in written.graph.node if node.name in network)
    # All but the logits and temperatures of three levels.
    assert kinds["Conv"] == 40
    assert not {"NonMaxSuppression", "TopK", "Sigmoid", "Exp", "ReduceL2"} & set(kinds)
    half = to_fp16(_copy(written), network)
    types = {weights.name: weights.data_type for weights in half.graph.initializer}
    kept = [name for name in types if ".abet." in name]
    assert kept and {types[name] for name in kept} == {onnx.TensorProto.FLOAT}
    halved = sum(data_type == onnx.TensorProto.FLOAT16 for data_type in types.values())
    assert halved > 20


def test_fp16_runs_without_its_optional_inputs(built, images, tmp_path):
    cfg, model = built("abet")
    graph, metadata = graph_and_metadata(cfg, model, {}, "fp16")
    written = write_onnx(graph, metadata, 18)
    save(to_fp16(written, network_nodes(written, graph.module)), tmp_path / "half.onnx")
    exported = ExportedModel(tmp_path / "half.onnx")
    file = images[0]
    check_defaults(exported, file, (1, 3))
    graph_of = exported.graph
    exported.graph = lambda inputs: graph_of({"sizes": np.array([[9, 9]]), **inputs})
    with pytest.raises(ExportError, match="without the optional inputs sizes, the output"):
        check_defaults(exported, file)
