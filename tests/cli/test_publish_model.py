"""From a checkpoint to a published file that tests the same."""

import json

import pytest
import torch
from helpers.commands import command

publish = command("publish-model")
evaluate = command("test")
train = command("train")


@pytest.fixture
def trained(tiny_config, tmp_path):
    with tiny_config.open("a") as file:
        file.write('custom_hooks = [dict(type="EMAHook")]\nrandomness = dict(seed=0)\n')
    assert train(tiny_config, "--work-dir", tmp_path / "run") == 0
    return tiny_config, tmp_path / "run/epoch_1.pth"


def test_published_weights_give_the_same_detections(trained, tmp_path, capsys):
    config, checkpoint = trained
    capsys.readouterr()
    assert publish(checkpoint, "--out", tmp_path / "p/tiny.safetensors") == 0
    [published] = (tmp_path / "p").iterdir()
    assert capsys.readouterr().out.strip() == str(published)
    found = []
    for number, path in enumerate((checkpoint, published)):
        out = tmp_path / f"{number}.json"
        assert evaluate(config, path, "--out", out, "--work-dir", tmp_path / "w") == 0
        found.append(json.loads(out.read_text()))
    assert found[0] == found[1] and len(found[0]) > 8
    # Training starts from it as well.
    options = ["--work-dir", tmp_path / "on", "--cfg-options", f"load_from={published}"]
    assert train(config, *options) == 0


def test_refusals(trained, tmp_path, capsys):
    _, checkpoint = trained
    for out, says in (("a.pth", "give a file NAME.safetensors"), (".safetensors", "give a file")):
        assert publish(checkpoint, "--out", tmp_path / out) == 2
        assert says in capsys.readouterr().err
    assert publish(tmp_path / "none.pth", "--out", tmp_path / "a.safetensors") == 2
    assert "does not exist" in capsys.readouterr().err
    content = torch.load(checkpoint, weights_only=False)
    del content["ema_state_dict"]
    torch.save(content, tmp_path / "plain.pth")
    argv = [tmp_path / "plain.pth", "--out", tmp_path / "a.safetensors", "--without-ema"]
    assert publish(*argv) == 2
    assert "no averaged weights" in capsys.readouterr().err
