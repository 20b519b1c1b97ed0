"""Files that would run a command: checkpoints of all sources, .bin, .npz, .pkl and .yaml."""

import io
import os
import pickle
from pathlib import Path

import mmengine.runner.checkpoint as mmengine_checkpoint
import numpy as np
import pytest
import torch
from mmengine import fileio
from mmengine.fileio.handlers import file_handlers
from mmengine.hooks import EMAHook
from mmengine.optim import OneCycleParamScheduler
from mmengine.runner.checkpoint import CheckpointLoader

from negvision.cli.main import main as negvision
from negvision.data.images.packs import read_pack
from negvision.engine.checkpoints.loading import install_loaders, load_checkpoint_file
from negvision.engine.file_handlers import install_file_handlers
from negvision.errors import CheckpointError, DatasetError
from negvision.face.datasets import FaceBinDataset

# Each payload would create this folder.
MADE = Path("made")


class Reduce:
    """A function and its arguments."""

    def __reduce__(self):
        return os.mkdir, (str(MADE),)


class Evaluate:
    def __reduce__(self):
        return eval, (f"__import__('os').mkdir({str(MADE)!r})",)


class Setter:
    """Through the state of an allowed object."""

    def __reduce__(self):
        return torch._utils._rebuild_tensor_v2, (Reduce(), 0, (1,), (1,), False, {})


class Attribute:
    """Through getattr of an allowed object."""

    def __reduce__(self):
        return getattr, (EMAHook, "__init__")


class AttributeOfSchedule:
    """Through getattr of an object whose other methods are allowed."""

    def __reduce__(self):
        return getattr, (OneCycleParamScheduler, "__init__")


PAYLOADS = [Reduce, Evaluate, Setter, Attribute, AttributeOfSchedule]
# Protocol 0 by hand, which pickle.dumps would not write.
BY_HAND = {
    "os.system": b"cposix\nsystem\n(S'mkdir made'\ntR.",
    "numpy.runstring": (
        b"cnumpy.testing._private.utils\nrunstring\n(S'import os; os.mkdir(\"made\")'\n(dtR."
    ),
    "builtins.exec": b"cbuiltins\nexec\n(S'import os; os.mkdir(\"made\")'\ntR.",
    "instance": b"(S'mkdir made'\niposix\nsystem\n.",
}


@pytest.fixture(autouse=True)
def _nothing_is_made(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    schemes, handlers = CheckpointLoader._schemes.copy(), dict(file_handlers)
    kept = (mmengine_checkpoint.load_from_http, mmengine_checkpoint._safe_torch_load)
    yield
    CheckpointLoader._schemes = schemes
    file_handlers.update(handlers)
    mmengine_checkpoint.load_from_http, mmengine_checkpoint._safe_torch_load = kept
    assert not MADE.exists()


def test_payloads_run_without_protection():
    """Otherwise the tests below would prove nothing."""
    for data in (pickle.dumps(Reduce()), pickle.dumps(Evaluate()), *BY_HAND.values()):
        if b"runstring" not in data:
            pickle.loads(data)
            assert MADE.is_dir()
            MADE.rmdir()


def write(path: Path, content: object, legacy: bool) -> Path:
    torch.save(content, path, _use_new_zipfile_serialization=not legacy)
    return path


@pytest.mark.parametrize("payload", PAYLOADS)
@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
@pytest.mark.parametrize("where", ["meta", "optimizer", "message_hub", "key", "all"])
def test_checkpoints(payload, legacy, where):
    content = {"state_dict": {"w": torch.ones(1)}, "meta": {}, where: [payload()]}
    if where == "key":
        content = {"state_dict": {}, (payload(),): 1}
    path = write(Path("bad.pth"), payload() if where == "all" else content, legacy)
    with pytest.raises(CheckpointError, match=r"'bad\.pth'.*--trust-checkpoint|'bad\.pth'"):
        load_checkpoint_file(path)


@pytest.mark.parametrize("data", BY_HAND.values(), ids=BY_HAND)
def test_handwritten_pickles(data):
    for name in ("bad.pth", "bad.safetensors"):
        Path(name).write_bytes(data)
        with pytest.raises(CheckpointError, match=rf"'bad\.{name[4:]}'"):
            load_checkpoint_file(name)
    Path("bad.bin").write_bytes(data)
    with pytest.raises(DatasetError, match=r"^\S*bad\.bin: "):
        FaceBinDataset(ann_file="bad.bin")


@pytest.mark.parametrize("payload", PAYLOADS)
@pytest.mark.parametrize("protocol", range(6))
def test_bin_of_faces(payload, protocol):
    for content in ([payload()], ([b"", b""], [payload()]), payload()):
        Path("bad.bin").write_bytes(pickle.dumps(content, protocol=protocol))
        for mode in ("error", "skip"):
            with pytest.raises(DatasetError, match=r"bad\.bin: "):
                FaceBinDataset(ann_file="bad.bin", on_bad_sample=mode)


@pytest.mark.parametrize("payload", PAYLOADS)
@pytest.mark.parametrize("array", ["data", "offsets", "labels", "classes"])
def test_packs_of_images(payload, array):
    arrays = {"data": np.zeros(1, np.uint8), "offsets": np.array([0, 1]),
              "labels": np.array([0]), "classes": np.array(["a"])}  # fmt: skip
    arrays[array] = np.array([payload()], dtype=object)
    np.savez("bad.npz", **arrays)
    with pytest.raises(DatasetError, match=r"^bad\.npz: .*allow_pickle"):
        read_pack("bad.npz")


@pytest.mark.parametrize("payload", PAYLOADS)
@pytest.mark.parametrize("suffix", ["pkl", "pickle"])
def test_annotation_files_of_mmengine(payload, suffix):
    install_file_handlers()
    Path(f"bad.{suffix}").write_bytes(pickle.dumps(payload()))
    with pytest.raises(DatasetError, match="a pickle can run any code"):
        fileio.load(f"bad.{suffix}")
    fileio.dump([1], f"good.{suffix}")  # writing is not affected
    install_file_handlers(trust=True)
    assert fileio.load(f"good.{suffix}") == [1]


@pytest.mark.parametrize(
    "text",
    [
        "a: !!python/object/apply:os.mkdir [made]",
        "a: !!python/name:os.mkdir",
        "a: !!python/module:os",
        "a: !evil made",
    ],
)
def test_yaml_builds_no_objects(text):
    Path("a.yaml").write_text(text)
    install_file_handlers()
    with pytest.raises(DatasetError, match=r"is not YAML with plain values only"):
        fileio.load("a.yaml")


@pytest.mark.parametrize(
    "url",
    [
        "bad.pth",
        "https://example.org/bad.pth",
        "torchvision://resnet50",
        "open-mmlab://vgg16_caffe",
        "openmmlab://vgg16_caffe",
        "openmmlab://of_the_user",
        "mmcls://vgg11",
        "s3://bucket/bad.pth",
        "petrel://bucket/bad.pth",
    ],
)
def test_every_source_of_weights(monkeypatch, url):
    """Some of mmengine's loaders ignore weights_only."""
    path = write(Path("bad.pth").absolute(), {"state_dict": {}, "meta": Reduce()}, legacy=False)

    class Backend:
        def get(self, name):
            return path.read_bytes()

    loading = "negvision.engine.checkpoints.loading"
    monkeypatch.setattr(f"{loading}._download", lambda url, asked_for: path)
    monkeypatch.setattr(mmengine_checkpoint, "get_file_backend", lambda *_, **__: Backend())
    urls = {"vgg16_caffe": "https://example.org/x.pth", "of_the_user": str(path)}
    monkeypatch.setattr(mmengine_checkpoint, "get_external_models", lambda: urls)
    install_loaders()
    with pytest.raises(CheckpointError, match="checkpoint"):
        CheckpointLoader.load_checkpoint(url, "cpu", logger="silent")
    install_loaders(trust=True)
    CheckpointLoader.load_checkpoint(url, "cpu", logger="silent")
    MADE.rmdir()  # the payload ran


def test_commands(capsys):
    write(Path("bad.pth"), {"state_dict": {}, "meta": Reduce()}, legacy=False)
    assert negvision(["publish-model", "bad.pth", "--out", "out.safetensors"]) == 2
    printed = capsys.readouterr().err
    assert "'bad.pth' was not loaded" in printed and "--trust-checkpoint" in printed
    assert not Path("out.safetensors").exists()


def test_five_hundred_damaged_checkpoints():
    """The bits of a pickle are instructions; flipping some runs nothing."""
    content = {"state_dict": {"w": torch.ones(8)}, "meta": {"epoch": 1, "classes": ("a", "b")}}
    for legacy in (False, True):
        file = io.BytesIO()
        torch.save(content, file, _use_new_zipfile_serialization=not legacy)
        whole, rng = file.getvalue(), np.random.default_rng(legacy)
        for _ in range(250):
            data = bytearray(whole)
            for place in rng.integers(0, min(len(data), 900), int(rng.integers(1, 6))):
                data[place] = int(rng.integers(256))
            Path("damaged.pth").write_bytes(data)
            try:
                assert isinstance(load_checkpoint_file("damaged.pth"), dict)
            except CheckpointError as error:
                assert "damaged.pth" in str(error)
