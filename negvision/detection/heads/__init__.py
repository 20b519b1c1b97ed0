"""Dense heads whose targets are assigned for the whole batch at once.

Importing this package registers ``negvision.ATSSHead``, ``negvision.ATSSRetinaHead`` and
``negvision.ATSSFCOSHead``.
"""

from negvision.detection.heads.atss_head import ATSSHead
from negvision.detection.heads.fcos_head import ATSSFCOSHead
from negvision.detection.heads.retina_head import ATSSRetinaHead

__all__ = ["ATSSFCOSHead", "ATSSHead", "ATSSRetinaHead"]
