"""Small models of every kind, with weights that produce many competing boxes."""

from pathlib import Path

import cv2
import numpy as np
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope

ROOT = Path(__file__).parents[2]
# Short name -> config and changes.
CONFIGS = {
    "atss": ("quickstart/atss_digits.py", {}),
    "lite": ("atss/cards_atss_lite0.py", {}),
    "abet": ("quickstart/abet_boxes.py", {}),
    "retina": ("atss/bccd_retinanet.py", {}),
    "faster": ("abet/cards_faster_rcnn.py", {}),
    # A low temperature multiplies the differences between runtimes.
    "faster_abet": (
        "abet/cards_abet.py",
        {"model.roi_head.bbox_head.initial_temperature": 0.5},
    ),
    "pixels": ("quickstart/abet_pixels.py", {"model.backbone.init_cfg": None}),
    "images": ("quickstart/abet_images.py", {}),
    "face": ("quickstart/unpg_glyphs.py", {}),
}
# Factor -> suffixes of weights. With random weights all scores are alike.
_FACTORS = {
    3: ("temperature.linear.weight",),
    10: ("rpn_cls.weight", "rpn_reg.weight"),
    20: ("fc_cls.weight", "fc_reg.weight"),
    30: (
        *("atss_cls.weight", "atss_reg.weight", "atss_centerness.weight"),
        *("retina_cls.weight", "retina_reg.weight"),
    ),
    50: ("conv_seg.weight",),
}
_VALUES = {"abet.bias": -1.5, "atss_cls.bias": -2.0, "retina_cls.bias": -2.0}


def load_named_config(name: str) -> Config:
    path, options = CONFIGS[name]
    cfg = Config.fromfile(ROOT / "configs" / path)
    cfg.merge_from_dict(options)
    return cfg


@torch.no_grad()
def spread_out(weights: dict[str, torch.Tensor]) -> None:
    """Scale random weights of a network, so that its scores are not tied."""
    for name, weight in weights.items():
        for factor, ends in _FACTORS.items():
            if name.endswith(ends):
                weight.mul_(factor)
        for end, value in _VALUES.items():
            if name.endswith(end):
                weight.fill_(value)


def build_model(cfg: Config) -> torch.nn.Module:
    """The model of ``cfg`` in evaluation mode, with spread-out scores."""
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope(cfg.get("default_scope", "mmengine")):
        model = MODELS.build(cfg.model.copy())
    model.init_weights()
    spread_out(dict(model.named_parameters()))
    return model.eval()


def write_images(folder: Path, **sizes: tuple[int, int]) -> list[str]:
    """Write smooth noise, in which these models find boxes, into a new folder.

    Args:
        folder: It is created.
        sizes: Height and width by name, such as ``a_png=(96, 128)``.
    """
    folder.mkdir()
    rng = np.random.default_rng(0)
    files = []
    for name, size in sizes.items():
        pixels = cv2.GaussianBlur(rng.integers(0, 256, (*size, 3), dtype=np.uint8), (0, 0), 3)
        files.append(str(folder / name.replace("_", ".")))
        cv2.imwrite(files[-1], cv2.normalize(pixels, None, 0, 255, cv2.NORM_MINMAX))
    return files
