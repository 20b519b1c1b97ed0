"""The operators of ``mmcv._ext`` that detection needs, on torchvision's kernels and plain torch.

Served as ``mmcv._ext`` by :mod:`negvision.compat.finder` where mmcv was installed without its
compiled operators. Signatures, in-place output buffers and results are those of mmcv 2.x, so
``mmcv.ops`` works on top unchanged; differences are listed in the function's docstring.

Three things hold for all functions here:

* They run on CPU and CUDA, in float32 and float64. Tensors in half precision are computed in
  float32 and written back in their own type.
* Forward functions overwrite their output buffers; backward functions add to their gradient
  buffers, which mmcv hands over filled with zeros.
* On CUDA the backward of ``roi_align``, ``roi_pool``, ``deform_conv`` and ``ms_deform_attn`` sums
  with atomics, as mmcv's own kernels do. With ``torch.use_deterministic_algorithms(True)`` those
  from torchvision raise an error; on CPU all are deterministic.

Any other operator of mmcv is a function that raises ``NotImplementedError`` when called, with
the command that builds mmcv with its compiled operators.
"""

from negvision.compat.mmcv_ext.attention import ms_deform_attn_backward, ms_deform_attn_forward
from negvision.compat.mmcv_ext.deform_conv import (
    deform_conv_backward_input,
    deform_conv_backward_parameters,
    deform_conv_forward,
    modulated_deform_conv_backward,
    modulated_deform_conv_forward,
)
from negvision.compat.mmcv_ext.focal_loss import (
    sigmoid_focal_loss_backward,
    sigmoid_focal_loss_forward,
    softmax_focal_loss_backward,
    softmax_focal_loss_forward,
)
from negvision.compat.mmcv_ext.nms import nms, nms_match, softnms
from negvision.compat.mmcv_ext.roi import (
    roi_align_backward,
    roi_align_forward,
    roi_pool_backward,
    roi_pool_forward,
)
from negvision.compat.versions import build_mmcv_command, installed_distributions

__all__ = [
    "deform_conv_backward_input",
    "deform_conv_backward_parameters",
    "deform_conv_forward",
    "get_compiler_version",
    "get_compiling_cuda_version",
    "modulated_deform_conv_backward",
    "modulated_deform_conv_forward",
    "ms_deform_attn_backward",
    "ms_deform_attn_forward",
    "nms",
    "nms_match",
    "roi_align_backward",
    "roi_align_forward",
    "roi_pool_backward",
    "roi_pool_forward",
    "sigmoid_focal_loss_backward",
    "sigmoid_focal_loss_forward",
    "softmax_focal_loss_backward",
    "softmax_focal_loss_forward",
    "softnms",
]


def get_compiler_version() -> str:
    """The compiler of mmcv's operators, as ``mmcv.utils.collect_env`` prints it."""
    return "none (operators from negvision)"


get_compiling_cuda_version = get_compiler_version


def __getattr__(name: str):
    # Tools look up names such as __path__, _repr_html_ and pytestmark, which are never operators;
    # returning a function would break them.
    if name.startswith(("_", "pytest")):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

    def missing_operator(*args, **kwargs):
        raise NotImplementedError(
            f"negvision does not provide mmcv's operator {name!r}. Build mmcv with its operators "
            "(this needs a compiler, nvcc for CUDA, and tens of minutes):\n"
            f"    {build_mmcv_command(installed_distributions())}"
        )

    missing_operator.__name__ = missing_operator.__qualname__ = name
    return missing_operator
