"""Compare what a training did with what it announced."""

from typing import Any

import torch
from mmengine.dist import all_reduce, get_world_size

from negvision.data.formats.label_files import VOID
from negvision.engine.config.model_parts import unwrapped
from negvision.engine.parallel.sharded import local_gradients, optim_wrappers_of
from negvision.errors import UserError, counted

# Steps without a gradient, from the start, that end a run.
_MOST_IDLE_STEPS = 100
_NO_GRADIENT = (
    "no weight had a gradient in {}: the loss says nothing. Are all loss weights 0, or all pixels "
    "void? negvision browse-dataset shows what the model is given"
)


class TrainingError(UserError):
    """A training changed nothing, or made fewer steps than it announced."""


class Steps:
    """Counts what the optimizers do in a training, and whether a batch had something to learn.

    Args:
        loop: The training loop, where it starts.
    """

    def __init__(self, loop) -> None:
        self._loop, self._first = loop, loop.iter
        self._made, self._moved, self._learned = 0, False, False
        self._seen: bool | None = False
        self._handles = [
            wrapper.optimizer.register_step_post_hook(self._count)
            for wrapper in optim_wrappers_of(loop.runner.optim_wrapper)
        ]

    def _count(self, optimizer: torch.optim.Optimizer, *_) -> None:
        self._made += 1
        rates = (group.get("lr") for group in optimizer.param_groups)
        self._moved = self._moved or any(rate is None or rate > 0 for rate in rates)
        # The first step of most runs ends this, which waits for the GPU.
        self._learned = self._learned or _has_gradient(optimizer)
        if not self._learned and self._made == _MOST_IDLE_STEPS and get_world_size() == 1:
            raise TrainingError(_NO_GRADIENT.format(counted(self._made, "step")))

    def look_at(self, batch: Any) -> None:
        """Look for an object or a labeled pixel in ``batch``, until there was one."""
        if self._seen is False:
            self._seen = _has_target(batch)

    def finish(self) -> None:
        """Compare with what was announced.

        Raises:
            TrainingError: Fewer iterations or steps, or steps that changed nothing.
        """
        for handle in self._handles:
            handle.remove()
        loop = self._loop
        done, announced = loop.iter - self._first, loop.max_iters - self._first
        if announced <= 0:
            return
        if done < announced and not loop.stop_training:
            raise TrainingError(
                f"the training ended after {done:,} of {announced:,} iterations: the dataloader "
                "yields fewer batches than its length says"
            )
        wrapper = loop.runner.optim_wrapper
        expected = max(done // getattr(wrapper, "_accumulative_counts", 1), 1)
        if not loop.stop_training and 2 * self._made < expected:
            raise TrainingError(
                f"{self._made:,} of {counted(expected, 'step')} were made, the others skipped: "
                "the loss or a gradient was not finite, or the loss exploded. The log names the "
                "images. Lower the learning rate, or look at the data (negvision check-dataset)"
            )
        if self._made and not self._moved:
            raise TrainingError(
                f"the learning rate was 0 in all {counted(self._made, 'step')}: no weight changed"
            )
        # A rank may have had none of the objects, or no row of the weights.
        found = torch.tensor([self._seen is not False, self._learned], dtype=torch.int64)
        all_reduce(found, "max")
        seen, learned = found.tolist()
        if self._made and not learned:
            raise TrainingError(_NO_GRADIENT.format(counted(self._made, "step")))
        weights = unwrapped(loop.runner.model).parameters()
        if not all(bool(weight.isfinite().all()) for weight in weights if weight.requires_grad):
            raise TrainingError("the trained weights are not finite: the training has diverged")
        if done and not seen:
            raise TrainingError(
                f"not one of {counted(done, 'batch', 'batches')} had an object or a labeled pixel: "
                "nothing was learned. Look at what the pipeline leaves: negvision browse-dataset"
            )


def _has_gradient(optimizer: torch.optim.Optimizer) -> bool:
    weights = [weight for group in optimizer.param_groups for weight in group["params"]]
    return any(bool(gradient.any()) for _, gradient in local_gradients(weights))


def _has_target(batch: Any) -> bool | None:
    """Whether a batch has an object or a labeled pixel; None if it does not say."""
    samples = batch.get("data_samples") if isinstance(batch, dict) else None
    if not isinstance(samples, list | tuple):
        return None
    for sample in samples:
        instances = getattr(sample, "gt_instances", None)
        labels = getattr(sample, "gt_sem_seg", None)
        if instances is None and labels is None:
            return None
        if instances is not None and len(instances):
            return True
        if labels is not None and (labels.data != VOID).any():
            return True
    return False
