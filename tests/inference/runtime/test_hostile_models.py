"""Hostile ONNX files: paths in them are not read, and code in them is not run."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from helpers.mutations import mutations
from onnx import TensorProto, helper

from negvision.errors import ExportError
from negvision.inference.runtime import ExportedModel, Metadata
from negvision.inference.runtime.metadata import KEY, Preprocessing

FACES = Metadata(
    task="face",
    preprocessing=Preprocessing((4, 4), False, False),
    config="import os; os.abort()\n",
)
PIXELS = 3 * 4 * 4


def model_of(weight: onnx.TensorProto, *nodes: onnx.NodeProto) -> onnx.ModelProto:
    """A recognizer whose embedding of an image is a product with ``weight``, (48, 2)."""
    model = onnx.parser.parse_model("""<ir_version: 10, opset_import: ["": 18]>
    faces (float[batch, 3, 4, 4] image) => (float[batch, 2] embeddings) {
        flat = Flatten (image)
        embeddings = MatMul (flat, weight)
    }""")
    model.graph.initializer.append(weight)
    if nodes:
        del model.graph.node[:]
        model.graph.node.extend(nodes)
        model.opset_import.extend(helper.make_opsetid(n.domain, 1) for n in nodes if n.domain)
    helper.set_model_props(model, {KEY: FACES.to_json()})
    return model


def plain_weight() -> onnx.TensorProto:
    values = np.linspace(-1, 1, PIXELS * 2, dtype=np.float32)
    return helper.make_tensor("weight", TensorProto.FLOAT, (PIXELS, 2), values.tobytes(), raw=True)


def test_metadata_and_outputs_must_match(tmp_path):
    model = model_of(plain_weight())
    del model.metadata_props[:]
    onnx.save(model, tmp_path / "bare.onnx")
    with pytest.raises(ExportError, match=r"bare\.onnx: .* negvision export"):
        ExportedModel(tmp_path / "bare.onnx")
    model = model_of(plain_weight())
    model.graph.output[0].name = model.graph.node[-1].output[0] = "poem"
    onnx.save(model, tmp_path / "faces.onnx")
    with pytest.raises(ExportError, match=r"faces\.onnx' has the outputs poem, but .*face has emb"):
        ExportedModel(tmp_path / "faces.onnx")


@pytest.mark.parametrize("kind", ["relative", "absolute", "link"])
def test_weights_outside_the_folder_are_not_read(tmp_path, kind):
    secret = tmp_path / "secret.bin"
    secret.write_bytes(bytes(PIXELS * 2 * 4))
    folder = tmp_path / "model"
    folder.mkdir()
    if kind == "link":
        (folder / "link.bin").symlink_to(secret)
    location = {"relative": "../secret.bin", "absolute": str(secret), "link": "link.bin"}[kind]
    weight = TensorProto(name="weight", data_type=TensorProto.FLOAT, dims=(PIXELS, 2))
    weight.data_location = TensorProto.EXTERNAL
    weight.external_data.add(key="location", value=location)
    (folder / "faces.onnx").write_bytes(model_of(weight).SerializeToString())
    with pytest.raises(ExportError, match=r"faces\.onnx.*cannot be opened"):
        ExportedModel(folder / "faces.onnx")


@pytest.mark.parametrize("domain", ["com.strangers", "ai.onnx.contrib"])
def test_foreign_operators_are_refused(tmp_path, domain):
    node = helper.make_node("PyOp", ["image"], ["embeddings"], domain=domain)
    model = model_of(plain_weight(), node)
    (tmp_path / "faces.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(ExportError, match=r"faces\.onnx.*cannot be opened"):
        ExportedModel(tmp_path / "faces.onnx")


def test_huge_allocation_is_an_error(tmp_path):
    shape = helper.make_tensor("weight", TensorProto.INT64, (2,), [1 << 40, 2])
    node = helper.make_node("ConstantOfShape", ["weight"], ["embeddings"])
    (tmp_path / "faces.onnx").write_bytes(model_of(shape, node).SerializeToString())
    with pytest.raises(ExportError, match=r"faces\.onnx"):
        list(ExportedModel(tmp_path / "faces.onnx").predict([np.ones((4, 4, 3), np.uint8)]))


OPEN = """
import sys
from pathlib import Path
import numpy as np
from negvision.errors import ExportError
from negvision.inference.runtime import ExportedModel

opened = 0
for path in sorted(Path(sys.argv[1]).iterdir()):
    print(path.name, flush=True)
    try:
        list(ExportedModel(path, threads=1).predict([np.ones((4, 4, 3), np.uint8)]))
        opened += 1
    except ExportError as error:
        assert path.name in str(error), error
print("opened", opened)
"""


def test_300_damaged_models_open_or_are_named(tmp_path):
    complete = model_of(plain_weight()).SerializeToString()
    folder = tmp_path / "models"
    folder.mkdir()
    for number, data in enumerate(mutations(complete, complete[::-1], 300, seed=0)):
        (folder / f"{number:03}.onnx").write_bytes(data)
    # In a separate process, to tell a crash from an exception.
    ran = subprocess.run(
        [sys.executable, "-c", OPEN, folder],
        capture_output=True,
        text=True,
        timeout=600,
        cwd=Path(__file__).parents[3],
    )
    assert ran.returncode == 0, (ran.stdout.splitlines()[-1:], ran.stderr[-2000:])
    opened = int(ran.stdout.split()[-1])
    assert 5 < opened < 200
