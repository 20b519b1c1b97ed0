"""Face recognizers as others publish them: which network a file is of, and its weights' names here.

Sources of the layouts: InsightFace's ``arcface_torch``, whose names ``negvision.IResNet`` shares;
AdaFace (Kim et al., CVPR 2022) with IR-18, 34, 50 and 100; MobileFaceNet of foamliu.
"""

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

State = dict[str, Tensor]

_RESNETS: dict[tuple[int, ...], int] = {
    (2, 2, 2, 2): 18, (3, 4, 6, 3): 34, (3, 4, 14, 3): 50, (3, 13, 30, 3): 100,
    (6, 26, 60, 6): 200,
}  # fmt: skip
_BLOCK_OF_ADAFACE = {
    "res_layer.0": "bn1", "res_layer.1": "conv1", "res_layer.2": "bn2", "res_layer.3": "prelu",
    "res_layer.4": "conv2", "res_layer.5": "bn3", "shortcut_layer.0": "downsample.0",
    "shortcut_layer.1": "downsample.1",
}  # fmt: skip
_REST_OF_ADAFACE = {
    "input_layer.0": "backbone.conv1", "input_layer.1": "backbone.bn1",
    "input_layer.2": "backbone.prelu", "output_layer.0": "backbone.bn2",
    "output_layer.3": "neck.fc", "output_layer.4": "neck.features",
}  # fmt: skip
_MOBILE_BLOCK = {
    "conv.0": "expand", "conv.1": "depthwise", "conv.2": "project.0", "conv.3": "project.1",
}  # fmt: skip
_MOBILE_REST = {
    "conv1": "backbone.stem.0", "dw_conv.depthwise": "backbone.stem.1.0",
    "dw_conv.bn1": "backbone.stem.1.1", "dw_conv.pointwise": "backbone.stem.2.0",
    "dw_conv.bn2": "backbone.stem.2.1", "conv2": "backbone.last", "gdconv.depthwise": "neck.gdc.0",
    "gdconv.bn": "neck.gdc.1", "conv3": "neck.fc", "bn": "neck.features",
}  # fmt: skip


@dataclass(frozen=True)
class PublishedFace:
    """A face recognizer of a known layout.

    Attributes:
        origin: Whose layout it is.
        state: Its weights under the names of ``negvision.FaceRecognizer``.
        model: The config of that model, with the preprocessing of the authors.
    """

    origin: str
    state: State
    model: dict[str, Any]


def published_face(state: Mapping[str, Tensor]) -> PublishedFace | None:
    """The face recognizer whose weights ``state`` holds, whatever prefix their names have.

    Args:
        state: Weights by name.

    Returns:
        None for weights of another layout.

    Example:
        >>> published_face({"layer1.0.conv1.weight": torch.ones(1)}) is None
        True
    """
    for marker, read in _LAYOUTS.items():
        prefix = next((name.removesuffix(marker) for name in state if name.endswith(marker)), None)
        if prefix is None or (prefix and not prefix.endswith(".")):
            continue
        inner = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
        try:
            return read(inner)
        except KeyError:  # another network with a layer of that name
            continue
    return None


def _arcface(state: State) -> PublishedFace:
    blocks = [
        len({name.split(".")[1] for name in state if name.startswith(f"layer{stage}.")})
        for stage in range(1, 5)
    ]
    widths = [len(state[f"layer{stage}.0.conv2.weight"]) for stage in range(1, 5)]
    own = {
        f"{'neck' if name.split('.')[0] in ('fc', 'features') else 'backbone'}.{name}": value
        for name, value in state.items()
    }
    return _resnet("arcface_torch", own, blocks, widths, rgb=True)


def _adaface(state: State) -> PublishedFace:
    own: State = {}
    widths: list[int] = []
    places: dict[str, str] = {}
    count = 0
    blocks: list[int] = []
    while f"body.{count}.res_layer.4.weight" in state:
        width = len(state[f"body.{count}.res_layer.4.weight"])
        if width not in widths:
            widths.append(width)
            blocks.append(0)
        places[str(count)] = f"layer{len(widths)}.{blocks[-1]}"
        blocks[-1] += 1
        count += 1
    for name, value in state.items():
        if match := re.fullmatch(r"body\.(\d+)\.(\w+\.\d)\.(\w+)", name):
            block, layer, last = match.groups()
            own[f"backbone.{places[block]}.{_BLOCK_OF_ADAFACE[layer]}.{last}"] = value
        else:
            layer, _, last = name.rpartition(".")
            own[f"{_REST_OF_ADAFACE[layer]}.{last}"] = value
    # Its last normalization has no weights.
    mean = own["neck.features.running_mean"]
    own.setdefault("neck.features.weight", torch.ones_like(mean))
    own.setdefault("neck.features.bias", torch.zeros_like(mean))
    # It takes BGR.
    return _resnet("AdaFace", own, blocks, widths, rgb=False, shortcut="subsample")


def _resnet(
    origin: str, own: State, blocks: list[int], widths: list[int], rgb: bool, **options: Any
) -> PublishedFace:
    fc = own["neck.fc.weight"]
    backbone = {"type": "negvision.IResNet", "depth": _RESNETS[tuple(blocks)], **options}
    if widths != [64, 128, 256, 512]:
        backbone["widths"] = widths
    side = math.isqrt(fc.shape[1] // widths[-1])
    neck = {
        "type": "negvision.FaceEmbeddingNeck",
        "in_channels": widths[-1],
        "spatial_size": side,
        "embedding_size": len(fc),
    }
    return PublishedFace(origin, own, _recognizer(backbone, neck, [127.5] * 3, [127.5] * 3, rgb))


def _mobile(state: State) -> PublishedFace:
    own: State = {}
    for name, value in state.items():
        if match := re.fullmatch(r"features\.(\d+)\.(conv\.\d)\.(.+)", name):
            block, layer, last = match.groups()
            own[f"backbone.blocks.{block}.{_MOBILE_BLOCK[layer]}.{last}"] = value
        else:
            layer = next(key for key in _MOBILE_REST if name.startswith(f"{key}."))
            own[f"{_MOBILE_REST[layer]}.{name.removeprefix(f'{layer}.')}"] = value
    own["neck.fc.weight"] = own["neck.fc.weight"].flatten(1)
    backbone = {"type": "negvision.MobileFaceNet", "variant": "separable"}
    size, channels = own["neck.fc.weight"].shape
    neck = {
        "type": "negvision.FaceEmbeddingNeck",
        "kind": "gdc",
        "in_channels": channels,
        "embedding_size": size,
    }
    mean, std = [123.675, 116.28, 103.53], [58.395, 57.12, 57.375]
    return PublishedFace("foamliu/MobileFaceNet", own, _recognizer(backbone, neck, mean, std, True))


def _recognizer(backbone: dict, neck: dict, mean: list, std: list, rgb: bool) -> dict[str, Any]:
    return {
        "type": "negvision.FaceRecognizer",
        "data_preprocessor": {
            "type": "mmengine.ImgDataPreprocessor",
            "mean": mean,
            "std": std,
            "bgr_to_rgb": rgb,
        },
        "backbone": backbone,
        "neck": neck,
    }


# A name that no other layout has.
_LAYOUTS: dict[str, Callable[[State], PublishedFace]] = {
    "layer1.0.prelu.weight": _arcface,
    "body.0.res_layer.5.weight": _adaface,
    "dw_conv.pointwise.weight": _mobile,
}
