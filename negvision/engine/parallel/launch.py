"""Join the processes of a distributed run, on a CPU too, and leave them."""

import datetime
import os

import torch.distributed as dist

from negvision.errors import UserError

# Seconds that a rank waits for the others: torch's own for NCCL; gloo's are 1,800. The first rank
# alone evaluates and writes checkpoints in the meantime.
_GROUP_TIMEOUT = 600


def with_group_timeout(env_cfg: dict) -> dict:
    """``env_cfg`` with a ``dist_cfg.timeout``, so that a rank that hangs ends the run.

    Example:
        >>> with_group_timeout({"dist_cfg": {"backend": "nccl"}})
        {'dist_cfg': {'timeout': 600, 'backend': 'nccl'}}
    """
    return {**env_cfg, "dist_cfg": {"timeout": _GROUP_TIMEOUT, **env_cfg.get("dist_cfg", {})}}


def init_cpu_processes(launcher: str, dist_cfg: dict) -> None:
    """Join the process group over gloo. mmengine's own start selects a CUDA device first.

    Args:
        launcher: ``"pytorch"``, which is torchrun; the others need CUDA devices.
        dist_cfg: ``env_cfg.dist_cfg``; ``timeout`` is in seconds.

    Raises:
        UserError: for a launcher that needs CUDA, or outside torchrun.
    """
    if dist.is_initialized():
        return
    if launcher != "pytorch":
        raise UserError(
            f"--launcher {launcher} needs a CUDA device on every task and none is visible here. "
            "On CPUs use tools/dist_train.sh (torchrun)"
        )
    missing = [name for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR") if name not in os.environ]
    if missing:
        raise UserError(
            f"--launcher pytorch expects the environment of torchrun ({', '.join(missing)} not "
            "set). Start with: tools/dist_train.sh CONFIG PROCESSES"
        )
    options = {key: value for key, value in dist_cfg.items() if key == "timeout"}
    if "timeout" in options:
        options["timeout"] = datetime.timedelta(seconds=options["timeout"])
    dist.init_process_group(backend="gloo", **options)


def leave_processes() -> None:
    """Leave the process group, if there is one, at the end of a command.

    Left to the end of the interpreter, gloo's threads now and then abort it.
    """
    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()
