"""Small models of every kind, with weights under which many boxes compete."""

import logging
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope

ROOT = Path(__file__).parents[2]
# By a short name the config, and what is changed in it.
CONFIGS = {
    "atss": ("quickstart/atss_digits.py", {}),
    "abet": ("quickstart/abet_boxes.py", {}),
    "retina": ("atss/bccd_retinanet.py", {}),
    "faster": ("abet/cards_faster_rcnn.py", {}),
    "faster_abet": ("abet/cards_abet.py", {}),
    "pixels": ("quickstart/abet_pixels.py", {"model.backbone.init_cfg": None}),
    "face": ("quickstart/unpg_glyphs.py", {}),
}
# Ends of the names of weights, and what they are multiplied with: as drawn, all scores are alike.
_FACTORS = {
    "temperature.linear.weight": 3,
    "atss_cls.weight": 30,
    "retina_cls.weight": 30,
    "atss_reg.weight": 30,
    "retina_reg.weight": 30,
    "atss_centerness.weight": 30,
    "rpn_cls.weight": 10,
    "rpn_reg.weight": 10,
    "fc_cls.weight": 20,
    "fc_reg.weight": 20,
    "conv_seg.weight": 50,
}
_VALUES = {"abet.bias": -1.5, "atss_cls.bias": -2.0, "retina_cls.bias": -2.0}


def load_named_config(name: str) -> Config:
    path, options = CONFIGS[name]
    cfg = Config.fromfile(ROOT / "configs" / path)
    cfg.merge_from_dict(options)
    return cfg


def build_model(cfg: Config) -> torch.nn.Module:
    """The model of ``cfg`` in evaluation, its scores spread out."""
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope(cfg.get("default_scope", "mmengine")):
        model = MODELS.build(cfg.model.copy())
    model.init_weights()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            for end, factor in _FACTORS.items():
                if name.endswith(end):
                    weight.mul_(factor)
            for end, value in _VALUES.items():
                if name.endswith(end):
                    weight.fill_(value)
    return model.eval()


@pytest.fixture(autouse=True, scope="session")
def torch_traces_unheard():
    """torch writes each step of an export to a log, which pytest would keep: twice the time."""
    logger = logging.getLogger("torch.__trace")
    before, logger.propagate = logger.propagate, False
    yield
    logger.propagate = before


@pytest.fixture
def built():
    """Function from the name of a config to it and its model."""

    def build(name: str, **options):
        cfg = load_named_config(name)
        cfg.merge_from_dict({key.replace("__", "."): value for key, value in options.items()})
        return cfg, build_model(cfg)

    return build


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory: pytest.TempPathFactory):
    """Function from the name of a config to the file of a checkpoint for it."""
    folder = tmp_path_factory.mktemp("checkpoints")

    def checkpoint(name: str) -> Path:
        path = folder / f"{name}.pth"
        if not path.exists():
            state = build_model(load_named_config(name)).state_dict()
            torch.save({"state_dict": state, "meta": {}}, path)
        return path

    return checkpoint


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory):
    """Function from the name of a config to an ONNX file of its model, written once."""
    from negvision.export.describe import graph_and_metadata
    from negvision.export.onnx_file import save, write_onnx

    folder = tmp_path_factory.mktemp("exported")

    def export(name: str, legacy: bool = True) -> Path:
        path = folder / f"{name}{'_legacy' if legacy else ''}.onnx"
        if not path.exists():
            cfg = load_named_config(name)
            graph, metadata = graph_and_metadata(cfg, build_model(cfg), {})
            save(write_onnx(graph, metadata, 18, legacy), path)
        return path

    return export
