"""mmengine's runner, quiet on the console and able to run several processes on a CPU."""

import contextlib
import io

import torch
from mmengine.logging import MMLogger
from mmengine.runner import Runner as MMEngineRunner

from negvision.engine.launch import init_cpu_processes
from negvision.engine.quiet import replace_console_handler


class Runner(MMEngineRunner):
    """A runner whose console shows warnings, progress and results; the log file has all.

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

    def load_checkpoint(self, *args, **kwargs) -> dict:
        # mmengine prints here, on every rank: where it loads from (which the command said), and
        # which weights do not fit (which must be seen).
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            checkpoint = super().load_checkpoint(*args, **kwargs)
        lines = printed.getvalue().splitlines()
        rest = [line for line in lines if line and not line.startswith("Loads checkpoint by")]
        if rest:
            self.logger.warning("\n".join(rest))
        return checkpoint

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
        return super().wrap_model(model_wrapper_cfg, model)
