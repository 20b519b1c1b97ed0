"""Make OpenMMLab's packages usable without their compiled operators, and quick to import."""

from negvision.compat.finder import provide_mmcv_ext
from negvision.compat.on_demand import import_on_demand
from negvision.compat.quiet import quiet_imports

__all__ = ["import_on_demand", "provide_mmcv_ext", "quiet_imports"]
