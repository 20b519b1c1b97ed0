"""dist_train.sh and slurm_train.sh: what they start; the manifest of docs/distributed.md, tried."""

import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from helpers.event_hook import wait_for, with_event

ROOT = Path(__file__).parents[2]

# In the place of Python, one with torch: prints how it was called, and ends as it is told.
PYTHON = """#!/bin/bash
[ "$1" = -c ] && exit
echo "called: $*"
exit ${STATUS:-0}
"""
# One after the other, or, to be signaled, all at once: a task on each node.
SRUN = """#!/bin/bash
while [[ $1 == --* ]]; do shift; done
tasks=()
for ((node = 0; node < SLURM_JOB_NUM_NODES; node++)); do
    SLURM_NODEID=$node "$@" &
    tasks+=($!)
done
trap 'kill -USR1 "${tasks[@]}"' USR1
status=0
for task in "${tasks[@]}"; do
    while true; do
        wait "$task"; ended=$?
        kill -0 "$task" 2>/dev/null || break
    done
    (( ended > status )) && status=$ended
done
exit $status
"""
SCONTROL = """#!/bin/bash
if [ "$1 $2" != "show hostnames" ]; then echo "scontrol $*"; exit; fi
echo localhost; sleep 0.1; echo node-1
"""


@pytest.fixture
def environment(tmp_path):
    """A PATH with stand-ins for SLURM's commands and, as PYTHON, one for Python."""
    for name, text in {"python": PYTHON, "srun": SRUN, "scontrol": SCONTROL}.items():
        (tmp_path / "bin" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "bin" / name).write_text(text)
        (tmp_path / "bin" / name).chmod(0o755)
    read = r"NNODES|NODE_RANK|MASTER_ADDR|PORT|MAX_RESTARTS|PYTHONPATH|GPUS_PER_NODE|SLURM_\w+"
    kept = {name: value for name, value in os.environ.items() if not re.fullmatch(read, name)}
    folder = str(tmp_path / "bin")
    path = f"{folder}{os.pathsep}{os.environ['PATH']}"
    return {**kept, "PATH": path, "PYTHON": f"{folder}/python", "OMP_NUM_THREADS": "1"}


def run(script, *arguments, environment):
    done = subprocess.run(
        [ROOT / "tools" / script, *arguments],
        env=environment,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=600,
    )
    return done.returncode, done.stdout


def options(output):
    """Of each call: the launcher's options, and those of the training."""
    calls = re.findall(r"^called: (.*)$", output, re.MULTILINE)
    return [re.split(r"\S*tools/train\.py ", call) for call in calls]


def test_one_machine(environment):
    status, output = run("dist_train.sh", "c.py", "8", "--amp", environment=environment)
    assert status == 0
    ((launcher, training),) = options(output)
    assert launcher.startswith("-m negvision.engine.parallel.torchrun ")
    assert "--nproc-per-node 8 --max-restarts 0 --standalone" in launcher
    assert training == "c.py --launcher pytorch --amp"
    # The launcher's exit status is the script's.
    environment["STATUS"] = "75"
    assert run("dist_train.sh", "c.py", "8", environment=environment)[0] == 75


def test_environment_that_is_not_activated(environment):
    environment["PYTHON"] = "false"  # as a Python without torch
    status, output = run("dist_train.sh", "c.py", "8", environment=environment)
    assert status == 2 and "activate the environment" in output and "called" not in output
    for tool in ("train", "test", "export"):
        command = [sys.executable, "-SE", ROOT / "tools" / f"{tool}.py", "c.py"]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 2 and "activate the environment" in done.stderr
        assert "Traceback" not in done.stderr


def test_restarts_imply_resume(environment):
    environment["MAX_RESTARTS"] = "3"
    ((launcher, training),) = options(run("dist_train.sh", "c", "2", environment=environment)[1])
    assert "--max-restarts 3" in launcher
    assert training.endswith("--launcher pytorch --resume auto")
    own = ("c", "2", "--resume", "x.pth")
    ((_, training),) = options(run("dist_train.sh", *own, environment=environment)[1])
    assert training.endswith("--launcher pytorch --resume x.pth")


def test_several_machines(environment):
    environment.update(NNODES="2:4", MASTER_ADDR="node-0", NODE_RANK="1")
    ((launcher, _),) = options(run("dist_train.sh", "c", "2", environment=environment)[1])
    for part in ("--nnodes 2:4", "--rdzv-endpoint node-0:29500", "--rdzv-conf is_host=0"):
        assert part in launcher
    environment.update(NODE_RANK="0", PORT="7")
    ((launcher, _),) = options(run("dist_train.sh", "c", "2", environment=environment)[1])
    assert "--rdzv-endpoint node-0:7" in launcher and "is_host=1" in launcher
    del environment["NODE_RANK"]
    assert "is_host" not in run("dist_train.sh", "c", "2", environment=environment)[1]
    del environment["MASTER_ADDR"]
    status, output = run("dist_train.sh", "c", "2", environment=environment)
    assert status != 0 and "NNODES=2:4 needs MASTER_ADDR" in output
    assert "usage" in run("dist_train.sh", "c", environment=environment)[1]
    assert "sbatch" in run("slurm_train.sh", environment=environment)[1]


def slurm(environment, nodes=2):
    environment.update(
        SLURM_JOB_NUM_NODES=str(nodes), SLURM_JOB_NODELIST="node-[0-1]", SLURM_JOB_ID="123456"
    )
    return environment


def test_slurm_job_starts_a_launcher_on_each_node(environment):
    environment = {**slurm(environment), "SLURM_GPUS_ON_NODE": "8"}
    status, output = run("slurm_train.sh", "c.py", "--amp", environment=environment)
    assert status == 0
    calls = options(output)
    assert {training for _, training in calls} == {"c.py --launcher pytorch --amp --resume auto"}
    hosts = [re.search(r"is_host=(\d)", launcher)[1] for launcher, _ in calls]
    assert sorted(hosts) == ["0", "1"]
    for launcher, _ in calls:
        assert "--nproc-per-node 8" in launcher and "--nnodes 2" in launcher
        assert "--rdzv-endpoint localhost:23456 --rdzv-id 123456" in launcher
    assert "requeue" not in output


@pytest.mark.parametrize(("ended", "queued"), [("75", True), ("1", False), ("2", False)])
def test_only_interrupted_slurm_jobs_are_requeued(environment, ended, queued):
    environment = {**slurm(environment), "STATUS": ended}
    status, output = run("slurm_train.sh", "c.py", environment=environment)
    assert status == int(ended)
    assert ("scontrol requeue 123456" in output) is queued


def test_slurm_script_requests_signal_and_requeue():
    text = (ROOT / "tools" / "slurm_train.sh").read_text()
    asked = set(re.findall(r"^#SBATCH (\S+)$", text, re.MULTILINE))
    assert {"--signal=USR1@120", "--requeue", "--ntasks-per-node=1"} <= asked


def manifest():
    page = (ROOT / "docs" / "distributed.md").read_text()
    blocks = re.findall(r"^```yaml\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    return [yaml.safe_load(block) for block in blocks]


def test_manifest_is_consistent():
    service, job = manifest()
    pod, name = job["spec"]["template"]["spec"], job["metadata"]["name"]
    assert service["spec"]["clusterIP"] == "None"  # a string, in this API
    assert service["spec"]["selector"] == {"job-name": name}
    assert pod["subdomain"] == service["metadata"]["name"]
    (container,) = pod["containers"]
    arguments = dict(a.split("=", 1) for a in container["args"] if "=" in a)
    assert arguments["--rdzv-endpoint"].split(":")[0] == f"{name}-0.{pod['subdomain']}"
    assert int(arguments["--nnodes"]) == job["spec"]["completions"] == job["spec"]["parallelism"]
    assert int(arguments["--nproc-per-node"]) == container["resources"]["limits"]["nvidia.com/gpu"]
    assert {mount["name"] for mount in container["volumeMounts"]} == {
        volume["name"] for volume in pod["volumes"]
    }
    rules = job["spec"]["podFailurePolicy"]["rules"]
    actions = {
        value: rule["action"]
        for rule in rules
        for value in rule.get("onExitCodes", {}).get("values", [])
    }
    assert actions == {2: "FailJob", os.EX_TEMPFAIL: "Ignore"}
    assert pod["restartPolicy"] == "Never"  # or the API refuses podFailurePolicy
    (shm,) = [volume for volume in pod["volumes"] if volume["name"] == "shm"]
    assert shm["emptyDir"]["medium"] == "Memory"


def free_port():
    with socket.socket() as listener:
        listener.bind(("localhost", 0))
        return listener.getsockname()[1]


@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.is_available(), reason="about processes on a CPU")
def test_command_of_the_manifest_trains(tiny_config, tmp_path, environment):
    (container,) = manifest()[1]["spec"]["template"]["spec"]["containers"]
    port = free_port()
    substitutes = {
        "python": sys.executable,
        "--nproc-per-node=8": "--nproc-per-node=1",
        "--rdzv-endpoint=atss-0.negvision:29400": f"--rdzv-endpoint=localhost:{port}",
        "configs/atss_r50.py": str(tiny_config),
        "--work-dir=/runs/atss": f"--work-dir={tmp_path / 'run'}",
    }
    line = [substitutes.pop(word, word) for word in container["command"] + container["args"]]
    assert not substitutes, f"not in the manifest: {substitutes}"
    pods = [
        subprocess.Popen(
            # On one machine, both would be the host of the rendezvous by their name.
            [*line[:3], f"--rdzv-conf=is_host={int(index == 0)}", *line[3:]],
            env={**environment, "PYTHONPATH": str(ROOT)},
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for index in range(2)
    ]
    outputs = [pod.communicate(timeout=600)[0] for pod in pods]
    assert [pod.returncode for pod in pods] == [0, 0], outputs
    assert "on each of 2 processes" in "".join(outputs)
    assert (tmp_path / "run" / "epoch_1.pth").is_file()


@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.is_available(), reason="about processes on a CPU")
def test_slurm_job_saves_before_its_time_limit_and_resumes(tiny_config, tmp_path, environment):
    mark = tmp_path / "running"
    tiny_config.write_text(with_event(tiny_config.read_text(), "wait", mark))
    environment = {
        **slurm(environment),
        "PYTHON": sys.executable,
        "PYTHONPATH": os.pathsep.join(map(str, (ROOT, ROOT / "tests"))),
        "PORT": str(free_port()),
    }
    command = [ROOT / "tools/slurm_train.sh", tiny_config, "--work-dir", tmp_path / "run"]
    batch = subprocess.Popen(
        command,
        env=environment,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    wait_for(mark, batch)
    children = Path(f"/proc/{batch.pid}/task/{batch.pid}/children").read_text().split()
    (srun,) = [int(pid) for pid in children]
    os.kill(srun, signal.SIGUSR1)
    output, _ = batch.communicate(timeout=600)
    assert batch.returncode == os.EX_TEMPFAIL, output
    assert output.rstrip().endswith("scontrol requeue 123456")
    assert "Traceback" not in output
    status, output = run("slurm_train.sh", *command[1:], environment=environment)
    assert status == 0, output
    assert not re.search(r"^epoch +1/3", output, re.MULTILINE) and "epoch 3/3" in output
