"""mmengine's runner, quiet on the console and able to run several processes on a CPU."""

import contextlib
import io
from collections.abc import Callable

import torch
from mmengine.hooks import EMAHook
from mmengine.logging import MMLogger
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner as MMEngineRunner

from negvision.engine.parallel import shards
from negvision.engine.parallel.launch import init_cpu_processes
from negvision.engine.quiet import replace_console_handler
from negvision.ood.threshold import OODThreshold, set_threshold


class Runner(MMEngineRunner):
    """A runner whose console shows warnings, progress and results; the log file has all.

    Parameters that are sharded over ranks (:mod:`negvision.engine.parallel.shards`) train, are
    clipped, saved whole and resumed at any world size. The OOD threshold of a checkpoint, if it has
    one, is given to the model with the weights.

    Use it as :class:`mmengine.runner.Runner`: ``Runner.from_cfg(cfg).train()``.
    """

    def setup_env(self, env_cfg: dict) -> None:
        if self.distributed and not torch.cuda.is_available():
            init_cpu_processes(self.launcher, env_cfg.get("dist_cfg", {}))
        super().setup_env(env_cfg)

    def build_logger(self, *args, **kwargs) -> MMLogger:
        logger = super().build_logger(*args, **kwargs)
        replace_console_handler(logger)
        return logger

    def load_checkpoint(self, filename: str, *args, **kwargs) -> dict:
        # mmengine prints here, on every rank: where it loads from (which the command said), and
        # which weights do not fit (which must be seen).
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            checkpoint = super().load_checkpoint(filename, *args, **kwargs)
        lines = printed.getvalue().splitlines()
        rest = [line for line in lines if line and not line.startswith("Loads checkpoint by")]
        if rest:
            self.logger.warning("\n".join(rest))
        if "ood" in (checkpoint.get("meta") or {}):
            set_threshold(self.model, OODThreshold.of_checkpoint(checkpoint, filename))
        return checkpoint

    def build_optim_wrapper(self, optim_wrapper):
        built = super().build_optim_wrapper(optim_wrapper)
        shards.clip_over_shards(self.model, built)
        return built

    def save_checkpoint(
        self,
        out_dir: str,
        filename: str,
        file_client_args: dict | None = None,
        save_optimizer: bool = True,
        **kwargs,
    ) -> None:
        # mmengine calls this on all ranks and lets the first alone save; joining needs them all.
        models = [self.model]
        models += [hook.ema_model for hook in self.hooks if isinstance(hook, EMAHook)]
        optimizers = shards.optimizers_of(self.optim_wrapper) if save_optimizer else []
        with shards.whole_state(models, optimizers):
            super().save_checkpoint(out_dir, filename, file_client_args, save_optimizer, **kwargs)

    def resume(
        self,
        filename: str,
        resume_optimizer: bool = True,
        resume_param_scheduler: bool = True,
        map_location: str | Callable = "default",
    ) -> None:
        if resume_optimizer:
            self.optim_wrapper = self.build_optim_wrapper(self.optim_wrapper)
        if map_location == "default" and shards.find_shards(self.model):
            # The whole of what is sharded may be more than a GPU holds.
            map_location = "cpu"
        with shards.own_state(self.model, shards.optimizers_of(self.optim_wrapper)):
            super().resume(filename, resume_optimizer, resume_param_scheduler, map_location)

    def _init_model_weights(self) -> None:
        # mmengine broadcasts what the first rank has; each has its own rows of what is sharded.
        model = self.model.module if is_model_wrapper(self.model) else self.model
        with shards.shards_left_out(model):
            super()._init_model_weights()

    def wrap_model(self, model_wrapper_cfg: dict | None, model: torch.nn.Module):
        if self.distributed and not torch.cuda.is_available():
            # DistributedDataParallel takes no device ids on a CPU; mmengine sets them unless told.
            model_wrapper_cfg = {
                "type": "MMDistributedDataParallel",
                "broadcast_buffers": False,
                "find_unused_parameters": self.cfg.get("find_unused_parameters", False),
                **(model_wrapper_cfg or {}),
                "device_ids": None,
            }
        if self.distributed:
            shards.keep_shards_from_ddp(model)
        return super().wrap_model(model_wrapper_cfg, model)
