import io
import re
from urllib.error import URLError

import numpy as np
import pytest
import torch
from mmengine.logging import MessageHub
from mmengine.registry import PARAM_SCHEDULERS
from mmengine.runner.checkpoint import CheckpointLoader

from negvision.engine.checkpoints.loading import install_loaders, load_checkpoint_file
from negvision.errors import CheckpointError, UserError


@pytest.fixture(autouse=True)
def _own_schemes():
    before = CheckpointLoader._schemes.copy()
    yield
    CheckpointLoader._schemes = before


SCHEDULERS = {
    "Constant": {},
    "CosineAnnealing": {"T_max": 5},
    "CosineRestart": {"periods": [3], "restart_weights": [1], "eta_min": 0},
    "Exponential": {"gamma": 0.9},
    "Linear": {},
    "MultiStep": {"milestones": [2]},
    "OneCycle": {"eta_max": 0.2, "total_steps": 10},
    "Poly": {},
    "ReduceOnPlateau": {"monitor": "loss", "rule": "less"},
    "Step": {"step_size": 2},
}


def test_all_schedulers_of_mmengine_are_listed():
    names = {
        name.removesuffix("LR") for name in PARAM_SCHEDULERS.module_dict if name.endswith("LR")
    }
    assert names == set(SCHEDULERS)


@pytest.mark.parametrize("name", [*SCHEDULERS, "OneCycle, linear"])
def test_state_of_a_schedule_loads_and_continues(tmp_path, name):
    name, _, strategy = name.partition(", ")
    options = SCHEDULERS[name] | ({"anneal_strategy": strategy} if strategy else {})

    def build():
        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(2))], 0.1, momentum=0.9)
        return PARAM_SCHEDULERS.build({"type": f"{name}LR", "optimizer": optimizer, **options})

    def steps(schedule, count):
        for _ in range(count):
            schedule.optimizer.step()
            schedule.step(*([{"loss": 1.0}] if name == "ReduceOnPlateau" else []))
        return schedule.optimizer.param_groups

    whole, begun, resumed = build(), build(), build()
    steps(begun, 2)
    path = tmp_path / "epoch_1.pth"
    state = {"optimizer": begun.optimizer.state_dict(), "param_schedulers": begun.state_dict()}
    torch.save(state, path)
    loaded = load_checkpoint_file(path)
    resumed.optimizer.load_state_dict(loaded["optimizer"])
    resumed.load_state_dict(loaded["param_schedulers"])
    [got], [want] = steps(resumed, 3), steps(whole, 5)
    assert got["lr"] == want["lr"] and got["momentum"] == want["momentum"]


def test_training_state_of_mmengine_loads(tmp_path):
    hub = MessageHub.get_instance("test_checkpoint")
    hub.update_scalar("train/loss", 1.5)
    hub.update_info("eta", np.float64(3.0))
    model = torch.nn.Linear(2, 2)
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
    model(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    content = {
        "meta": {"epoch": 1, "dataset_meta": {"classes": ("a",), "palette": np.arange(3)}},
        "state_dict": model.state_dict(),
        "message_hub": hub.state_dict(),
        "optimizer": optimizer.state_dict(),
    }
    path = tmp_path / "epoch_1.pth"
    torch.save(content, path)
    loaded = load_checkpoint_file(path, "cpu")
    assert loaded["message_hub"]["log_scalars"]["train/loss"].statistics("mean") == 1.5
    assert loaded["message_hub"]["runtime_info"]["eta"] == 3.0
    assert torch.equal(loaded["state_dict"]["weight"], model.weight)
    assert loaded["meta"]["dataset_meta"]["palette"].tolist() == [0, 1, 2]


def truncated():
    file = io.BytesIO()
    torch.save({"state_dict": {"w": torch.zeros(1000)}}, file)
    return file.getvalue()[:2000]


@pytest.mark.parametrize("content", [b"", b"no checkpoint", b"PK\x03\x04broken", truncated()])
def test_damaged_file(tmp_path, content):
    path = tmp_path / "epoch_1.pth"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"epoch_1\.pth.*damaged"):
        load_checkpoint_file(path)


def test_missing_file_names_the_nearest(tmp_path):
    (tmp_path / "epoch_12.pth").touch()
    with pytest.raises(CheckpointError, match=r"nearest: 'epoch_12\.pth'"):
        load_checkpoint_file(tmp_path / "epoch_1.pth")
    with pytest.raises(CheckpointError, match="no folder"):
        load_checkpoint_file(tmp_path / "none" / "epoch_1.pth")


def test_failed_download_says_where_to_put_the_file(tmp_path, monkeypatch):
    def offline(*args, **kwargs):
        raise URLError("no route")

    monkeypatch.setattr(torch.hub, "download_url_to_file", offline)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    install_loaders()
    with pytest.raises(UserError) as caught:
        CheckpointLoader.load_checkpoint("torchvision://resnet50", "cpu", logger="silent")
    message = str(caught.value)
    assert "'torchvision://resnet50'" in message and str(tmp_path / "checkpoints") in message
    assert re.search(r"fetch\n  https://\S+/resnet50-\w+\.pth\nelsewhere", message)
    assert "--cfg-options model.backbone.init_cfg=None" in message
    with pytest.raises(UserError, match="nearest: 'resnet50'"):
        CheckpointLoader.load_checkpoint("torchvision://resnet5o", "cpu", logger="silent")


def test_file_in_the_cache_is_used_without_a_download(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    (tmp_path / "checkpoints").mkdir()
    torch.save({"w": torch.ones(1)}, tmp_path / "checkpoints" / "tiny.pth")
    install_loaders()
    url = "https://example.org/models/tiny.pth"
    loaded = CheckpointLoader.load_checkpoint(url, "cpu", logger="silent")
    assert loaded["w"].item() == 1
