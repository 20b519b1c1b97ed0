"""Backbones whose first stages can stay as they are."""

from collections.abc import Sequence

from mmengine.model import BaseModule
from torch import nn


class StagedBackbone(BaseModule):
    """A backbone of a stem and stages; frozen ones have no gradients and keep their statistics.

    Attributes:
        stages: How many there are.
    """

    stages: int
    _frozen: Sequence[nn.Module] = ()

    def _freeze(self, frozen_stages: int, stem: Sequence[nn.Module], *stages: list[nn.Module]):
        """Freeze nothing (-1), the stem (0), or also the first ``frozen_stages`` stages."""
        if frozen_stages not in range(-1, self.stages + 1):
            raise ValueError(
                f"frozen_stages is {frozen_stages!r}; it must be from -1 to {self.stages}"
            )
        parts = [stem, *stages][: frozen_stages + 1]
        self._frozen = [module for part in parts for module in part]
        for module in self._frozen:
            module.requires_grad_(False)
        self.train()

    def train(self, mode: bool = True) -> "StagedBackbone":
        """As of ``nn.Module``; frozen parts stay in evaluation mode."""
        super().train(mode)
        for module in self._frozen:
            module.eval()
        return self
