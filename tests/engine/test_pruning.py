"""Pruning of weights and channels, and the loss that protects a class."""

from types import SimpleNamespace

import pytest
import torch
from helpers.small_models import load_named_config
from mmengine.config import Config
from torch import nn

from negvision.engine.checkpoints.channels import KEY, apply_channels, changed_channels
from negvision.engine.config.stored import config_from_text
from negvision.engine.pruning import (
    ProtectedClassHook,
    check_sparsity,
    classification_losses,
    protected_loss,
    prune_channels,
    ranking_loss,
    require_torch_pruning,
    sparse_masks,
)
from negvision.errors import CheckpointError, ConfigError, UserError
from negvision.inference.weights import build_model


def slow_ranking_loss(scores, positive):
    negatives = [float(score) for score, is_one in zip(scores, positive, strict=True) if not is_one]
    found = [float(score) for score, is_one in zip(scores, positive, strict=True) if is_one]
    short = [max(max(negatives) - score, 0) ** 2 for score in found] if negatives else []
    return sum(short) / (len(found) + 1)


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_ranking_loss_is_its_definition_and_moves_positives_alone(share):
    scores = torch.rand(40, dtype=torch.float64, requires_grad=True)
    positive = torch.rand(40) < share
    loss = ranking_loss(scores, positive)
    assert float(loss) == pytest.approx(slow_ranking_loss(scores, positive), abs=1e-12)
    if 0 < share < 1:
        fixed = scores.detach().clone()
        mixed = lambda one: ranking_loss(torch.where(positive, one, fixed), positive)  # noqa: E731
        assert torch.autograd.gradcheck(mixed, scores)
        loss.backward()
        # Positives below the highest negative go up, and nothing else moves.
        below = positive & (fixed < fixed[~positive].max())
        assert (scores.grad[below] < 0).all()
        assert (scores.grad[~below] == 0).all()


@pytest.mark.parametrize("form", ["labels", "soft", "pair", "map", "softmax"])
def test_all_forms_of_targets_give_the_same_loss(form):
    logits, labels = torch.randn(24, 3), torch.randint(4, (24,))  # 3: background
    weight = (torch.rand(24) < 0.8).float()
    loss = nn.Module()
    loss.use_sigmoid = form != "softmax"
    if form == "softmax":
        logits = torch.cat([logits, torch.randn(24, 1)], 1)
    scores = logits.sigmoid() if loss.use_sigmoid else logits.softmax(1)
    kept = weight.bool()
    expected = ranking_loss(scores[kept, 1], labels[kept] == 1)
    target = labels
    if form == "soft":
        target = nn.functional.one_hot(labels, 4)[:, :3] * torch.rand(24, 1).clamp(min=0.1)
    elif form == "pair":
        target = (labels, torch.rand(24))
    elif form == "map":
        target = labels.masked_fill(~kept, 255).view(2, 3, 4)
        logits = logits.view(2, 3, 4, 3).movedim(-1, 1)
        weight = None
    found = protected_loss(loss, [1], logits, target, weight, avg_factor=3.0)
    assert torch.allclose(found, expected)


def test_the_losses_of_classes_are_found():
    for name, count in {"atss": 1, "faster": 1, "images": 1, "pixels": 1}.items():
        assert len(classification_losses(build_model(load_named_config(name)))) == count
    [inner] = classification_losses(build_model(load_named_config("faster_abet")))
    assert type(inner).__name__ == "CrossEntropyLoss"  # without AbeT's column of temperatures
    assert classification_losses(nn.Linear(2, 2)) == []
    with pytest.raises(ConfigError, match="weight is 0"):
        ProtectedClassHook(["a"], weight=0)


def test_the_hook_adds_to_the_loss_while_it_trains():
    model = build_model(load_named_config("retina"))
    dataset = SimpleNamespace(metainfo={"classes": ("red", "white", "platelets")})
    runner = SimpleNamespace(model=model, train_dataloader=SimpleNamespace(dataset=dataset))
    logits = torch.randn(9, 3, requires_grad=True)
    labels, weight = torch.tensor([2, 2, 0, 1, 3, 3, 3, 3, 3]), torch.ones(9)
    loss = model.bbox_head.loss_cls
    plain = loss(logits, labels, weight, avg_factor=4)
    hook = ProtectedClassHook(["platelets"], weight=0.5)
    hook.before_train(runner)
    added = loss(logits, labels, weight, avg_factor=4) - plain
    assert torch.allclose(added, 0.5 * ranking_loss(logits[:, 2].sigmoid(), labels == 2))
    assert torch.autograd.grad(added, logits)[0][:, 2].count_nonzero() > 1
    hook.after_train(runner)
    assert torch.equal(loss(logits, labels, weight, avg_factor=4), plain)
    with pytest.raises(ConfigError, match="no class 'platelet'; nearest: 'platelets'"):
        ProtectedClassHook(["platelet"]).before_train(runner)


@pytest.mark.parametrize("with_start", [True, False])
def test_masks_keep_what_grew_and_what_is_0_stays_0(with_start):
    now, start = torch.randn(6, 5), torch.randn(6, 5)
    now[0] = 0
    before = {"w": start} if with_start else None
    mask = sparse_masks({"w": now}, before, 0.5)["w"]
    score = now.abs() - start.abs() if with_start else now.abs()
    score[0] = -torch.inf
    lowest = sorted(range(30), key=lambda place: float(score.flatten()[place]))[:15]
    assert sorted((~mask).flatten().nonzero().flatten().tolist()) == sorted(lowest)
    again = sparse_masks({"w": now * mask}, before, 0.6)["w"]
    assert not (again & ~mask).any() and (~again).sum() == 18
    # Frozen weights have not grown: the smallest go.
    frozen = sparse_masks({"w": start}, {"w": start}, 0.5)["w"]
    assert start[~frozen].abs().max() <= start[frozen].abs().min()


@pytest.mark.parametrize(
    ("weights", "sparsity", "words"),
    [
        ({}, 0.5, "no convolution and no linear layer: there is nothing to prune"),
        (
            {"a.weight": torch.ones(9), "b.weight": torch.ones(99)},
            0.96,
            r"layer a, .* at most 0.888",
        ),
        ({"a.weight": torch.ones(4)}, 0.1, "no layer is large enough to lose a weight"),
    ],
)
def test_a_sparsity_that_cannot_be_is_refused(weights, sparsity, words):
    with pytest.raises(UserError, match=words):
        check_sparsity(weights, sparsity)


# Heads of several levels, feature pyramids, fused normalizations, two stages, pixels, images, and a
# head that is no linear layer.
MODELS = ["atss", "lite", "retina", "abet", "faster", "faster_abet", "pixels", "images"]


@pytest.mark.parametrize("name", MODELS)
def test_pruned_channels_travel_in_the_config(name):
    pytest.importorskip("torch_pruning", reason="torch-pruning is not installed")
    cfg = load_named_config(name)
    full, model = build_model(cfg).eval(), build_model(cfg).eval()
    count = sum(one.numel() for one in model.parameters())
    images = torch.rand(1, 3, 64, 64)

    def reached(one):
        return sum(p.numel() for p in one.parameters()) < 0.5 * count

    assert prune_channels(model, images, reached, 0.5)
    cfg[KEY] = changed_channels(model, full)
    again = build_model(config_from_text(Config(cfg.to_dict()).pretty_text, "a.pth")).eval()
    again.load_state_dict(model.state_dict())
    features = (one.backbone(images)[-1] for one in (model, again))
    assert torch.equal(*features)
    # Detections need the outputs that they had.
    for key, value in full.state_dict().items():
        if key.endswith(("cls.weight", "reg.weight", "conv_seg.weight", "fc_cls.weight")):
            assert again.state_dict()[key].shape[0] == value.shape[0]


def test_groups_of_a_normalization_keep_their_size():
    pytest.importorskip("torch_pruning", reason="torch-pruning is not installed")
    norm = {"type": "GN", "num_groups": 4, "requires_grad": True}
    cfg = load_named_config("atss")
    cfg.model.bbox_head.norm_cfg = norm
    model = build_model(cfg)
    prune_channels(model, torch.rand(1, 3, 64, 64), lambda one: False, 0.01)
    groups = [one for one in model.modules() if isinstance(one, nn.GroupNorm)]
    assert groups and all(one.num_channels == 4 == one.num_groups for one in groups)


@pytest.mark.parametrize(
    ("channels", "words"),
    [
        ({"2": [4]}, "the model has no such layer"),
        ({"0": [16, 3, 1]}, r"\[16, 3, 1\]; in the model it has \[8, 3, 1\]"),
        ({"0": [4, 3]}, "cannot have the sizes"),
        ({"0": [4, 3, 3]}, "cannot have the sizes"),
        ({"0": "os.system"}, "cannot have the sizes"),
        ({"1": [0]}, "cannot have the sizes"),
        ({"1": [True]}, "cannot have the sizes"),
        ({"1": [3]}, "cannot have the sizes"),
    ],
)
def test_channels_that_do_not_fit_are_refused(channels, words):
    net = nn.Sequential(nn.Conv2d(3, 8, 1), nn.GroupNorm(2, 8))
    with pytest.raises(CheckpointError, match=words):
        apply_channels(net, channels)


def test_without_torch_pruning_the_package_is_named(monkeypatch):
    monkeypatch.setattr("negvision.engine.pruning.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"requirements/compress\.txt"):
        require_torch_pruning()
