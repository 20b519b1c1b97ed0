"""Skip steps whose loss is not finite or explodes, and stop a run of nothing else."""

import functools
import json
import statistics
from collections import deque
from pathlib import Path

import torch
from mmengine.dist import all_gather_object, all_reduce, is_main_process
from mmengine.hooks import Hook
from torch import Tensor

from negvision.engine.config.model_parts import unwrapped
from negvision.engine.parallel.sharded import local_gradients, optim_wrappers_of
from negvision.engine.training_steps import TrainingError
from negvision.errors import UserError
from negvision.registry import HOOKS
from negvision.unexpected import image_names

# Losses needed before a loss can be called exploding.
_LEAST_KNOWN = 20
_BAD = "bad_steps"


class DivergedError(UserError):
    """The loss was not finite, or exploded, for many iterations in a row."""

    on_all_ranks = True


@HOOKS.register_module()
class LossGuardHook(Hook):
    """Skip the optimizer's step where the loss or a gradient is not finite, or the loss explodes.

    Ranks agree before each step: if one finds a problem, all skip the step. The model's buffers
    (running statistics) are restored too, so a skipped step changes nothing. Skips are logged with
    the images of the batch and counted as the scalar ``skipped_steps``. After ``max_in_a_row``
    skips in a row the run ends with a :class:`DivergedError`, and ``diverged.json`` in the work dir
    lists the images of the last batch of all ranks.

    With gradient accumulation a step covers all its iterations. Under float16 loss scaling the
    scaler handles infinite gradients, and only the loss is checked.

    The runner adds this hook to any config; ``default_hooks=dict(loss_guard=None)`` removes it. It
    waits for the GPU once per step.

    Args:
        max_in_a_row: Skips in a row that end the run.
        explosion: Skip a loss greater than this many times the median of the last hundred; None:
            skip only losses that are not finite.

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
        model = unwrapped(runner.model)
        buffers = [buffer for buffer in model.buffers() if buffer.is_floating_point()]
        self._buffers = [(buffer, buffer.detach().clone()) for buffer in buffers]
        for wrapper in optim_wrappers_of(runner.optim_wrapper):
            self._watch(wrapper)

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        if self._skipped:
            runner.message_hub.update_scalar("train/skipped_steps", self._skipped)
        stops = self._in_a_row >= self.max_in_a_row
        in_a_row = 0 if stops else self._in_a_row  # a resumed run tries again
        # Plain numbers and lists, which load from a checkpoint without running code.
        state = {"recent": list(self._recent), "skipped": self._skipped, "in_a_row": in_a_row}
        runner.message_hub.update_info(_BAD, state)
        reason, self._reason = self._reason, None
        if reason is None:
            return
        images = image_names(data_batch)
        shown = ", ".join(images[:4]) + (f" and {len(images) - 4} more" if len(images) > 4 else "")
        runner.logger.warning(
            f"iteration {runner.iter + 1}: {reason}; the step is skipped ({self._in_a_row} in a "
            f"row, {self._skipped} in total). Images: {shown or 'unknown'}"
        )
        if stops:
            self._stop(runner, reason, images)

    def _watch(self, wrapper) -> None:
        backward, step = wrapper.backward, wrapper.step

        @functools.wraps(backward)
        def noted_backward(loss: Tensor, **kwargs) -> None:
            if not getattr(loss, "requires_grad", False):
                raise TrainingError(
                    "the model returned no loss that depends on a trained weight: names of losses "
                    "contain 'loss', and their tensors need a gradient"
                )
            self._losses.append(loss.detach().float().sum())
            backward(loss, **kwargs)

        @functools.wraps(step)
        def guarded_step(**kwargs) -> None:
            self._reason = self._problem(wrapper)
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
    def _problem(self, wrapper) -> str | None:
        """Why to skip the step, the same on all ranks; None for a good step."""
        losses = torch.stack(self._losses)
        self._losses = []
        bad_loss = ~losses.isfinite().all()
        bad_gradients = torch.zeros_like(bad_loss)
        if not hasattr(wrapper, "loss_scaler"):
            bad_gradients = ~_gradients_are_finite(wrapper.optimizer).to(bad_loss.device)
        greatest = losses.nan_to_num(0.0, 0.0, 0.0).max()
        found = torch.stack([bad_loss.to(greatest), bad_gradients.to(greatest), greatest])
        all_reduce(found, "max")
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
            f"{runner.iter + 1}: {reason}. {path} lists the images of its batch. Look at them "
            "(negvision browse-dataset), lower the learning rate, lengthen the warm-up or clip "
            "gradients, and continue with --resume, from an earlier checkpoint with --resume FILE"
        )


def _gradients_are_finite(optimizer: torch.optim.Optimizer) -> Tensor:
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    # A rank's shard may be empty; the caller asks all ranks.
    shares = [gradient for _, gradient in local_gradients(parameters) if gradient.numel()]
    if not shares:
        return torch.tensor(True)
    # The maximum norm: a sum of squares may overflow although all gradients are finite.
    return torch.nn.utils.get_total_norm(shares, norm_type=float("inf")).isfinite()
