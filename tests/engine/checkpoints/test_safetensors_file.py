"""Published weights come back unchanged, without the rest of the checkpoint."""

import hashlib
import json
import struct

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import nn

from negvision.engine.checkpoints.loading import load_checkpoint_file
from negvision.engine.checkpoints.safetensors_file import publish
from negvision.errors import CheckpointError, UserError
from negvision.ood.threshold import OODThreshold

OOD = OODThreshold(0.25, "abet", 0.95, 400, 0.3)
META = {
    "cfg": "model = dict(type='A')",
    "dataset_meta": {"classes": ("cat", "dog"), "palette": [(1, 2, 3)], "pairs": np.zeros(3)},
    "ood": OOD.as_meta(),
    "epoch": 12,
    "versions": {"torch": "2.11.0"},
    "random_states": [torch.zeros(5000)],
}


def checkpoint(**more):
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    return {"meta": META, "state_dict": model.state_dict(), "optimizer": {"state": {}}, **more}


def test_weights_and_metadata_round_trip(tmp_path):
    content = checkpoint()
    path = publish(content, tmp_path / "atss.safetensors", "x.pth")
    loaded = load_checkpoint_file(path, "cpu")
    assert loaded.keys() == {"state_dict", "meta"}
    assert loaded["state_dict"].keys() == content["state_dict"].keys()
    for name, tensor in content["state_dict"].items():
        found = loaded["state_dict"][name]
        assert torch.equal(found, tensor) and found.dtype == tensor.dtype
    assert OODThreshold.of_checkpoint(loaded) == OOD
    assert loaded["meta"]["dataset_meta"] == {"classes": ["cat", "dog"], "palette": [[1, 2, 3]]}
    assert loaded["meta"]["cfg"] == META["cfg"] and loaded["meta"]["epoch"] == 12
    assert loaded["meta"]["versions"] == META["versions"] and "random_states" not in loaded["meta"]
    assert path.stat().st_size < 5000


def test_name_holds_the_digest(tmp_path):
    path = publish(checkpoint(), tmp_path / "a.b.safetensors", "x.pth")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert path.name == f"a.b-{digest[:8]}.safetensors"
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_averages_are_published_by_default(tmp_path):
    """MMEngine stores the averages as the weights, and the weights under another key."""
    averages = checkpoint()["state_dict"]
    last = {f"module.{name}": tensor + 1 for name, tensor in averages.items()}
    content = checkpoint(state_dict=averages, ema_state_dict={**last, "steps": torch.tensor(3)})
    for ema, shift in ((True, 0), (False, 1)):
        path = publish(content, tmp_path / f"{ema}.safetensors", "x.pth", ema=ema)
        found = load_checkpoint_file(path)["state_dict"]
        assert found.keys() == averages.keys()
        assert all(torch.equal(found[name], averages[name] + shift) for name in averages)
    with pytest.raises(CheckpointError, match=r"'x\.pth' has no averaged weights"):
        publish(checkpoint(), tmp_path / "a.safetensors", "x.pth", ema=False)


def test_shared_and_strided_tensors(tmp_path):
    weight = torch.arange(6.0).reshape(2, 3)
    state = {"a": weight, "b": weight, "c": weight.t(), "d": weight[1:], "e": torch.tensor(4)}
    path = publish({"state_dict": state}, tmp_path / "a.safetensors", "x.pth")
    found = load_checkpoint_file(path)["state_dict"]
    assert all(torch.equal(found[name], state[name]) for name in state)


def test_weights_without_metadata(tmp_path):
    paths = [publish({"w": torch.ones(2)}, tmp_path / "a.safetensors", "x.pth")]
    paths.append(tmp_path / "of_another_program.safetensors")
    safetensors.torch.save_file({"w": torch.ones(2)}, paths[1])
    for path in paths:
        loaded = load_checkpoint_file(path, torch.device("cpu"))
        assert loaded["meta"] == {} and loaded["state_dict"]["w"].tolist() == [1, 1]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"state_dict": {}}, "holds no weights; it has state_dict"),
        ({"state_dict": {"w": [1.0]}}, "holds no weights; it has state_dict"),
        ({"epoch": 3, "state_dict": 3}, "holds no weights; it has epoch, state_dict"),
        ({"meta": {"random_states": {"torch": torch.ones(2)}}}, "holds no weights; it has meta"),
        ({}, "holds no weights; it has nothing"),
    ],
)
def test_no_weights(tmp_path, content, message):
    with pytest.raises(CheckpointError, match=rf"'x\.pth'.*{message}"):
        publish(content, tmp_path / "a.safetensors", "x.pth")
    assert not list(tmp_path.iterdir())


def test_missing_folder(tmp_path):
    with pytest.raises(UserError, match=r"none/a-\w{8}\.safetensors cannot be written: No such"):
        publish(checkpoint(), tmp_path / "none/a.safetensors", "x.pth")


def test_damaged_files_are_named(tmp_path):
    """Cut at every eighth byte, each byte of the header changed: loads or is refused."""
    whole = publish(checkpoint(), tmp_path / "a.safetensors", "x.pth").read_bytes()
    path = tmp_path / "damaged.safetensors"
    length = struct.unpack("<Q", whole[:8])[0]
    changed = [whole[:end] for end in range(0, len(whole), 8)]
    changed += [
        whole[:place] + bytes([whole[place] ^ 0x55]) + whole[place + 1 :]
        for place in range(8 + length)
    ]
    refused = 0
    for data in changed:
        path.write_bytes(data)
        try:
            assert isinstance(load_checkpoint_file(path)["meta"], dict)
        except CheckpointError as error:
            assert str(path) in str(error)
            refused += 1
    assert refused > len(changed) // 3


@pytest.mark.parametrize("text", ["[1]", "{", "[" * 100_000, "9" * 5000])
def test_metadata_of_another_type(tmp_path, text):
    path = tmp_path / "a.safetensors"
    path.write_bytes(safetensors.torch.save({"w": torch.ones(1)}, {"negvision": text}))
    with pytest.raises(CheckpointError, match=r"a\.safetensors' cannot be read"):
        load_checkpoint_file(path)


def test_metadata_hold_text_only(tmp_path):
    """What the header holds is JSON; a reader has nothing to execute."""
    data = publish(checkpoint(), tmp_path / "a.safetensors", "x.pth").read_bytes()
    length = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8 : 8 + length])
    assert header.pop("__metadata__").keys() == {"format", "negvision"}
    assert all(entry.keys() == {"dtype", "shape", "data_offsets"} for entry in header.values())
