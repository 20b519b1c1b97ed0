"""Backbones of image classification; importing this registers ``negvision.ResNetCIFAR``."""

from negvision.classification.backbones.resnet_cifar import ResNetCIFAR

__all__ = ["ResNetCIFAR"]
