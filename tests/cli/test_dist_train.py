"""tools/dist_train.sh with real trainings: restart after a killed rank, saving on a signal."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from helpers.event_hook import wait_for, with_event

from negvision.engine.interruption import EXIT_INTERRUPTED

ROOT = Path(__file__).parents[2]
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(torch.cuda.is_available(), reason="about processes on a CPU"),
]


@pytest.fixture
def job(tiny_config, tmp_path):
    """Starts the training of three epochs of two iterations on two processes."""
    text = tiny_config.read_text()

    def start(what, work, *arguments, **environment):
        mark = work.with_suffix(".mark")
        tiny_config.write_text(with_event(text, what, mark))
        environment = {
            **os.environ,
            "PYTHON": sys.executable,
            "PYTHONPATH": os.pathsep.join(map(str, (ROOT, ROOT / "tests"))),
            "OMP_NUM_THREADS": "1",
            **environment,
        }
        process = subprocess.Popen(
            [ROOT / "tools" / "dist_train.sh", tiny_config, "2", "--work-dir", work, *arguments],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        return process, mark

    return start


def finish(process):
    output, _ = process.communicate(timeout=600)
    return process.returncode, output


def weights(path):
    return torch.load(path, weights_only=False)["state_dict"]


def test_jobs_that_are_killed_or_interrupted_end_with_the_same_weights(job, tmp_path):
    killed, interrupted = tmp_path / "killed", tmp_path / "interrupted"
    # A killed rank: the job restarts and finishes.
    process, _ = job("kill", killed, MAX_RESTARTS="1")
    status, output = finish(process)
    assert status == 0, output
    assert "failed (exitcode: -9) local_rank: 1" in output  # torchrun's line
    # The first epoch was not trained again.
    assert output.count("epoch 1/3  iter 2/2") == 1, output
    assert "epoch 3/3  iter 2/2" in output
    assert {f"epoch_{n}.pth" for n in (1, 2, 3)} <= {p.name for p in killed.iterdir()}

    # A signal to the launcher: the job saves, and the same command resumes it.
    process, mark = job("wait", interrupted, "--resume", "auto")
    wait_for(mark, process)
    process.send_signal(signal.SIGTERM)
    status, output = finish(process)
    assert status == EXIT_INTERRUPTED, output
    assert "Traceback" not in output
    assert output.count("SIGTERM") == 1 and "--resume" in output
    process, _ = job("wait", interrupted, "--resume", "auto")
    status, output = finish(process)
    assert status == 0, output
    assert "epoch 1/3" not in output and "epoch 3/3  iter 2/2" in output

    # One lost the second epoch up to the event, the other nothing.
    one, other = (weights(work / "epoch_3.pth") for work in (killed, interrupted))
    assert one.keys() == other.keys()
    assert [name for name in one if not torch.equal(one[name], other[name])] == []


def test_wrong_config_is_reported_once(job, tmp_path):
    wrong = ("--cfg-options", "model.bbox_head.type=RetinaHaed")
    process, _ = job("nothing", tmp_path / "run", *wrong)
    status, output = finish(process)
    assert status == 2
    assert output.count("nearest: 'RetinaHead'") == 1, output
    assert "Traceback" not in output
