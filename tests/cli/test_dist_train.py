"""tools/dist_train.sh with real trainings: restart after a killed rank, saving on a signal."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from negvision.engine.interruption import EXIT_INTERRUPTED

ROOT = Path(__file__).parents[2]
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(torch.cuda.is_available(), reason="about processes on a CPU"),
]

# Once, in the second of three epochs: kills rank 1, or marks that it is time for a signal.
EVENT = """
import os, signal, time
from mmengine.hooks import Hook
from mmengine.registry import HOOKS

@HOOKS.register_module()
class Event(Hook):
    def __init__(self, what, mark):
        self.what, self.mark = what, mark

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        if runner.iter != 3 or os.path.exists(self.mark) or os.environ["RANK"] != "1":
            return
        open(self.mark, "w").close()
        if self.what == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(3)
"""


@pytest.fixture
def job(tiny_config, tmp_path):
    """Starts the training of three epochs of two iterations on two processes."""
    (tmp_path / "event_hook.py").write_text(EVENT)
    work, text = tmp_path / "run", tiny_config.read_text()

    def start(what, *arguments, **environment):
        mark = tmp_path / "it_happened"
        tiny_config.write_text(
            text.replace("max_epochs=1", "max_epochs=3")
            + "randomness = dict(seed=3)\n"
            + 'custom_imports = dict(imports=["event_hook"])\n'
            + f'custom_hooks = [dict(type="Event", what="{what}", mark="{mark}")]\n'
        )
        environment = {
            **os.environ,
            "PYTHON": sys.executable,
            "PYTHONPATH": str(tmp_path),
            "OMP_NUM_THREADS": "1",
            **environment,
        }
        script = ROOT / "tools" / "dist_train.sh"
        process = subprocess.Popen(
            [script, tiny_config, "2", "--work-dir", work, *arguments],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        return process, mark

    start.work = work
    return start


def finish(process):
    output, _ = process.communicate(timeout=300)
    return process.returncode, output


def weights(path):
    return torch.load(path, weights_only=False)["state_dict"]


def test_job_with_a_killed_rank_restarts_and_finishes(job, tmp_path):
    process, _ = job("kill", MAX_RESTARTS="1")
    status, output = finish(process)
    assert status == 0, output
    assert "failed (exitcode: -9) local_rank: 1" in output  # torchrun's line
    # The first epoch was not trained again.
    assert output.count("epoch 1/3  iter 2/2") == 1, output
    assert "epoch 3/3  iter 2/2" in output
    assert {f"epoch_{n}.pth" for n in (1, 2, 3)} <= {p.name for p in job.work.iterdir()}

    whole = tmp_path / "whole"
    process, _ = job("nothing", "--work-dir", whole)
    status, output = finish(process)
    assert status == 0, output
    expected = weights(whole / "epoch_3.pth")
    for name, value in weights(job.work / "epoch_3.pth").items():
        assert torch.equal(value, expected[name]), name


def test_signal_to_the_launcher_saves_and_the_same_command_resumes(job):
    process, mark = job("wait", "--resume", "auto")
    while not mark.exists():
        assert process.poll() is None, process.communicate()[0]
    process.send_signal(signal.SIGTERM)
    status, output = finish(process)
    assert status == EXIT_INTERRUPTED, output
    assert "Traceback" not in output
    assert output.count("SIGTERM") == 1 and "--resume" in output
    process, _ = job("wait", "--resume", "auto")
    status, output = finish(process)
    assert status == 0, output
    assert "epoch 1/3" not in output and "epoch 3/3  iter 2/2" in output


def test_wrong_config_is_reported_once(job):
    process, _ = job("nothing", "--cfg-options", "model.bbox_head.type=RetinaHaed")
    status, output = finish(process)
    assert status == 2
    assert output.count("nearest: 'RetinaHead'") == 1, output
    assert "Traceback" not in output
