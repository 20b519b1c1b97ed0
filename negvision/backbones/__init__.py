"""Backbones for every task; importing the package registers ``negvision.EfficientNetLite``."""

from negvision.backbones.efficientnet_lite import EfficientNetLite

__all__ = ["EfficientNetLite"]
