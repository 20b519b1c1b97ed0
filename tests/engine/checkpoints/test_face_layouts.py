"""Face recognizers of other projects: the file alone gives the network, and the same embeddings."""

import cv2
import numpy as np
import pytest
import torch
from helpers.commands import command
from torch import nn

from negvision.engine.checkpoints.fitting import face_in
from negvision.engine.config.reading import load_config
from negvision.errors import CheckpointError
from negvision.inference.inferencer import Inferencer
from negvision.inference.weights import load_model
from negvision.registry import MODELS


def conv(inputs, outputs, kernel=1, stride=1, groups=1):
    return nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)


class AdaBlock(nn.Module):
    """The unit of AdaFace: its shortcut has weights only where the channels change."""

    def __init__(self, inputs, outputs, stride):
        super().__init__()
        self.shortcut_layer = nn.MaxPool2d(1, stride)
        if inputs != outputs:
            self.shortcut_layer = nn.Sequential(
                conv(inputs, outputs, 1, stride), nn.BatchNorm2d(outputs)
            )
        self.res_layer = nn.Sequential(
            nn.BatchNorm2d(inputs), conv(inputs, outputs, 3), nn.BatchNorm2d(outputs),
            nn.PReLU(outputs), conv(outputs, outputs, 3, stride), nn.BatchNorm2d(outputs),
        )  # fmt: skip

    def forward(self, x):
        return self.shortcut_layer(x) + self.res_layer(x)


class AdaFace(nn.Module):
    """IR-18, narrow."""

    def __init__(self, widths=(4, 8, 12, 16)):
        super().__init__()
        first = widths[0]
        self.input_layer = nn.Sequential(conv(3, first, 3), nn.BatchNorm2d(first), nn.PReLU(first))
        body, inputs = [], first
        for width in widths:
            body += [AdaBlock(inputs, width, 2), AdaBlock(width, width, 1)]
            inputs = width
        self.body = nn.Sequential(*body)
        self.output_layer = nn.Sequential(
            nn.BatchNorm2d(inputs), nn.Dropout(0.4), nn.Flatten(), nn.Linear(inputs * 49, 6),
            nn.BatchNorm1d(6, affine=False),
        )  # fmt: skip

    def forward(self, x):
        return self.output_layer(self.body(self.input_layer(x)))


def conv_relu6(inputs, outputs, kernel=1, stride=1, groups=1):
    layers = conv(inputs, outputs, kernel, stride, groups), nn.BatchNorm2d(outputs), nn.ReLU6()
    return nn.Sequential(*layers)


class Inverted(nn.Module):
    def __init__(self, inputs, outputs, stride, factor):
        super().__init__()
        hidden = inputs * factor
        self.adds = stride == 1 and inputs == outputs
        self.conv = nn.Sequential(
            conv_relu6(inputs, hidden), conv_relu6(hidden, hidden, 3, stride, hidden),
            conv(hidden, outputs), nn.BatchNorm2d(outputs),
        )  # fmt: skip

    def forward(self, x):
        return self.conv(x) + x if self.adds else self.conv(x)


class Mobile(nn.Module):
    """MobileFaceNet of foamliu."""

    def __init__(self):
        super().__init__()
        self.conv1 = conv_relu6(3, 64, 3, 2)
        self.dw_conv = nn.ModuleDict(
            {"depthwise": conv(64, 64, 3, groups=64), "pointwise": conv(64, 64),
             "bn1": nn.BatchNorm2d(64), "bn2": nn.BatchNorm2d(64)}
        )  # fmt: skip
        features, inputs = [], 64
        for factor, outputs, count, stride in (
            (2, 64, 5, 2), (4, 128, 1, 2), (2, 128, 6, 1), (4, 128, 1, 2), (2, 128, 2, 1)
        ):  # fmt: skip
            for number in range(count):
                features.append(Inverted(inputs, outputs, 1 if number else stride, factor))
                inputs = outputs
        self.features = nn.Sequential(*features)
        self.conv2 = conv_relu6(128, 512)
        self.gdconv = nn.ModuleDict(
            {"depthwise": nn.Conv2d(512, 512, 7, groups=512, bias=False),
             "bn": nn.BatchNorm2d(512)}
        )  # fmt: skip
        self.conv3, self.bn = nn.Conv2d(512, 128, 1), nn.BatchNorm2d(128)

    def forward(self, x):
        stem = self.dw_conv
        x = stem["bn1"](stem["depthwise"](self.conv1(x))).relu()
        x = stem["bn2"](stem["pointwise"](x)).relu()
        x = self.gdconv["bn"](self.gdconv["depthwise"](self.conv2(self.features(x))))
        return self.bn(self.conv3(x)).flatten(1)


def random_statistics(model):
    torch.manual_seed(1)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            module.running_mean.normal_(std=0.1)
            module.running_var.uniform_(0.5, 1.5)
    return model.eval()


def arcface():
    backbone = {"type": "negvision.IResNet", "depth": 18, "widths": [4, 8, 12, 16]}
    neck = {"type": "negvision.FaceEmbeddingNeck", "in_channels": 16, "embedding_size": 6}
    return MODELS.build({"type": "negvision.FaceRecognizer", "backbone": backbone, "neck": neck})


def named_by_insightface(model):
    return {name.partition(".")[2]: value for name, value in model.state_dict().items()}


def added(prefix, state):
    return {f"{prefix}{name}": value for name, value in state.items()}


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """Path and network of a file in each layout."""
    folder = tmp_path_factory.mktemp("published")
    ada, mobile = random_statistics(AdaFace()), random_statistics(Mobile())
    arc = random_statistics(arcface())
    plain = named_by_insightface(arc)
    lightning = {**added("model.", ada.state_dict()), "head.kernel": torch.zeros(6, 9)}
    wrapped = {"epoch": 3, "state_dict_backbone": added("module.", plain),
               "state_dict_softmax_fc": {"weight": torch.zeros(9, 6)},
               "state_optimizer": {"state": {}}}  # fmt: skip
    files = {
        "backbone.pth": (plain, arc.embed),
        "model.pt": (plain, arc.embed),
        "checkpoint_gpu_0.pt": (wrapped, arc.embed),
        "adaface.ckpt": ({"epoch": 2, "state_dict": lightning}, ada),
        "mobilefacenet.pt": (mobile.state_dict(), mobile),
    }
    for name, (content, _) in files.items():
        torch.save(content, folder / name)
    return {name: (folder / name, network) for name, (_, network) in files.items()}


NAMES = ["backbone.pth", "model.pt", "checkpoint_gpu_0.pt", "adaface.ckpt", "mobilefacenet.pt"]


@pytest.mark.parametrize("name", NAMES)
def test_the_file_alone_gives_the_network_and_its_embeddings(published, name):
    path, network = published[name]
    cfg = load_config(path)
    model, _ = load_model(cfg, path)
    images = torch.randn(2, 3, 112, 112)
    with torch.no_grad():
        torch.testing.assert_close(model(images), network(images), atol=1e-4, rtol=1e-4)
    # The authors of AdaFace train on BGR, the others on RGB.
    assert cfg.model.data_preprocessor.bgr_to_rgb == (name != "adaface.ckpt")


def test_a_published_file_predicts(published):
    model = Inferencer(published["adaface.ckpt"][0])
    image = torch.zeros(112, 112, 3, dtype=torch.uint8).numpy()
    assert model.task == "face" and model.predict([image])[0].vector.shape == (6,)


@pytest.mark.parametrize("lost", ["body.3.res_layer.1.weight", "output_layer.3.bias"])
def test_a_weight_that_is_missing_is_an_error(tmp_path, lost):
    state = AdaFace().state_dict()
    torch.save({"state_dict": {k: v for k, v in state.items() if k != lost}}, tmp_path / "a.ckpt")
    with pytest.raises(CheckpointError, match="lacks 1 of"):
        load_model(load_config(tmp_path / "a.ckpt"), tmp_path / "a.ckpt")


def test_other_files_are_no_face_recognizers(tmp_path):
    assert face_in({"state_dict": {"layer1.0.prelu.weight": torch.ones(1)}}) is None
    torch.save({"conv.weight": torch.ones(1)}, tmp_path / "a.pt")
    with pytest.raises(CheckpointError, match="holds a model but not its config"):
        load_config(tmp_path / "a.pt")


@pytest.fixture(scope="module")
def faces(tmp_path_factory):
    """Three people with four images each, and six pairs of them."""
    folder = tmp_path_factory.mktemp("faces")
    names = [f"{person}_{number}.png" for person in range(3) for number in range(4)]
    for name in names:
        pixels = np.random.default_rng(len(name)).integers(0, 256, (112, 112, 3), dtype=np.uint8)
        cv2.imwrite(str(folder / name), np.roll(pixels, int(name[0]) * 9 + int(name[2]), 1))
    (folder / "train.txt").write_text("".join(f"{name} {name[0]}\n" for name in names))
    pairs = [f"{p}_0.png {p}_1.png 1\n{p}_0.png {(p + 1) % 3}_0.png 0\n" for p in range(3)]
    (folder / "pairs.txt").write_text("".join(pairs))
    return folder


def config_for(path, faces, target):
    """A config for the network of a file, on these faces."""
    cfg = load_config(path)
    [load, _, pack] = cfg.test_dataloader.dataset.pipeline
    size = cfg.model.neck.embedding_size
    cfg.model.head = {"type": "negvision.UNPGLoss", "num_classes": 3, "embedding_size": size}

    def loader(kind, ann_file):
        return {
            "batch_size": 6, "num_workers": 0,
            "sampler": {"type": "DefaultSampler", "shuffle": kind == "FaceListDataset"},
            "dataset": {"type": f"negvision.{kind}", "ann_file": ann_file,
                        "data_root": str(faces), "pipeline": [load, pack]},
        }  # fmt: skip

    cfg.train_dataloader = loader("FaceListDataset", "train.txt")
    cfg.test_dataloader = cfg.val_dataloader = loader("FacePairDataset", "pairs.txt")
    cfg.test_evaluator = cfg.val_evaluator = {"type": "negvision.VerificationMetric"}
    cfg.test_cfg, cfg.val_cfg = {"type": "TestLoop"}, {"type": "ValLoop"}
    cfg.train_cfg = {"type": "EpochBasedTrainLoop", "max_epochs": 1}
    cfg.optim_wrapper = {"type": "OptimWrapper", "optimizer": {"type": "SGD", "lr": 0.01}}
    cfg.custom_hooks = [{"type": "negvision.MeanCenterHook"}]
    cfg.dump(target)
    return target


@pytest.mark.parametrize("name", ["checkpoint_gpu_0.pt", "adaface.ckpt", "mobilefacenet.pt"])
def test_a_published_file_evaluates_and_is_fine_tuned(published, faces, tmp_path, capsys, name):
    path = published[name][0]
    config, work = config_for(path, faces, tmp_path / "c.py"), ["--work-dir", tmp_path / "w"]
    assert command("test")(config, path, *work) == 0
    assert "6 pairs of 6 images" in capsys.readouterr().out
    assert command("train")(config, *work, "--cfg-options", f"load_from={path}") == 0
    printed = capsys.readouterr().out
    assert "mean embeddings of 3 people" in printed
    trained, _ = load_model(load_config(config), tmp_path / "w" / "epoch_1.pth")
    before, _ = load_model(load_config(path), path)
    moved = [
        n for n, v in before.state_dict().items() if not torch.equal(v, trained.state_dict()[n])
    ]
    assert any(n.startswith("backbone.") for n in moved)


def test_a_file_of_which_nothing_fits_is_refused_everywhere(published, faces, tmp_path, capsys):
    config, other = tmp_path / "c.py", tmp_path / "o.pt"
    config_for(published["model.pt"][0], faces, config)
    torch.save({"state_dict": {"trunk.weight": torch.ones(3)}}, other)
    work = ["--work-dir", tmp_path / "w"]
    commands = {
        "train": [config, *work, "--cfg-options", f"load_from={other}"],
        "test": [config, other, *work],
        "predict": [config, other, faces / "0_0.png", "--out", tmp_path / "p"],
        "export": [config, other, "--out", tmp_path / "e.onnx"],
    }
    for name, arguments in commands.items():
        assert command(name)(arguments) == 2, name
        assert "none of its weights fit the model" in capsys.readouterr().err, name
    for name in ("predict", "export"):  # without the config
        assert command(name)(commands[name][1:]) == 2
        assert "holds a model but not its config" in capsys.readouterr().err
    assert not list(tmp_path.glob("*.onnx")) and not list(tmp_path.glob("w/*.pth"))


@pytest.mark.parametrize("prefix", ["", "module.", "model.", "model.module.", "net.", "backbone."])
def test_prefixes_do_not_matter(prefix):
    ada, arc = AdaFace().state_dict(), named_by_insightface(arcface())
    for state, origin in ((ada, "AdaFace"), (arc, "arcface_torch")):
        beside = {"head.kernel": torch.ones(2)} if prefix else {}
        found = face_in({"state_dict": {**added(prefix, state), **beside}})
        assert found.origin == origin and len(found.state) >= len(state)
        assert all(name.startswith(("backbone.", "neck.")) for name in found.state)
