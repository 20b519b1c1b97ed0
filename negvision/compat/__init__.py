"""Make OpenMMLab's packages usable where they were installed without compiled operators."""

from negvision.compat.finder import provide_mmcv_ext
from negvision.compat.quiet import quiet_imports

__all__ = ["provide_mmcv_ext", "quiet_imports"]
