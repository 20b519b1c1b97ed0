"""``python -m negvision.engine.parallel.torchrun``: torchrun, with ends that can be understood.

It takes torchrun's arguments and starts workers as torchrun does. What differs is the end: the
error of the rank that failed is printed first; ranks that were interrupted by SIGTERM or SIGUSR1
have time to save, and the launcher exits with 75 as they do; an error of the user's is not tried
again. Exit statuses: 0, 1 after a failure, 2 after an error of the user's, 75 after an
interruption, 128 + n after signal n from the keyboard.
"""

import logging
import os
import signal
import sys
import tempfile
import uuid

from torch.distributed.elastic.agent.server.api import WorkerSpec
from torch.distributed.elastic.multiprocessing import SignalException
from torch.distributed.elastic.rendezvous import RendezvousError, RendezvousParameters
from torch.distributed.elastic.rendezvous.registry import get_rendezvous_handler
from torch.distributed.launcher.api import LaunchConfig
from torch.distributed.run import config_from_args, get_args_parser

from negvision.engine.parallel.agent import Agent, ErrorFiles, JobEnded
from negvision.engine.parallel.failures import LAUNCHER_PRINTS

# A worker saves and ends by itself after these; torch's handlers for the others end it.
_PASSED_ON = (signal.SIGTERM, signal.SIGUSR1)
_ENDING = "SIGINT,SIGHUP,SIGQUIT"


def main(argv: list[str] | None = None) -> int:
    """Start the workers and wait for them; the exit status."""
    args = get_args_parser().parse_args(argv)
    if args.standalone:
        # Port 0: two runs on a machine do not meet.
        args.rdzv_backend, args.rdzv_endpoint = "c10d", "localhost:0"
        args.rdzv_id = str(uuid.uuid4())
    # As torchrun does, which says so in a frame of asterisks.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ[LAUNCHER_PRINTS] = "1"
    # A store that the agent keeps over restarts still has the addresses of ranks that are gone,
    # and gloo connects to whichever it reads first.
    os.environ.setdefault("TORCH_DISABLE_SHARE_RDZV_TCP_STORE", "1")
    os.environ["TORCHELASTIC_SIGNALS_TO_HANDLE"] = _ENDING
    if "LOGLEVEL" not in os.environ:
        _silence_torch()
    with tempfile.TemporaryDirectory(prefix="negvision_errors_") as folder:
        args.log_dir = args.log_dir or folder
        try:
            return _run(*config_from_args(args))
        except (AssertionError, ValueError) as error:
            return _end(2, f"torchrun: {error}")


def _run(config: LaunchConfig, command: str, arguments: list[str]) -> int:
    static = config.rdzv_backend == "static"
    address, _, port = config.rdzv_endpoint.rpartition(":")
    try:
        rendezvous = get_rendezvous_handler(
            RendezvousParameters(
                backend=config.rdzv_backend,
                endpoint=config.rdzv_endpoint,
                run_id=config.run_id,
                min_nodes=config.min_nodes,
                max_nodes=config.max_nodes,
                local_addr=config.local_addr,
                **config.rdzv_configs,
            )
        )
    except RendezvousError as error:
        return _end(1, f"no rendezvous at {config.rdzv_endpoint}: {error}")
    spec = WorkerSpec(
        role=config.role,
        local_world_size=config.nproc_per_node,
        entrypoint=command,
        args=tuple(arguments),
        rdzv_handler=rendezvous,
        max_restarts=config.max_restarts,
        monitor_interval=config.monitor_interval,
        master_addr=address if static else None,
        master_port=int(port) if static else None,
        local_addr=config.local_addr,
        event_log_handler=config.event_log_handler,
        numa_options=config.numa_options,
        virtual_local_rank=config.virtual_local_rank,
    )
    agent = Agent(
        spec,
        ErrorFiles(config.logs_specs),
        start_method=config.start_method,
        log_line_prefix_template=config.log_line_prefix_template,
    )
    closes = True
    try:
        for number in _PASSED_ON:
            signal.signal(number, agent.pass_on)
        result = agent.run()
        if result is None:
            return _end(1, "another machine ended the job; see its error")
        return 1 if result.is_failed() else 0
    except JobEnded as end:
        # Machines that come after an interruption may still meet under this id.
        closes = end.status == 2
        return _end(end.status, str(end))
    except SignalException as end:
        closes = False
        return _end(128 + end.sigval, f"stopped by {end.sigval.name}")
    except RendezvousError as error:
        return _end(
            1,
            f"no rendezvous with the other machines at {config.rdzv_endpoint}: "
            f"{type(error).__name__}: {error}",
        )
    finally:
        if closes:
            rendezvous.shutdown()


def _silence_torch() -> None:
    """Its account of the same events, which it gives a line before and after each."""
    for name in list(logging.root.manager.loggerDict):
        if name.startswith("torch.distributed.elastic"):
            logging.getLogger(name).setLevel(logging.CRITICAL)


def _end(status: int, words: str) -> int:
    if words:
        print(words, file=sys.stderr, flush=True)
    return status


if __name__ == "__main__":
    sys.exit(main())
