"""The launcher: exit statuses, messages, signals and restarts."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from helpers import ROOT

from negvision.engine.interruption import EXIT_INTERRUPTED
from negvision.engine.parallel.failures import child_processes, lost_contact, reports_to_launcher
from negvision.engine.parallel.launch import with_group_timeout
from negvision.engine.parallel.torchrun import describe_end

WORKER = ROOT / "tests" / "helpers" / "launched.py"
STANDALONE = ("--standalone", "--nproc-per-node", "2")
LAUNCHER = "negvision.engine.parallel.torchrun"


def start(what, *options, steps=20, launcher=LAUNCHER):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    for name in [name for name in environment if name.startswith("TORCHELASTIC")]:
        del environment[name]
    command = [sys.executable, "-m", launcher, *options]
    return subprocess.Popen(
        [*command, str(WORKER), what, str(steps)],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(process, within=600):
    """Its exit status and lines, without the logs of gloo and torch."""
    output, _ = process.communicate(timeout=within)
    lines = output.splitlines()
    return process.returncode, [line for line in lines if not re.match(r"\[|E\d{4} ", line)]


def run(what, *options, **kwargs):
    return finish(start(what, *(options or STANDALONE), **kwargs))


def test_what_ranks_would_write_at_once_is_written_before_they_start(tmp_path):
    # By yapf, on which MMEngine's configs depend.
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "XDG_CACHE_HOME": str(tmp_path)}
    command = [sys.executable, "-c", f"import {LAUNCHER}"]
    subprocess.run(command, env=environment, check=True, timeout=300)
    assert list(tmp_path.rglob("*.pickle"))


@pytest.mark.parametrize(
    ("what", "end"),
    [
        ("kill", "killed by signal 9 (SIGKILL), perhaps out of memory"),
        ("exit", "exit status 3; what it printed is above"),
    ],
)
def test_rank_that_dies_ends_the_job_and_is_named_first(what, end):
    status, lines = run(what, steps=10_000)
    assert (status, lines) == (1, [f"rank 1 died: {end}"])


def test_exception_is_shown_once_and_first():
    status, lines = run("raise", steps=10_000)
    assert status == 1
    assert lines[0] == "rank 1: Traceback (most recent call last):"
    assert lines[-2:] == [
        "ValueError: boom",
        "rank 1 died: exit status 1; what it printed is above",
    ]
    assert sum("Traceback" in line for line in lines) == 1


@pytest.mark.parametrize("what", ["user", "all_users"])
def test_user_error_is_printed_once_and_not_tried_again(what):
    status, lines = run(what, *STANDALONE, "--max-restarts", "2", steps=10_000)
    assert status == 2
    assert len(lines) == 1
    assert re.fullmatch(r"rank \d: ConfigError: model.x is wrong", lines[0])


@pytest.mark.parametrize(("what", "restarts"), [("kill", 1), ("machine", 1), ("late", 0)])
def test_job_that_restarts_or_waits_ends_well(what, restarts):
    status, lines = run(what, *STANDALONE, "--max-restarts", str(restarts))
    text = " ".join(lines)  # two processes that print at once may share a line
    assert status == 0 and "rank 0 finished" in text and "rank 1 finished" in text, lines


@pytest.mark.slow
def test_hanging_rank_ends_the_job_and_its_stack_is_shown():
    status, lines = run("hang", steps=10_000)
    assert status == 1
    assert lines[0].startswith("rank 0: timed out waiting for another rank")
    assert "dist_cfg.timeout" in lines[0]
    assert any(re.search(r'launched.py", line \d+ in fail', line) for line in lines), lines


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_signal_reaches_the_ranks_which_have_time_to_save(number):
    process = start("saves", *STANDALONE, "--max-restarts", "3", steps=10_000)
    assert process.stdout.readline() == "running\n"
    process.send_signal(number)
    status, lines = finish(process)
    assert status == EXIT_INTERRUPTED == os.EX_TEMPFAIL
    saved = {f"rank {rank} saved [{number.name!r}]" for rank in range(2)}
    assert saved <= set(lines)
    # Nothing else, of the launcher or of gloo: the trainer says how to go on.
    assert set(lines) <= saved | {"running"}


@pytest.mark.slow
def test_what_plain_torchrun_lacks():
    """It reports no status of a rank, and is itself killed by SIGUSR1."""
    plain = "torch.distributed.run"
    assert run("user", *STANDALONE, steps=10_000, launcher=plain)[0] == 1
    process = start("saves", *STANDALONE, steps=10_000, launcher=plain)
    assert process.stdout.readline() == "running\n"
    workers = child_processes(process.pid)
    process.send_signal(signal.SIGUSR1)
    assert process.wait(timeout=600) == -signal.SIGUSR1
    for pid in workers:  # nobody ends them
        os.kill(pid, signal.SIGKILL)
    process.communicate(timeout=600)


def test_interrupt_of_the_terminal_ends_the_job(heeded):
    process = start("nothing", *STANDALONE, steps=10_000)
    assert process.stdout.readline() == "running\n"
    process.send_signal(signal.SIGINT)
    status, lines = finish(process)
    assert status == 128 + signal.SIGINT
    assert lines[-1] == "stopped by SIGINT"
    assert not any("Traceback" in line for line in lines), lines


def free_port():
    with socket.socket() as listener:
        listener.bind(("localhost", 0))
        return listener.getsockname()[1]


def machine(number, port, **settings):
    conf = ",".join(f"{k}={v}" for k, v in {"is_host": int(number == 0), **settings}.items())
    return (
        *("--nnodes", "2", "--nproc-per-node", "1", "--rdzv-backend", "c10d", "--rdzv-conf", conf),
        *("--rdzv-endpoint", f"localhost:{port}", "--rdzv-id", "test"),
    )


def handles(pid, number):
    caught = re.search(r"SigCgt:\s+(\w+)", Path(f"/proc/{pid}/status").read_text())[1]
    return int(caught, 16) >> (number - 1) & 1


def test_signal_while_the_launcher_waits_for_other_machines():
    process = start("nothing", *machine(0, free_port()))
    while not handles(process.pid, signal.SIGUSR1):
        assert process.poll() is None
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    status, lines = finish(process)
    assert status == EXIT_INTERRUPTED
    assert lines[-1].startswith("interrupted before there was anything to save")


def test_two_machines_end_together():
    port = free_port()
    ends = [start("kill", *machine(number, port), steps=10_000) for number in range(2)]
    found = [finish(end) for end in ends]
    assert [status for status, _ in found] == [1, 1]
    first = [lines[0] for _, lines in found]
    assert "rank 1 died: killed by signal 9 (SIGKILL), perhaps out of memory" in first
    assert "rank 0: lost contact with another rank; see its error" in first


def test_messages_for_launch_errors():
    status, lines = run("nothing", "--nnodes", "0", "--nproc-per-node", "1")
    assert status == 2
    assert len(lines) == 1 and "got min_nodes=0" in lines[0]
    status, lines = run("nothing", *machine(1, free_port(), read_timeout=1, timeout=1))
    assert status == 1
    assert "no rendezvous at localhost:" in lines[-1]


@pytest.mark.parametrize(
    ("text", "silent"),
    [
        ("[../gloo/transport/tcp/pair.cc:553] Connection closed by peer [127.0.0.1]:40291", False),
        ("Broken pipe", False),
        ("NCCL error: ncclRemoteError: A call failed possibly due to a network error", False),
        ("Failed to recv, got 0 bytes. Connection was likely closed.", False),
        ("[unbound_buffer.cc:81] Timed out waiting 5000ms for recv operation to complete", True),
        ("wait timeout after 600000ms, keys: /default_pg/0//cpu//0/0", True),
    ],
)
def test_errors_caused_by_another_rank(text, silent):
    assert lost_contact(RuntimeError(text)).startswith("timed out" if silent else "lost contact")
    assert lost_contact(ValueError(text)) is None


def test_errors_of_the_rank_itself():
    for text in ("CUDA error: device-side assert triggered", "mat1 and mat2 shapes", "NCCL error"):
        assert lost_contact(RuntimeError(text)) is None


def test_description_of_ends():
    assert describe_end(-7).endswith("(SIGBUS), perhaps no room in shared memory (/dev/shm)")
    assert describe_end(-63) == "killed by signal 63 (unnamed)"


def test_command_outside_of_torchrun_is_unchanged(monkeypatch):
    monkeypatch.delenv("TORCHELASTIC_ERROR_FILE", raising=False)

    @reports_to_launcher
    def command(argv=None):
        raise ValueError(argv)

    with pytest.raises(ValueError, match="x"):
        command(["x"])


def test_group_timeout_unless_the_config_has_one():
    assert with_group_timeout({})["dist_cfg"] == {"timeout": 600}
    given = {"dist_cfg": {"timeout": 7}, "cudnn_benchmark": True}
    assert with_group_timeout(given) == given
