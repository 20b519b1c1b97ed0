"""A hook that starts class centers at the mean embeddings of their people."""

from __future__ import annotations

from typing import Any

import torch
from mmengine.dataset import pseudo_collate
from mmengine.dist import broadcast
from mmengine.hooks import Hook
from torch.nn import functional
from torch.utils.data import DataLoader

from negvision.engine.config.model_parts import unwrapped
from negvision.errors import ConfigError
from negvision.face.centers import ClassCenters
from negvision.registry import HOOKS

_BATCH = 32


@HOOKS.register_module()
class MeanCenterHook(Hook):
    """Start each class center in the direction of the mean embedding of its person.

    For fine-tuning on new people: with random centers, the first steps would change trained weights
    to fit directions that mean nothing. Before the first step every training image is embedded
    once, as it is augmented. A person without an image keeps its random center. Resumed runs keep
    their centers.

    Raises:
        ConfigError: The model has no head with class centers, or they are sharded.

    Example:
        >>> custom_hooks = [dict(type="negvision.MeanCenterHook")]
    """

    def before_train(self, runner: Any) -> None:
        """Embed the training images and set the centers."""
        if runner.iter > 0:
            return
        model = unwrapped(runner.model)
        head = getattr(model, "head", None)
        if not isinstance(head, ClassCenters) or head.sharded:
            raise ConfigError(
                "negvision.MeanCenterHook needs a head with class centers that are not sharded, "
                f"such as negvision.UNPGLoss; the model has {type(head).__name__}"
            )
        sums = torch.zeros_like(head.weight)
        model.eval()
        loader = DataLoader(runner.train_dataloader.dataset, _BATCH, collate_fn=pseudo_collate)
        with torch.no_grad():
            for batch in loader:
                samples = batch["data_samples"]
                data = model.data_preprocessor(batch, False)
                units = functional.normalize(model.embed(data["inputs"]).float(), dim=1)
                labels = torch.stack([sample.label for sample in samples]).to(sums.device)
                sums.index_add_(0, labels, units.to(sums))
            found = sums.norm(dim=1) > 0
            # As long as random ones: the length decides how fast a center turns.
            length = head.weight[found].norm(dim=1, keepdim=True)
            head.weight[found] = functional.normalize(sums[found], dim=1) * length
            broadcast(head.weight.data)
        model.train()
        people = f"{int(found.sum()):,} people"
        runner.logger.info(f"class centers start at the mean embeddings of {people}")
