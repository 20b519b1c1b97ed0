"""negvision: a training suite for detection and recognition in which negatives come first.

Importing the package is cheap and loads neither torch nor OpenMMLab. It registers one import
hook, which serves ``mmcv._ext`` from torchvision's kernels where mmcv was installed without its
compiled operators (see :mod:`negvision.compat`).
"""

import os

from negvision.compat import provide_mmcv_ext

__version__ = "0.1.0"

# ONNX Runtime reports its use over the network as soon as it is imported, unless told before.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

provide_mmcv_ext()
