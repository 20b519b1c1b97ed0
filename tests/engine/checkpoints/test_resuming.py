"""A checkpoint is resumed by the training that wrote it, and by no other."""

from collections import OrderedDict

import pytest
import torch
from helpers.tiny_training import BATCH, Noisy, loader, make_runner
from torch import nn

from negvision.engine.checkpoints.resuming import state_to_resume
from negvision.errors import CheckpointError

CLASSES = ("square", "disc")


def model(classes=2, wide=False) -> nn.Module:
    parts = {"stem": nn.Conv2d(3, 8 if wide else 4, 1), "head": nn.Linear(4, classes)}
    return nn.ModuleDict(parts)


def sgd(net: nn.Module, **options) -> torch.optim.Optimizer:
    return torch.optim.SGD(net.parameters(), 0.1, momentum=0.9, **options)


def checkpoint(net=None, optimizer=None, **meta) -> dict:
    net = net or model()
    optimizer = optimizer or sgd(net)
    return {
        "meta": {"epoch": 2, "iter": 8, "dataset_meta": {"classes": CLASSES}, **meta},
        "state_dict": net.state_dict(),
        "message_hub": {},
        "optimizer": optimizer.state_dict(),
    }


def resume(content, net=None, optimizers=None, averages=False, **meta):
    net = net or model()
    own = {"classes": list(CLASSES), **meta}
    optimizers = optimizers or [sgd(net)]
    return state_to_resume(content, "a.pth", net, optimizers, own, averages)


def test_the_same_training_is_resumed():
    content = checkpoint()
    for change in (
        {},
        {"state_dict": OrderedDict((f"module.{k}", v) for k, v in content["state_dict"].items())},
        {"meta": {"epoch": 2, "iter": 8}},  # of older versions
        {"meta": {"epoch": 2, "iter": 8, "dataset_meta": {"classes": None}}},
    ):
        found = resume(content | change)
        assert found["state_dict"].keys() == content["state_dict"].keys()


@pytest.mark.parametrize(
    ("content", "own", "says"),
    [
        (checkpoint(), {"classes": ["square", "disc", "star"], "net": model(3)},
         ["classes of the checkpoint:  square, disc (2)", "data now:    square, disc, star (3)",
          "head.weight (2, 4), in the model (3, 4)"]),
        (checkpoint(), {"classes": ["disc", "square"]}, ["square, disc (2)", "disc, square (2)"]),
        (checkpoint(), {"classes": ["square", "ring"]}, ["square, ring (2)"]),
        (checkpoint(dataset_meta={"num_classes": 10_572}), {"num_classes": 85_742},
         ["identities of the checkpoint:  10,572", "identities of the data now:    85,742"]),
        (checkpoint(dataset_meta={"num_classes": 2, "identities": "ann bob"}),
         {"num_classes": 2, "identities": "ann eve"}, ["as many as before, but other names"]),
        (checkpoint(model(5)), {}, ["head.weight (5, 4), in the model (2, 4)"]),
        (checkpoint(model(wide=True)), {}, ["stem.weight (8, 3, 1, 1), in the model (4, 3, 1, 1)"]),
        (checkpoint(nn.ModuleDict({"stem": nn.Conv2d(3, 4, 1)})), {},
         ["weights that it lacks:  head.weight, head.bias", "groups of the optimizer:  2, now 4"]),
        (checkpoint(nn.ModuleDict({**model(), "neck": nn.Linear(2, 2)})), {},
         ["weights that the model has not:  neck.weight, neck.bias"]),
        (checkpoint(optimizer=torch.optim.AdamW(model().parameters())), {},
         ["settings of the optimizer:  amsgrad, betas", "in SGD dampening, momentum"]),
        (checkpoint(), {"optimizers": [sgd(model()), sgd(model())]}, ["optimizers:  1, now 2"]),
    ],
)  # fmt: skip
def test_another_training_is_refused(content, own, says):
    with pytest.raises(CheckpointError, match=r"^--resume a\.pth: another training") as caught:
        resume(content, **own)
    message = str(caught.value)
    assert all(part in message for part in says), message
    assert message.endswith("--cfg-options load_from=a.pth")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ({"state_dict": model().state_dict(), "meta": {}}, "epoch, iter, optimizer, message_hub"),
        (model().state_dict(), "epoch, iter, optimizer, message_hub missing"),
        ({k: v for k, v in checkpoint().items() if k != "optimizer"}, ": optimizer missing"),
    ],
)
def test_weights_alone_are_refused(content, says):
    with pytest.raises(CheckpointError, match="no state of a training") as caught:
        resume(content)
    assert says in str(caught.value) and "load_from=a.pth" in str(caught.value)


def test_without_averages_the_weights_of_the_last_step_continue():
    """The optimizer's state belongs to them; MMEngine would take the averages."""
    content = checkpoint()
    content["ema_state_dict"] = {f"module.{k}": v + 1 for k, v in content["state_dict"].items()}
    for averages, shift in ((True, 0), (False, 1)):
        state = resume(content, averages=averages)["state_dict"]
        assert torch.equal(state["head.bias"], content["state_dict"]["head.bias"] + shift)


class Named(Noisy):
    def __init__(self, *classes):
        super().__init__()
        self.metainfo = {"classes": classes}


def test_a_run_is_refused_before_its_first_step(tmp_path):
    runner = make_runner(tmp_path, train_dataloader=loader(Named("a", "b"), batch=BATCH))
    runner.train()
    data = Named("b", "a")
    other = make_runner(
        tmp_path / "b",
        train_dataloader=loader(data, batch=BATCH),
        resume=True,
        load_from=str(tmp_path / "epoch_2.pth"),
    )
    with pytest.raises(CheckpointError, match=r"data now: *b, a"):
        other.train()
    assert not data.asked


def test_a_new_run_takes_what_fits(tmp_path):
    """Also with averages, whose hook has all weights then."""
    make_runner(tmp_path, ema=True).train()
    content = torch.load(tmp_path / "epoch_3.pth", weights_only=False)
    bare = {k: v for k, v in content["state_dict"].items() if not k.startswith("last")}
    torch.save({"model": bare}, tmp_path / "bare.pth")
    settings = {"load_from": str(tmp_path / "bare.pth"), "ema": True}
    begun = make_runner(tmp_path / "b", **settings)
    begun.call_hook("before_run")
    begun._weights_for = "training"
    begun.load_or_resume()
    [averages] = [hook.ema_model.module for hook in begun.hooks if hasattr(hook, "ema_model")]
    for name, weight in averages.state_dict().items():
        assert torch.equal(weight, begun.model.state_dict()[name])
        assert torch.equal(weight, content["state_dict"][name]) != name.startswith("last")
    torch.save({"model": {"other": torch.ones(1)}}, tmp_path / "bare.pth")
    with pytest.raises(CheckpointError, match="none of its weights fit"):
        make_runner(tmp_path / "c", **settings).train()
