"""Heads of detectors: dense ones that assign a whole batch at once, and those with OOD scores.

Importing this package registers ``negvision.ATSSHead``, ``negvision.ATSSRetinaHead``,
``negvision.ATSSFCOSHead``, ``negvision.AbeTATSSHead``, ``negvision.OODBBoxHead`` and
``negvision.AbeTBBoxHead``.
"""

from negvision.detection.heads.abet_atss_head import AbeTATSSHead
from negvision.detection.heads.abet_bbox_head import AbeTBBoxHead
from negvision.detection.heads.atss_head import ATSSHead
from negvision.detection.heads.fcos_head import ATSSFCOSHead
from negvision.detection.heads.ood_bbox_head import OODBBoxHead
from negvision.detection.heads.retina_head import ATSSRetinaHead

__all__ = [
    "ATSSFCOSHead",
    "ATSSHead",
    "ATSSRetinaHead",
    "AbeTATSSHead",
    "AbeTBBoxHead",
    "OODBBoxHead",
]
