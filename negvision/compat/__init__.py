"""Make OpenMMLab's packages usable where they were installed without compiled operators."""

from negvision.compat.finder import provide_mmcv_ext

__all__ = ["provide_mmcv_ext"]
