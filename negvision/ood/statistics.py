"""Parts of a head that need statistics of in-distribution features: how they are collected."""

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from negvision.errors import CheckpointError, OODDataError


class Statistics(nn.Module):
    """A part of a head that may need statistics, which it computes in :func:`fit_statistics`.

    Subclasses that need some set ``needs_fit = True`` and implement :meth:`observe`, which takes a
    batch of what the part sees, and :meth:`finish`, which computes the statistics. These are
    buffers, so that checkpoints store them.
    """

    needs_fit = False
    fitted: Tensor  # whether there are statistics, for those that need them

    def __init__(self) -> None:
        super().__init__()
        self.fitting = False
        self.seen = 0
        if self.needs_fit:
            self.register_buffer("fitted", torch.tensor(False))

    def collects(self, *values: Tensor) -> bool:
        """Observe a batch inside :func:`fit_statistics`; whether it is so.

        Raises:
            CheckpointError: The statistics are needed and not fitted.
        """
        if self.needs_fit and self.fitting:
            self.seen += len(values[0])
            self.observe(*(value.detach().float() for value in values))
            return True
        if not exporting():  # a graph cannot branch; :func:`check_fitted` did it before
            self.check()
        return False

    def check(self) -> None:
        """Raise CheckpointError if the part needs statistics and has none."""
        if self.needs_fit and not self.fitted:
            raise CheckpointError(
                f"{type(self).__name__} has no statistics of in-distribution features yet. Train "
                "without it (it acts at test time only), then run negvision calibrate-ood CONFIG "
                "CHECKPOINT with it, and test the checkpoint that this writes"
            )

    def observe(self, *values: Tensor) -> None:
        raise NotImplementedError

    def finish(self) -> None:
        raise NotImplementedError


def exporting() -> bool:
    """Whether torch writes a graph of the model at this moment."""
    return torch.compiler.is_exporting() or torch.onnx.is_in_onnx_export()


def check_fitted(model: nn.Module) -> None:
    """Raise CheckpointError if a part of ``model`` has no statistics yet."""
    for part in parts_to_fit(model):
        part.check()


def parts_to_fit(model: nn.Module) -> list[Statistics]:
    """The parts of ``model`` that hold statistics."""
    return [m for m in model.modules() if isinstance(m, Statistics) and m.needs_fit]


@contextlib.contextmanager
def fit_statistics(model: nn.Module) -> Iterator[list[Statistics]]:
    """Fit the parts of ``model`` on the features that pass it in evaluation mode inside.

    Raises:
        OODDataError: At the end, if no feature reached a part.

    Example:
        >>> from negvision.ood import ReAct
        >>> head = nn.Sequential(ReAct(percentile=50)).eval()
        >>> with fit_statistics(head):
        ...     _ = head(torch.arange(10.0)[None])
        >>> head[0].limit
        tensor(5.)
    """
    parts = parts_to_fit(model)
    for part in parts:
        part.fitting, part.seen = True, 0
    try:
        yield parts
        for part in parts:
            if not part.seen:
                raise OODDataError(
                    f"no feature reached {type(part).__name__}, so it has no statistics. Is the "
                    "checkpoint trained, and are there in-distribution images?"
                )
            part.finish()
            part.fitted.fill_(True)
    finally:
        for part in parts:
            part.fitting = False
