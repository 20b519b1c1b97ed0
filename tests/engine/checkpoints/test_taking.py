"""Which weights of a file a model takes, and that a file of which nothing fits is an error."""

from collections import OrderedDict

import mmdet.models  # noqa: F401
import pytest
import torch
from mmdet.models.backbones import PyramidVisionTransformer, ResNet, SwinTransformer
from mmdet.registry import MODELS
from mmengine.config import ConfigDict
from mmengine.logging import MMLogger
from mmengine.model import BaseModule
from mmengine.runner import load_checkpoint
from mmengine.runner.checkpoint import CheckpointLoader
from torch import nn

from negvision.engine.checkpoints.fitting import states_in, weights_in
from negvision.engine.checkpoints.loading import install_loaders
from negvision.engine.checkpoints.taking import initialization_observed, load_weights
from negvision.errors import CheckpointError
from negvision.face.recognizer import FaceRecognizer


class Net(BaseModule):
    """A detector of three layers."""

    def __init__(self, classes=2, init_cfg=None):
        super().__init__()
        self.backbone = Backbone(init_cfg)
        self.bbox_head = nn.Linear(4, classes)


class Backbone(BaseModule):
    def __init__(self, init_cfg=None):
        super().__init__(init_cfg)
        self.conv = nn.Conv2d(3, 4, 3)
        self.bn = nn.BatchNorm2d(4)
        self.register_buffer("positions", torch.arange(4))


def filled(model: nn.Module, value: float = 7.0) -> OrderedDict:
    """The state of ``model`` with ``value`` for all weights."""
    state = model.state_dict()
    for name, weight in state.items():
        state[name] = torch.full_like(weight, value)
    return state


def renamed(state, change) -> OrderedDict:
    return OrderedDict((change(name), value) for name, value in state.items())


def inside(name: str, added: str) -> str:
    return name.replace("backbone.", f"backbone.{added}.")


@pytest.fixture(autouse=True)
def logged(monkeypatch):
    """What is logged."""
    lines = []
    monkeypatch.setattr(MMLogger, "info", lambda self, text, *rest: lines.append(str(text)))
    schemes = CheckpointLoader._schemes.copy()
    install_loaders()
    yield lines
    CheckpointLoader._schemes = schemes


NET = filled(Net())
PARTS = filled(Backbone())


@pytest.mark.parametrize(
    ("content", "note"),
    [
        ({"state_dict": NET, "meta": {"epoch": 3}, "optimizer": {"state": {}}}, ""),
        (NET, ""),
        ({"model": NET, "optimizer": {"state": NET}}, "'model'"),
        ({"model_state_dict": NET, "epoch": 1}, "'model_state_dict'"),
        ({"epoch": torch.tensor(3), "weights_of_last": {"best": NET}}, "'weights_of_last.best'"),
        ({"model": filled(Net(), 1.0), "ema": {"module": NET, "updates": 3}}, "'ema.module'"),
        ({"state_dict": filled(Net(), 1.0), "state_dict_ema": NET}, "'state_dict_ema'"),
        ({"state_dict": NET, "ema_state_dict": renamed(NET, "module.{}".format)}, ""),
        (renamed(NET, "module.{}".format), ""),
        ({"state_dict": renamed(NET, "module.model.{}".format)}, "without 'module.model.'"),
        (renamed(NET, "detector_of_mine.{}".format), "without 'detector_of_mine.'"),
        (renamed(NET, lambda name: inside(name, "_orig_mod")), ""),
        (renamed(NET, lambda name: f"_orig_mod.{inside(name, 'module')}"), ""),
        ({"state_dict": renamed(NET, lambda n: inside(n, "_fsdp_wrapped_module"))}, ""),
    ],
)
def test_known_wrappings_are_removed(content, note):
    model = Net()
    loaded = load_weights(model, content, "a.pth")
    loaded.require_all()
    assert loaded.note == note and loaded.taken == len(loaded.names) == 8
    assert loaded.is_plain == (not note)
    assert all((weight == 7).all() for weight in model.state_dict().values())


@pytest.mark.parametrize(
    ("content", "note"),
    [
        (PARTS, "as backbone"),
        ({"state_dict_backbone": PARTS, "state_dict_softmax_fc": {"weight": torch.ones(9, 4)}},
         "'state_dict_backbone', as backbone"),
        ({"state_dict": renamed(PARTS, "module.encoder.{}".format)},
         "without 'module.encoder.', as backbone"),
        (renamed(PARTS, "backbone.{}".format), ""),
    ],
)  # fmt: skip
def test_weights_of_a_backbone_fill_that_of_a_detector(content, note):
    model = Net()
    loaded = load_weights(model, content, "resnet.pth")
    loaded.require_any()
    assert loaded.note.removesuffix(" and neck") == note
    assert (model.backbone.conv.weight == 7).all() and not (model.bbox_head.weight == 7).any()
    with pytest.raises(CheckpointError) as caught:
        loaded.require_all()
    assert str(caught.value).splitlines() == [
        "checkpoint 'resnet.pth' lacks 2 of 8 weights of the model, whose results would be random.",
        "  part       taken  missing  other shape  left",
        "  bbox_head      0        2            0     0",
        "  backbone       6        0            0     0",
        "  missing: bbox_head.weight, bbox_head.bias",
        "Use the config that it was trained with",
    ]


@pytest.mark.parametrize(
    "content",
    [
        {"state_dict": filled(ResNet(18, base_channels=4))},
        renamed(NET, lambda name: name.replace("backbone", "trunk").replace("bbox_head", "fc")),
        {"state_dict": {"conv1.weight": torch.ones(1)}},
        {name: weight[..., None] for name, weight in NET.items()},
    ],
)
def test_a_file_of_which_nothing_fits_is_an_error(content):
    loaded = load_weights(Net(), content, "other.pth")
    with pytest.raises(CheckpointError, match=r"^'other\.pth': none of its weights fit the model"):
        loaded.require_any()


@pytest.mark.parametrize(
    "content",
    [{}, {"state_dict": {}}, {"epoch": 3, "optimizer": {"state": NET}}, {"meta": {"x": NET}}],
)
def test_a_file_without_weights_is_an_error(content):
    assert not states_in(content)
    with pytest.raises(CheckpointError, match="holds no weights"):
        load_weights(Net(), content, "a.pth")


def test_weights_of_another_shape_are_named():
    model = Net(classes=3)
    loaded = load_weights(model, {"state_dict": {**NET, "extra.w": torch.ones(1)}}, "a.pth")
    loaded.require_any()
    assert loaded.taken == 6 and loaded.left == ("extra.w",)
    table = loaded.table()
    shape = "bbox_head.weight (2, 4) in the file, (3, 4) in the model"
    assert f"other shape: {shape}, bbox_head.bias" in table and "left: extra.w" in table
    with pytest.raises(CheckpointError, match="lacks 2 of 8 weights"):
        loaded.require_all()


class Heads(Net):
    def __init__(self, convs=1, bias=False):
        super().__init__()
        self.roi_head = nn.ModuleDict({"fc": nn.Linear(2, 2, bias)})
        self.roi_head["convs"] = nn.ModuleList(nn.Conv2d(2, 2, 1) for _ in range(convs))


@pytest.mark.parametrize(
    ("model", "content", "left"),
    [
        # The names of a short ResNet are some of those of a long one, with the same shapes.
        (ResNet(18, base_channels=4), filled(ResNet(34, base_channels=4)), "layer1.2.conv1.weight"),
        (Heads(), filled(Heads(convs=3)), "roi_head.convs.1.weight"),
        (Heads(), filled(Heads(bias=True)), "roi_head.fc.bias"),
        (Heads(), {**filled(Heads()), "neck.down.weight": torch.ones(2)}, "neck.down.weight"),
        (Heads(), {**filled(Heads()), "backbone.gate.w": torch.ones(2)}, "backbone.gate.w"),
        (Heads(), {**filled(Heads()), "backbone.conv.conv_offset.bias": torch.ones(2)},
         "backbone.conv.conv_offset.bias"),
        (Heads(), {**filled(Heads()), "backbone.index": torch.arange(2)}, None),
        (Heads(), {**filled(Heads()), "mask_head.conv.weight": torch.ones(2)}, None),
        (Heads(), {**filled(Heads()), "roi_head.mask_head.weight": torch.ones(2)}, None),
    ],
)  # fmt: skip
def test_a_part_of_another_network_makes_no_results(model, content, left):
    loaded = load_weights(model, content, "a.pth")
    assert loaded.taken == len(loaded.names)
    if left is None:
        loaded.require_all()
        return
    with pytest.raises(CheckpointError, match="is of another network") as caught:
        loaded.require_all()
    assert f"left: {left}" in str(caught.value)


class WithHead(Net):
    """A detector whose head has a layer for its classes and one that any classes share."""

    def __init__(self, classes=2, width=4):
        super().__init__()
        self.bbox_head = nn.ModuleDict(
            {"conv": nn.Linear(4, width), "atss_cls": nn.Linear(width, classes)}
        )


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (filled(WithHead(80)), None),
        (PARTS, None),  # of a classifier
        (OrderedDict(PARTS, **{"fc.weight": torch.ones(9, 4)}), None),
        (filled(WithHead(80, 5)), "2 of 2 weights of bbox_head are missing or have another shape"),
        (renamed(filled(WithHead()), lambda n: n.replace("bn", "norm")), "4 of 6 weights of backb"),
        (OrderedDict(PARTS, **{"conv.extra": torch.ones(4)}), "1 weights have no place in it"),
        ({n: w for n, w in filled(WithHead()).items() if "head" in n}, "6 of 6 weights of backbon"),
    ],
)  # fmt: skip
def test_a_part_is_taken_whole_but_for_the_layers_of_the_classes(content, says):
    loaded = load_weights(WithHead(), content, "a.pth")
    if says is None:
        loaded.require_parts()
        return
    with pytest.raises(
        CheckpointError, match=r"'a\.pth' are of another network than the model"
    ) as e:
        loaded.require_parts()
    assert says in str(e.value) and loaded.table() in str(e.value)


def test_statistics_are_weights_and_constants_are_not():
    state = OrderedDict(NET)
    del state["backbone.positions"], state["backbone.bn.num_batches_tracked"]
    load_weights(Net(), state, "a.pth").require_all()
    del state["backbone.bn.running_var"]
    with pytest.raises(CheckpointError, match=r"lacks 1 of 8(.*\n)*.*bn\.running_var"):
        load_weights(Net(), state, "a.pth").require_all()


def test_a_long_table_is_cut():
    state = {"state_dict": {f"part{number}.w": torch.ones(1) for number in range(40)} | NET}
    lines = load_weights(Net(classes=3), state, "a.pth").table().splitlines()
    assert len(lines) == 15 and lines[12].split()[0] == "others" and "... (40)" in lines[14]


def recognizer(identities: int = 5) -> FaceRecognizer:
    neck = {"type": "negvision.FaceEmbeddingNeck", "in_channels": 4, "spatial_size": 1}
    return FaceRecognizer(
        {"type": "negvision.IResNet", "depth": 18, "widths": (4, 4, 4, 4)},
        {**neck, "embedding_size": 3},
        {"type": "negvision.UNPGLoss", "num_classes": identities, "embedding_size": 3},
    )


def test_a_face_recognizer_needs_no_centers_and_takes_the_names_of_insightface():
    own = filled(recognizer())
    parts = {n.partition(".")[2]: weight for n, weight in own.items() if "head" not in n}
    for content in (own, parts, {"state_dict_backbone": parts, "epoch": 3}):
        model = recognizer(identities=9)
        loaded = load_weights(model, content, "model.pt")
        loaded.require_all()
        assert "not needed for an evaluation: head." in loaded.table()
        assert (model.neck.fc.weight == 7).all() and (model.backbone.conv1.weight == 7).all()
    del parts["fc.weight"]
    with pytest.raises(CheckpointError, match=r"missing: .*neck\.fc\.weight"):
        load_weights(recognizer(), parts, "model.pt").require_all()


def saved(path, content) -> str:
    torch.save(content, path)
    return str(path)


@pytest.mark.parametrize(
    ("content", "prefix"),
    [
        (PARTS, None),
        ({"model": renamed(PARTS, "backbone.{}".format)}, None),
        ({"state_dict": NET}, None),
        ({"state_dict": NET}, "backbone."),
        ({"state_dict": renamed(NET, "module.{}".format)}, "backbone"),
        ({"model": renamed(NET, "module.{}".format)}, "backbone"),
    ],
)
def test_init_cfg_loads_and_reports(tmp_path, logged, content, prefix):
    path = saved(tmp_path / "a.pth", content)
    cfg = {"type": "Pretrained", "checkpoint": path} | ({"prefix": prefix} if prefix else {})
    model = Net(init_cfg=cfg)
    with initialization_observed(model):
        model.init_weights()
    assert all((weight == 7).all() for weight in model.backbone.state_dict().values())
    (report,) = [line for line in logged if line.startswith("weights of backbone from")]
    assert path in report and ("left: bbox_head" in report or ": all 6" in report)


def test_what_init_cfg_leaves_and_lacks_is_a_table(tmp_path, logged):
    """As the classifier of torchvision's networks, which a detector has no use for."""
    state = filled(Backbone())
    del state["bn.weight"]
    classifier = {"fc.weight": torch.ones(5, 4), "fc.bias": torch.ones(5)}
    path = saved(tmp_path / "a.pth", state | classifier)
    model = Net(init_cfg={"type": "Pretrained", "checkpoint": path})
    with initialization_observed(model):
        model.init_weights()
    (report,) = [line for line in logged if "weights of" in line]
    assert "missing: bn.weight\n  left: fc.weight, fc.bias" in report
    assert (model.backbone.conv.weight == 7).all() and (model.backbone.bn.weight == 1).all()


class Forgetful(Backbone):
    def init_weights(self):
        pass


class Hidden(BaseModule):
    """MMEngine initializes no further than a module that is not its own."""

    def __init__(self, init_cfg):
        super().__init__()
        self.wrapper = nn.Sequential(Backbone(init_cfg))


SWIN = {"embed_dims": 4, "depths": (1, 1, 1, 1), "num_heads": (1, 1, 1, 1), "window_size": 2}
PVT = {"embed_dims": 4, "num_layers": [1] * 4, "num_heads": [1] * 4, "convert_weights": False}


@pytest.mark.parametrize(
    ("build", "content", "prefix", "says"),
    [
        (Backbone, filled(ResNet(18, base_channels=4)), None, "none of its weights fit the model"),
        (Backbone, {"state_dict": NET}, "neck.", "no weights with the prefix 'neck.'; its names "
         "start with backbone., bbox_head."),
        (Backbone, {"epoch": 3}, None, "holds no weights; it has epoch"),
        (Backbone, {"epoch": 3}, "backbone", "its names start with nothing"),
        (Forgetful, PARTS, None, "Forgetful initializes itself without it"),
        (Hidden, PARTS, None, "model.wrapper.0.init_cfg: nothing was loaded"),
        (lambda init_cfg: SwinTransformer(**SWIN, init_cfg=init_cfg), PARTS, None,
         "IndexError.*\n.*convert_weights=True"),
        (lambda init_cfg: SwinTransformer(**SWIN, init_cfg=init_cfg), {"state_dict": NET}, None,
         "none of its weights fit"),
        (lambda init_cfg: PyramidVisionTransformer(**PVT, init_cfg=init_cfg), PARTS, None,
         "none of its weights fit"),
    ],
)  # fmt: skip
def test_init_cfg_of_which_nothing_is_loaded_is_an_error(tmp_path, build, content, prefix, says):
    path = saved(tmp_path / "a.pth", content)
    cfg = ConfigDict(type="Pretrained", checkpoint=path)
    model = build(init_cfg=cfg | ({"prefix": prefix} if prefix else {}))
    with pytest.raises(CheckpointError, match=says), initialization_observed(model):
        model.init_weights()


def test_backbones_with_a_loader_of_their_own(tmp_path, logged):
    """Swin calls torch's function, PVT MMEngine's, each by its own reference."""
    for kind, options in ((SwinTransformer, SWIN), (PyramidVisionTransformer, PVT)):
        state = renamed(filled(kind(**options)), "backbone.{}".format)
        state["backbone.head.weight"] = torch.ones(3)
        path = saved(tmp_path / f"{kind.__name__}.pth", {"model": state})
        model = kind(**options, init_cfg=ConfigDict(type="Pretrained", checkpoint=path))
        with initialization_observed(model):
            model.init_weights()
        assert all((weight == 7).all() for weight in model.state_dict().values())
        assert f"from {path}" in logged[-1] and "left: head.weight" in logged[-1]


def test_other_errors_of_an_initialization_pass(tmp_path):
    class Broken(Backbone):
        def init_weights(self):
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), initialization_observed(Broken()):
        Broken().init_weights()


def test_models_that_load_a_file_themselves(tmp_path, logged):
    """As a teacher, which its detector loads by MMEngine's function."""
    path = saved(tmp_path / "teacher.pth", {"state_dict": NET})
    model = Net(classes=3)
    load_checkpoint(model, path)
    assert (model.backbone.conv.weight == 7).all()
    assert f"from {path}" in logged[-1] and "bbox_head.weight (2, 4) in the file" in logged[-1]
    with pytest.raises(CheckpointError, match=r"teacher\.pth': none of its weights fit"):
        load_checkpoint(nn.Linear(3, 3), path)


def test_older_names_are_converted_by_their_modules():
    """A detector of one stage takes the weights of a two-stage detector."""
    head = {
        "type": "RPNHead", "in_channels": 8, "feat_channels": 8,
        "anchor_generator": {
            "type": "AnchorGenerator", "scales": [4], "ratios": [1.0], "strides": [8, 16, 32],
        },
    }  # fmt: skip
    cfg = {
        "type": "SingleStageDetector",
        "backbone": {"type": "ResNet", "depth": 18, "base_channels": 4, "out_indices": (1, 2, 3)},
        "neck": {"type": "FPN", "in_channels": [8, 16, 32], "out_channels": 8, "num_outs": 3},
        "bbox_head": head,
    }
    model = MODELS.build(cfg)
    state = renamed(filled(model), lambda name: name.replace("bbox_head", "rpn_head"))
    loaded = load_weights(model, {"state_dict": state}, "faster_rcnn.pth")
    loaded.require_all()
    assert (model.bbox_head.rpn_cls.weight == 7).all() and not loaded.left


def test_weights_for_publishing_are_those_of_the_network():
    content = {"epoch": torch.tensor(2), "softmax": {"weight": torch.ones(9, 4)}, "model": NET}
    assert weights_in(content, "a.pth").keys() == NET.keys()
