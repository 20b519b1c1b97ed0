"""Backbones of face recognition, and the neck that turns their feature map into an embedding.

Importing this package registers ``negvision.IResNet``, ``negvision.MobileFaceNet`` and
``negvision.FaceEmbeddingNeck``. The neck also works with any other backbone of MMEngine's
registries::

    model = dict(
        backbone=dict(type="mmdet.ResNet", depth=50),
        neck=dict(type="negvision.FaceEmbeddingNeck", in_channels=2048, kind="gap"), ...)
"""

from negvision.face.backbones.iresnet import IResNet
from negvision.face.backbones.mobilefacenet import MobileFaceNet
from negvision.face.backbones.neck import FaceEmbeddingNeck

__all__ = ["FaceEmbeddingNeck", "IResNet", "MobileFaceNet"]
