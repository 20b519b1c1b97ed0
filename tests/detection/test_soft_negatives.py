"""Negatives with high scores lose weight after the warm-up, and nothing else changes."""

from types import SimpleNamespace

import pytest
import torch
from mmdet.models.losses import CrossEntropyLoss, FocalLoss, QualityFocalLoss
from torch import nn

from negvision.detection.soft_negatives import SoftNegatives
from negvision.errors import ConfigError

CLASSES, PRIORS = 3, 40
LOSSES = {
    "focal": FocalLoss(),
    "sigmoid": CrossEntropyLoss(use_sigmoid=True),
    "softmax": CrossEntropyLoss(),
    "quality": QualityFocalLoss(),
}


class Head(nn.Module):
    """A head as mmdet's, with logits as its weights."""

    def __init__(self, loss: nn.Module, columns: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.logits = nn.Parameter(3 * torch.randn(PRIORS, columns, generator=generator))
        self.loss_cls = loss


def runner_of(model: nn.Module, iteration: int) -> SimpleNamespace:
    return SimpleNamespace(model=model, iter=iteration, max_iters=10)


def loss_of(head: Head, kind: str, labels, weight, hook=None, iteration: int = 0):
    """Loss and gradient of one step."""
    target = (labels, (labels < CLASSES).float() / 2) if kind == "quality" else labels
    head.zero_grad()
    if hook is not None:
        hook.before_train_iter(runner_of(head, iteration), 0)
    value = head.loss_cls(head.logits, target, weight, avg_factor=5.0)
    value.backward()
    return value.detach(), head.logits.grad.clone()


@pytest.mark.parametrize("kind", LOSSES)
def test_only_negatives_with_high_scores_weigh_less_after_the_warm_up(kind):
    head = Head(LOSSES[kind], CLASSES + (kind == "softmax"))
    labels = torch.arange(PRIORS) % (CLASSES + 1)
    weight = (torch.arange(PRIORS) % 5 > 0).float()
    hook = SoftNegatives(threshold=0.6, warmup=0.5)
    plain = loss_of(head, kind, labels, weight)
    slow = weight.clone()
    for row, logits in enumerate(head.logits.detach()):
        score = 1 - logits.softmax(0)[-1] if kind == "softmax" else logits.sigmoid().max()
        if labels[row] == CLASSES and score > 0.6:
            slow[row] *= (1 - score) / 0.4
    assert (slow < weight).any()
    wanted = loss_of(head, kind, labels, slow)
    hook.before_train(runner_of(head, 0))
    before = loss_of(head, kind, labels, weight, hook, 4)
    assert all(torch.equal(*pair) for pair in zip(before, plain, strict=True))
    after = loss_of(head, kind, labels, weight, hook, 5)
    torch.testing.assert_close(after, wanted)
    hook.after_train_iter(runner_of(head, 5), 0)
    assert torch.equal(loss_of(head, kind, labels, weight)[0], plain[0])  # as in an evaluation
    # Without a weight, and without a prior.
    hook.before_train_iter(runner_of(head, 9), 0)
    if kind != "quality":
        free = head.loss_cls(head.logits, labels, avg_factor=5.0)
        ones = torch.where(weight > 0, slow, hook.weights(head.logits, labels, kind != "softmax"))
        hook.after_train(runner_of(head, 9))
        torch.testing.assert_close(free, head.loss_cls(head.logits, labels, ones, avg_factor=5.0))
    hook.after_train(runner_of(head, 9))
    assert torch.equal(loss_of(head, kind, labels, weight)[0], plain[0])


def test_one_hot_labels_and_no_prior():
    hook = SoftNegatives(threshold=0.0)
    logits = torch.tensor([[0.0, -9.0], [0.0, -9.0]])
    assert hook.weights(logits, torch.tensor([[0, 1], [0, 0]]), True).tolist() == [1, 0.5]
    head = Head(FocalLoss(), CLASSES)
    hook.before_train(runner_of(head, 0))
    hook.before_train_iter(runner_of(head, 10), 0)
    assert head.loss_cls(head.logits[:0], torch.zeros(0, dtype=torch.int64), avg_factor=1.0) == 0


def test_what_would_not_act_is_refused():
    for options in ({"threshold": 1}, {"threshold": -0.1}, {"warmup": 1.1}):
        with pytest.raises(ConfigError, match=r"threshold must be from 0 to below 1"):
            SoftNegatives(**options)
    with pytest.raises(ConfigError, match="no part of the model has a classification loss"):
        SoftNegatives().before_train(runner_of(nn.Linear(2, 2), 0))
