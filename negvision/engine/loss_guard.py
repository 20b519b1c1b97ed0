"""Leave out steps whose loss is not a number or explodes, and stop a run that has nothing else."""

import functools
import json
import statistics
from collections import deque
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from mmengine.dist import all_gather_object, get_dist_info, is_main_process
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.optim import OptimWrapperDict
from torch import Tensor

from negvision.errors import UserError
from negvision.registry import HOOKS

# As many losses of sound steps have to be known before one can be said to explode.
_LEAST_KNOWN = 20
_BAD = "bad_steps"


class DivergedError(UserError):
    """The loss was not finite, or far beyond what it was, for many iterations in a row."""


@HOOKS.register_module()
class LossGuardHook(Hook):
    """Skip the optimizer's step where the loss or a gradient is not finite, or the loss explodes.

    Before each step all ranks agree on it: what one of them finds, all leave out. The buffers of
    the model (running statistics) are put back too, so a skipped step leaves nothing behind. Skips
    are logged with the images of the batch and counted as ``skipped_steps`` in the log's records.
    After ``max_in_a_row`` of them the run ends with a :class:`DivergedError`, and the images of the
    last batch, of all ranks, are listed in ``diverged.json`` in the work dir.

    With gradient accumulation a step is that of all its iterations. Under float16 loss scaling
    infinite gradients are the scaler's business, and the loss alone is watched.

    The runner adds this hook where a config does not; ``default_hooks=dict(loss_guard=None)``
    leaves it out. Looking at the loss waits for the GPU once a step.

    Args:
        max_in_a_row: Skips in a row that end the run.
        explosion: A loss greater than this many times the median of the last hundred is one that
            explodes; None: only losses that are not finite are skipped.

    Raises:
        ValueError: An argument is too small.

    Example:
        >>> default_hooks = dict(loss_guard=dict(type="negvision.LossGuardHook", max_in_a_row=5))
    """

    priority = "VERY_HIGH"

    def __init__(self, max_in_a_row: int = 10, explosion: float | None = 100.0) -> None:
        if max_in_a_row < 1:
            raise ValueError(f"max_in_a_row must be at least 1, got {max_in_a_row}")
        if explosion is not None and explosion <= 1:
            raise ValueError(f"explosion must be above 1 or None, got {explosion}")
        self.max_in_a_row, self.explosion = max_in_a_row, explosion
        self._losses: list[Tensor] = []
        self._recent: deque[float] = deque(maxlen=100)
        self._skipped = self._in_a_row = 0
        self._reason: str | None = None
        self._buffers: list[tuple[Tensor, Tensor]] = []

    def before_train(self, runner) -> None:
        saved = runner.message_hub.get_info(_BAD, {}) or {}
        self._recent.extend(saved.get("recent", []))
        self._skipped = saved.get("skipped", 0)
        self._in_a_row = saved.get("in_a_row", 0)
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        buffers = [buffer for buffer in model.buffers() if buffer.is_floating_point()]
        self._buffers = [(buffer, buffer.detach().clone()) for buffer in buffers]
        wrappers = runner.optim_wrapper
        several = isinstance(wrappers, OptimWrapperDict)
        for wrapper in wrappers.values() if several else [wrappers]:
            self._watch(wrapper)

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        if self._skipped:
            runner.message_hub.update_scalar("train/skipped_steps", self._skipped)
        # Plain numbers in lists, which checkpoints may hold.
        state = {"recent": list(self._recent), "skipped": self._skipped, "in_a_row": self._in_a_row}
        runner.message_hub.update_info(_BAD, state)
        reason, self._reason = self._reason, None
        if reason is None:
            return
        images = image_names(data_batch)
        shown = ", ".join(images[:4]) + (f" and {len(images) - 4} more" if len(images) > 4 else "")
        runner.logger.warning(
            f"iteration {runner.iter + 1}: {reason}; the step is skipped ({self._in_a_row} in a "
            f"row, {self._skipped} in all). Images: {shown or 'unknown'}"
        )
        if self._in_a_row >= self.max_in_a_row:
            self._stop(runner, reason, images)

    def _watch(self, wrapper) -> None:
        backward, step = wrapper.backward, wrapper.step

        @functools.wraps(backward)
        def noted_backward(loss: Tensor, **kwargs) -> None:
            self._losses.append(loss.detach().float().sum())
            backward(loss, **kwargs)

        @functools.wraps(step)
        def guarded_step(**kwargs) -> None:
            self._reason = self._fault(wrapper)
            if self._reason is None:
                self._in_a_row = 0
                step(**kwargs)
                for buffer, kept in self._buffers:
                    kept.copy_(buffer)
            else:
                self._in_a_row += 1
                self._skipped += 1
                for buffer, kept in self._buffers:
                    buffer.copy_(kept)

        wrapper.backward, wrapper.step = noted_backward, guarded_step

    @torch.no_grad()
    def _fault(self, wrapper) -> str | None:
        """What speaks against a step, the same on all ranks."""
        losses = torch.stack(self._losses)
        self._losses = []
        bad_loss = ~losses.isfinite().all()
        bad_gradients = torch.zeros_like(bad_loss)
        if not hasattr(wrapper, "loss_scaler"):
            bad_gradients = ~_gradients_are_finite(wrapper.optimizer).to(bad_loss.device)
        greatest = losses.nan_to_num(0.0, 0.0, 0.0).max()
        found = torch.stack([bad_loss.to(greatest), bad_gradients.to(greatest), greatest])
        if get_dist_info()[1] > 1:
            dist.all_reduce(found, op=dist.ReduceOp.MAX)
        bad_loss, bad_gradients, greatest = found.tolist()
        if bad_loss:
            return "the loss is not finite"
        if bad_gradients:
            return "a gradient is not finite"
        if self.explosion is not None and len(self._recent) >= _LEAST_KNOWN:
            usual = statistics.median(self._recent)
            if 0 < usual * self.explosion < greatest:
                return f"the loss is {greatest:.4g} and was {usual:.4g} in the median of the last"
        self._recent.append(greatest)
        return None

    def _stop(self, runner, reason: str, images: list[str]) -> None:
        of_ranks = all_gather_object(images)
        path = Path(runner.work_dir) / "diverged.json"
        if is_main_process():
            content = {
                "iteration": runner.iter + 1,
                "reason": reason,
                "skipped_in_a_row": self._in_a_row,
                "recent_losses": list(self._recent),
                "images": {f"rank {rank}": names for rank, names in enumerate(of_ranks)},
            }
            path.write_text(json.dumps(content, indent=1))
        raise DivergedError(
            f"{self._in_a_row} steps in a row were skipped, the last at iteration "
            f"{runner.iter + 1}: {reason}. The images of its batch are listed in {path}. Look at "
            "them (negvision browse-dataset), "
            "lower the learning rate, lengthen the warm-up or clip "
            "gradients, and go on from the last checkpoint with --resume"
        )


def _gradients_are_finite(optimizer: torch.optim.Optimizer) -> Tensor:
    gradients = [
        parameter.grad
        for group in optimizer.param_groups
        for parameter in group["params"]
        if parameter.grad is not None
    ]
    # Of sharded gradients this rank's share, which may be empty; the ranks' answers are joined.
    shares = [g.to_local() if hasattr(g, "to_local") else g for g in gradients]
    shares = [share for share in shares if share.numel()]
    if not shares:
        return torch.tensor(True)
    # The greatest of all: that of squares overflows where no gradient does.
    return torch.nn.utils.get_total_norm(shares, norm_type=float("inf")).isfinite()


def image_names(batch: Any) -> list[str]:
    """Paths, or else ids, of the images of a batch; empty where its samples have none."""
    samples = batch.get("data_samples", []) if isinstance(batch, dict) else []
    names = []
    for sample in samples if isinstance(samples, list | tuple) else []:
        for key in ("img_path", "img_id", "sample_idx"):
            value = getattr(sample, "metainfo", {}).get(key)
            if value is not None:
                names.append(str(value))
                break
    return names
