"""Detection heads: dense heads with ATSS targets, and heads with OOD scores."""

from negvision.detection.heads.atss_heads import ATSSFCOSHead, ATSSHead, ATSSRetinaHead
from negvision.detection.heads.ood_heads import AbeTATSSHead, AbeTBBoxHead, OODBBoxHead

__all__ = [
    "ATSSFCOSHead",
    "ATSSHead",
    "ATSSRetinaHead",
    "AbeTATSSHead",
    "AbeTBBoxHead",
    "OODBBoxHead",
]
