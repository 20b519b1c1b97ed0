"""Trackers of other programs: whatever happens to them, the run goes on."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from mmengine.logging import MMLogger
from mmengine.visualization import Visualizer
from mmengine.visualization.vis_backend import BaseVisBackend, LocalVisBackend

_METHODS = ("add_config", "add_graph", "add_image", "add_scalar", "add_scalars", "close")


def guard_trackers(visualizer: Visualizer, logger: MMLogger) -> None:
    """Switch off a tracker (TensorBoard, Weights & Biases, MLflow) that fails, with one warning.

    MMEngine's own files are none: they are written where the checkpoints are.
    """
    for backend in visualizer._vis_backends.values():
        if not isinstance(backend, LocalVisBackend):
            _guard(backend, logger)


def _guard(backend: BaseVisBackend, logger: MMLogger) -> None:
    failed = False

    def guarded(method: Callable) -> Callable:
        @functools.wraps(method)
        def call(*args: Any, **kwargs: Any) -> None:
            nonlocal failed
            if failed:
                return
            try:
                method(*args, **kwargs)
            except Exception as error:
                failed = True
                reason = f"{error}".strip().partition("\n")[0] or type(error).__name__
                logger.warning(
                    f"{type(backend).__name__} failed and is switched off; the run goes on "
                    f"without it: {reason}"
                )

        return call

    for name in _METHODS:
        setattr(backend, name, guarded(getattr(backend, name)))
