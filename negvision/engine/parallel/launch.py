"""Join and leave the process group of a distributed run, also on a CPU."""

import datetime
import os

import torch.distributed as dist

from negvision.errors import UserError

# Seconds that a rank waits for the others, torch's default for NCCL; gloo's is 1,800. Meanwhile
# the first rank may evaluate or write a checkpoint.
_GROUP_TIMEOUT = 600


def with_group_timeout(env_cfg: dict) -> dict:
    """``env_cfg`` with a ``dist_cfg.timeout``, so that a hanging rank ends the run.

    Example:
        >>> with_group_timeout({"dist_cfg": {"backend": "nccl"}})
        {'dist_cfg': {'timeout': 600, 'backend': 'nccl'}}
    """
    return {**env_cfg, "dist_cfg": {"timeout": _GROUP_TIMEOUT, **env_cfg.get("dist_cfg", {})}}


def init_cpu_processes(launcher: str, dist_cfg: dict) -> None:
    """Join the process group over gloo; mmengine would select a CUDA device first.

    Args:
        launcher: ``"pytorch"`` (torchrun); the others need CUDA devices.
        dist_cfg: ``env_cfg.dist_cfg``; ``timeout`` is in seconds.

    Raises:
        UserError: The launcher needs CUDA, or torchrun did not start this process.
    """
    if dist.is_initialized():
        return
    if launcher != "pytorch":
        raise UserError(
            f"--launcher {launcher} needs a CUDA device for every task, and none is visible. On "
            "CPUs use tools/dist_train.sh (torchrun)"
        )
    missing = [name for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR") if name not in os.environ]
    if missing:
        raise UserError(
            f"--launcher pytorch needs the environment of torchrun ({', '.join(missing)} not set). "
            "Run: tools/dist_train.sh CONFIG PROCESSES"
        )
    options = {key: value for key, value in dist_cfg.items() if key == "timeout"}
    if "timeout" in options:
        options["timeout"] = datetime.timedelta(seconds=options["timeout"])
    dist.init_process_group(backend="gloo", **options)


def leave_processes() -> None:
    """Leave the process group, if any, at the end of a command.

    Otherwise gloo's threads sometimes abort the interpreter's shutdown.
    """
    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()
