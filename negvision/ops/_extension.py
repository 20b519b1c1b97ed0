"""Finding and loading the compiled kernels."""

import functools
import os
import warnings
from pathlib import Path

import torch

from negvision.ops._autograd import register

_BUILD = "pip install --no-build-isolation -e ."
_PURE = "NEGVISION_PURE=1"


@functools.cache
def _load() -> tuple[str | None, str | None]:
    """Load the library next to this file; returns its path and the error, if any."""
    if os.environ.get("NEGVISION_PURE") == "1":
        return None, _PURE
    found = sorted(Path(__file__).parent.glob("_C*.so"))
    if not found:
        return None, f"not built; with a C++ compiler, in a clone: {_BUILD}"
    path = str(found[0])
    try:
        torch.ops.load_library(path)
    except OSError as error:
        return path, f"{error}; build it again with: {_BUILD}"
    register()
    return path, None


def extension_info() -> dict:
    """Information about the compiled library, which NEGVISION_PURE=1 in the environment hides.

    Returns:
        ``loaded`` (bool), ``path`` (str or None), ``cuda`` (whether it has CUDA kernels), ``error``
        (why it is not loaded and what to do, or None).

    Example:
        >>> sorted(extension_info())
        ['cuda', 'error', 'loaded', 'path']
    """
    path, error = _load()
    loaded = path is not None and error is None
    return {"loaded": loaded, "path": path, "cuda": loaded and _has_kernel("CUDA"), "error": error}


def _has_kernel(key: str) -> bool:
    return torch._C._dispatch_has_kernel_for_dispatch_key("negvision::atss_assign", key)


def is_compiled_for(device_type: str) -> bool:
    """Whether there is a compiled kernel for ``device_type``; warns once if one could be had."""
    path, error = _load()
    if path is None or error is not None:
        if error != _PURE:
            _warn_once(f"negvision's compiled operators are missing ({error}).")
        return False
    if device_type in ("cpu", "meta") or _has_kernel(device_type.upper()):
        return True
    if device_type == "cuda":
        _warn_once(
            "negvision's operators are compiled without CUDA kernels. If nvcc is installed, "
            f"build them with: FORCE_CUDA=1 {_BUILD}"
        )
    return False


# torch.compile does not trace into it. torch.compiler.assume_constant_result sets the same, and
# imports the compiler.
vars(is_compiled_for)["_dynamo_marked_constant"] = True


@functools.cache
def _warn_once(problem: str) -> None:
    warnings.warn(
        f"{problem} The same results are computed in PyTorch, more slowly: label assignment, box "
        "overlaps, negative pairs, colors of images.",
        RuntimeWarning,
        stacklevel=4,
    )
