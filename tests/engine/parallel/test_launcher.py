"""The launcher: ends, their order, their words and exit statuses, signals and starting again."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from negvision.engine.interruption import EXIT_INTERRUPTED
from negvision.engine.parallel.agent import Agent, JobEnded
from negvision.engine.parallel.ended import Ended, ended
from negvision.engine.parallel.failures import SilentRankError, as_lost_contact, reports_to_launcher
from negvision.engine.parallel.launch import with_group_timeout

ROOT = Path(__file__).parents[3]
WORKER = ROOT / "tests" / "helpers" / "launched.py"
STANDALONE = ("--standalone", "--nproc-per-node", "2")


def start(what, *options, steps=20):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    for name in [name for name in environment if name.startswith("TORCHELASTIC")]:
        del environment[name]
    command = [sys.executable, "-m", "negvision.engine.parallel.torchrun", *options]
    return subprocess.Popen(
        [*command, str(WORKER), what, str(steps)],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(process, within=60):
    """Its exit status and lines, the logs of gloo left out."""
    output, _ = process.communicate(timeout=within)
    return process.returncode, [line for line in output.splitlines() if not line.startswith("[")]


def run(what, *options, **kwargs):
    return finish(start(what, *(options or STANDALONE), **kwargs))


def test_a_killed_rank_ends_the_job_and_is_named_first():
    begin = time.monotonic()
    status, lines = run("kill", steps=10_000)
    assert time.monotonic() - begin < 60
    assert status == 1
    assert lines[0] == "rank 1 died: killed by signal 9 (SIGKILL), perhaps out of memory"
    assert not any("Traceback" in line or "peer" in line for line in lines), lines


def test_an_exception_is_shown_whole_before_those_who_miss_the_rank():
    status, lines = run("raise", steps=10_000)
    assert status == 1
    assert lines[:2] == ["rank 1 died: ValueError: boom", "Traceback (most recent call last):"]
    assert "ValueError: boom" in lines[-1] or lines[-1].startswith("rank 0: lost contact"), lines
    assert sum("Traceback" in line for line in lines) == 1


def test_a_status_without_words():
    status, lines = run("exit", steps=10_000)
    assert status == 1
    assert lines[0] == "rank 1 died: exit status 3; what it printed is above"


def test_an_error_of_the_users_is_printed_once_and_not_tried_again():
    status, lines = run("user", *STANDALONE, "--max-restarts", "2", steps=10_000)
    assert status == 2
    assert lines == ["rank 1: ConfigError: model.x is wrong"]


@pytest.mark.parametrize("what", ["kill", "machine"])
def test_all_ranks_start_again(what):
    status, lines = run(what, *STANDALONE, "--max-restarts", "1")
    assert status == 0, lines
    assert lines[0].startswith("rank 1 died: ")
    assert "starting all ranks again (1 of 1)" in lines
    assert both_finished(lines)


def both_finished(lines: list[str]) -> bool:
    # Two processes that print at once may share a line.
    text = " ".join(lines)
    return "rank 0 finished" in text and "rank 1 finished" in text


def test_a_late_rank_does_not_end_the_job():
    status, lines = run("late")
    assert status == 0
    assert both_finished(lines)


@pytest.mark.slow
def test_a_rank_that_hangs_ends_the_job_and_is_named():
    status, lines = run("hang", steps=10_000)
    assert status == 1
    assert lines[0].startswith("rank 0: waited in vain for another rank")
    assert "dist_cfg.timeout" in lines[0]
    assert lines[1] == "rank 1 hangs; it is at:"
    assert any(re.search(r'launched.py", line \d+ in fail', line) for line in lines), lines


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_reaches_the_ranks_which_have_time_to_save(number):
    process = start("saves", *STANDALONE, "--max-restarts", "3", steps=10_000)
    assert process.stdout.readline() == "running\n"
    process.send_signal(number)
    status, lines = finish(process)
    assert status == EXIT_INTERRUPTED == os.EX_TEMPFAIL
    saved = {f"rank {rank} saved [{number.name!r}]" for rank in range(2)}
    assert saved <= set(lines)
    # Nothing else, of the launcher or of gloo: the trainer says how to go on.
    assert set(lines) <= saved | {"running"}


def test_the_terminal_ends_the_job():
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


def test_a_signal_while_other_machines_are_waited_for():
    process = start("nothing", *machine(0, free_port()))
    for _ in range(100):
        # Until then Python has no handler.
        if (
            "0000000000004"
            in Path(f"/proc/{process.pid}/status").read_text().partition("SigCgt:")[2]
        ):
            break
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    status, lines = finish(process, within=20)
    assert status == EXIT_INTERRUPTED
    assert lines[-1].startswith("interrupted by SIGTERM before there was anything to save")


def test_two_machines_end_together_and_say_where_it_was():
    port = free_port()
    ends = [start("kill", *machine(number, port), steps=10_000) for number in range(2)]
    (status_0, lines_0), (status_1, lines_1) = [finish(end) for end in ends]
    assert (status_0, status_1) == (1, 1)
    first = [lines[0] for lines in (lines_0, lines_1)]
    host = socket.gethostname()
    died = f"rank 1 ({host}) died: killed by signal 9 (SIGKILL), perhaps out of memory"
    assert died in first
    assert f"rank 0 ({host}): lost contact with another rank; see its error" in first


def test_words_of_launch_errors():
    status, lines = run("nothing", "--nnodes", "0", "--nproc-per-node", "1")
    assert status == 2
    assert len(lines) == 1 and "got min_nodes=0" in lines[0]
    nowhere = machine(1, free_port(), read_timeout=1, timeout=1)
    status, lines = run("nothing", *nowhere)
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
def test_what_says_that_another_rank_is_gone(text, silent):
    lost = as_lost_contact(RuntimeError(text))
    assert isinstance(lost, SilentRankError) is silent
    assert lost is not None
    assert as_lost_contact(ValueError(text)) is None


def test_errors_that_are_of_the_rank_itself():
    for text in ("CUDA error: device-side assert triggered", "mat1 and mat2 shapes", "NCCL error"):
        assert as_lost_contact(RuntimeError(text)) is None


def test_ends_in_words():
    assert Ended(2, -7).words().endswith("(SIGBUS), perhaps no room in shared memory (/dev/shm)")
    assert Ended(2, -63).words() == "rank 2 died: killed by signal 63 (without a name)"
    lost = Ended(0, 1, "LostContactError: lost contact", "LostContactError: lost contact")
    assert lost.words() == "rank 0: lost contact"
    assert lost.is_lost_contact and not lost.is_silent_peer
    trace = "Traceback (most recent call last):\nValueError: boom"
    assert (
        Ended(3, 1, "ValueError: boom", trace).words() == f"rank 3 died: ValueError: boom\n{trace}"
    )
    # A status of 2 that nobody explained, as argparse's, is not known to be the user's.
    assert not Ended(0, 2).is_user_error


def test_what_several_ranks_find_at_once_is_said_once(capsys):
    """As an error of the config, which all of them read."""
    agent, group = Agent.__new__(Agent), SimpleNamespace(group_world_size=1)
    agent._passed_on = set()
    same = [Ended(rank, 2, "ConfigError: no", "ConfigError: no") for rank in range(3)]
    other = Ended(3, 2, "DatasetError: empty", "DatasetError: empty")
    with pytest.raises(JobEnded) as end:
        agent._conclude([*same, other], group)
    assert end.value.status == 2
    said = capsys.readouterr().err.splitlines()
    assert said == ["rank 0: ConfigError: no", "rank 3: DatasetError: empty"]


def test_the_end_of_a_process_is_seen_and_left_to_its_parent(tmp_path):
    file = tmp_path / "error.json"
    file.write_text('{"message": {"mess')  # killed while it wrote
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    assert ended(4, process.pid, str(file)) is None
    process.kill()
    while ended(4, process.pid, str(file)) is None:
        time.sleep(0.01)
    assert ended(4, process.pid, None) == ended(4, process.pid, str(file)) == Ended(4, -9)
    assert process.wait() == -9


def test_outside_of_torchrun_a_command_is_as_it_was(monkeypatch):
    monkeypatch.delenv("TORCHELASTIC_ERROR_FILE", raising=False)

    @reports_to_launcher
    def command(argv=None):
        raise ValueError(argv)

    with pytest.raises(ValueError, match="x"):
        command(["x"])


def test_a_group_has_a_timeout_unless_the_config_has_another():
    assert with_group_timeout({})["dist_cfg"] == {"timeout": 600}
    given = {"dist_cfg": {"timeout": 7}, "cudnn_benchmark": True}
    assert with_group_timeout(given) == given
