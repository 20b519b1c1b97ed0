"""torch.compile of the parts of a model that compute on tensors alone."""

import os
import shutil
import sysconfig
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from negvision.engine.parallel.sync_bn import SyncBatchNorm
from negvision.errors import ConfigError, UserError

_PARTS = ("backbone", "neck")
# Heads of mmdet and mmseg compute losses from the output of `forward` in these methods.
_LOSSES = ("loss_by_feat", "loss_and_target")


def compile_parts(model: nn.Module, options: Mapping[str, Any]) -> list[str]:
    """Compile a model's backbone, neck and the ``forward`` of its heads, in place.

    Losses, targets and post-processing are not compiled, since they handle lists of boxes. Names
    in state dicts do not change. A part is compiled when it is first called, and again for other
    shapes.

    Args:
        model: Not wrapped.
        options: Of :func:`torch.compile`.

    Returns:
        Names of the compiled parts.

    Raises:
        ConfigError: The model has no such part.
        UserError: There is no C++ compiler, or Python's headers are missing.
    """
    import torchvision  # noqa: F401  (how its operators are traced)

    if options.get("backend", "inductor") == "inductor":
        check_compiler()
    names = []
    for name, module in model.named_modules():
        if isinstance(module, SyncBatchNorm):
            # Communication of ranks cannot be compiled.
            module.forward = torch.compiler.disable(module.forward)
        elif name in _PARTS:
            module.compile(**options)
            names.append(name)
        elif any(callable(getattr(module, loss, None)) for loss in _LOSSES):
            # mmseg calls `forward`, not the module.
            module.forward = torch.compile(module.forward, **options)
            names.append(name)
    if not names:
        raise ConfigError(
            f"compile: {type(model).__name__} has no backbone, neck or head to compile; set "
            "compile = False"
        )
    return names


def check_compiler() -> None:
    """Check that torch.compile finds what it needs at run time.

    Raises:
        UserError: It is missing; the message says how to install it.
    """
    compilers = [os.environ["CXX"]] if os.environ.get("CXX") else ["g++", "clang++"]
    if not any(shutil.which(compiler) for compiler in compilers):
        raise UserError(
            f"compile needs a C++ compiler, and there is no {' or '.join(compilers)} on PATH. "
            "Install one (apt install g++), set CXX, or train without --compile"
        )
    headers = Path(sysconfig.get_paths()["include"])
    if not (headers / "Python.h").is_file():
        raise UserError(
            f"compile needs Python's headers, and {headers / 'Python.h'} does not exist. Install "
            "them (apt install python3-dev), or train without --compile"
        )
