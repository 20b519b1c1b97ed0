"""Face recognition data: training sets, verification protocols, transforms and a sampler.

Importing this package registers the datasets, transforms and samplers listed below.

A pipeline begins with ``negvision.LoadImageFromFile``, even for sets that keep all images in one
file, and ends with ``negvision.PackFaceInputs``. In between, mmcv's ``Resize`` and
``negvision.RandomFlip`` work. Neither moves ``landmarks``, so put ``negvision.AlignFace`` first::

    pipeline = [
        dict(type="negvision.LoadImageFromFile"),
        dict(type="negvision.AlignFace"),  # if images are not aligned yet
        dict(type="negvision.RandomFlip", prob=0.5),
        dict(type="negvision.PackFaceInputs"),
    ]
"""

from negvision.face.datasets.bin_file import FaceBinDataset
from negvision.face.datasets.glyphs import GlyphListDataset, GlyphPairDataset
from negvision.face.datasets.identification import FaceIdentificationDataset
from negvision.face.datasets.list_file import FaceFolderDataset, FaceListDataset
from negvision.face.datasets.pairs import FacePairDataset
from negvision.face.datasets.records import FaceRecordDataset
from negvision.face.datasets.sampler import IdentityBalancedSampler
from negvision.face.datasets.templates import FaceTemplateDataset
from negvision.face.datasets.transforms import AlignFace, PackFaceInputs
from negvision.face.datasets.verification_sets import FaceVerificationSets

__all__ = [
    "AlignFace",
    "FaceBinDataset",
    "FaceFolderDataset",
    "FaceIdentificationDataset",
    "FaceListDataset",
    "FacePairDataset",
    "FaceRecordDataset",
    "FaceTemplateDataset",
    "FaceVerificationSets",
    "GlyphListDataset",
    "GlyphPairDataset",
    "IdentityBalancedSampler",
    "PackFaceInputs",
]
