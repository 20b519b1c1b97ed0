"""The self-adjusting Dice loss against its definition."""

import itertools
import math

import pytest
import torch
from helpers import head_cases, two_stage_cases

from negvision.engine.dice_loss import SelfAdjustingDiceLoss
from negvision.errors import ConfigError
from negvision.registry import MODELS


def definition(logits, labels, sigmoid, alpha, gamma):
    """One row after another, in Python's numbers."""
    losses = []
    for row, label in zip(logits.tolist(), labels.tolist(), strict=True):
        exps = [math.exp(x) for x in row]
        total = 0.0
        for c, x in enumerate(row):
            p = 1 / (1 + math.exp(-x)) if sigmoid else exps[c] / sum(exps)
            y = float(c == label)
            w = (1 - p) ** alpha
            total += 1 - (2 * w * p * y + gamma) / (w * p + y + gamma)
        losses.append(total)
    return torch.tensor(losses, dtype=torch.float64)


@pytest.mark.parametrize("sigmoid", [True, False])
@pytest.mark.parametrize(("alpha", "gamma"), [(0.0, 1.0), (1.0, 1.0), (0.4, 1e-3), (3.0, 0.5)])
def test_it_equals_its_definition(sigmoid, alpha, gamma):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(40, 5, generator=generator, dtype=torch.float64) * 4
    labels = torch.randint(6 if sigmoid else 5, (40,), generator=generator)
    loss = SelfAdjustingDiceLoss(sigmoid, "element", alpha, gamma, loss_weight=2.0)
    wanted = 2 * definition(logits, labels, sigmoid, alpha, gamma)
    near = {"rtol": 0, "atol": 1e-10}
    found = loss(logits, labels, reduction_override="none")
    torch.testing.assert_close(found, wanted, **near)
    torch.testing.assert_close(loss(logits, labels), wanted.mean(), **near)
    weight = torch.rand(40, generator=generator, dtype=torch.float64)
    total = (wanted * weight).sum()
    torch.testing.assert_close(loss(logits, labels, weight, avg_factor=7.0), total / 7, **near)
    # Pixels are rows, and ignored ones count nowhere.
    pixels = logits.view(2, 4, 5, 5).movedim(3, 1)
    map_ = labels.view(2, 4, 5).clone()
    map_[0, 1] = 255
    kept = (map_ != 255).flatten()
    found = loss(pixels, map_, ignore_index=255)
    torch.testing.assert_close(found, wanted[kept].mean(), **near)
    factors = [0.5, 1.0, 2.0, 3.0, 4.0]
    loss.class_weight = factors
    wanted = wanted * torch.tensor([*factors, 1.0], dtype=torch.float64)[labels]
    torch.testing.assert_close(loss(logits, labels), wanted.mean(), **near)


@pytest.mark.parametrize("sigmoid", [True, False])
@pytest.mark.parametrize(("alpha", "gamma"), [(0.0, 1.0), (1.0, 1.0), (0.4, 1e-3), (3.0, 0.5)])
def test_over_a_batch_it_equals_its_definition(sigmoid, alpha, gamma):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(40, 5, generator=generator, dtype=torch.float64) * 4
    labels = torch.randint(6 if sigmoid else 5, (40,), generator=generator)
    labels[3] = 255  # no class and ignored
    weight = torch.rand(40, generator=generator, dtype=torch.float64)
    factors, wanted = [0.5, 1.0, 2.0, 3.0, 4.0], []
    for c, factor in enumerate(factors):
        both = p_sum = y_sum = 0.0
        for row, label, v in zip(logits.tolist(), labels.tolist(), weight.tolist(), strict=True):
            if label == 255:
                continue
            exps = [math.exp(x) for x in row]
            p = 1 / (1 + math.exp(-row[c])) if sigmoid else exps[c] / sum(exps)
            w = (1 - p) ** alpha
            both += v * w * p * (c == label)
            p_sum += v * w * p
            y_sum += v * (c == label)
        wanted.append(3 * factor * (1 - (2 * both + gamma) / (p_sum + y_sum + gamma)))
    wanted = torch.tensor(wanted, dtype=torch.float64)
    loss = SelfAdjustingDiceLoss(
        sigmoid, "batch", alpha, gamma, class_weight=factors, loss_weight=3.0
    )
    near = {"rtol": 0, "atol": 1e-10}
    for reduction, value in (("none", wanted), ("sum", wanted.sum()), ("mean", wanted.mean())):
        # No number of positives divides it: it is a share already.
        found = loss(logits, labels, weight, 7.0, reduction, ignore_index=255)
        torch.testing.assert_close(found, value, **near)


def test_few_positives_outweigh_many_negatives_only_over_a_batch():
    """As for the anchors of a detector, whose probabilities begin at 0.01: a common bias."""
    labels = torch.ones(20_000, dtype=torch.long)
    labels[:20] = 0

    def slope(labels, **options):
        bias = torch.tensor(-4.6, requires_grad=True)
        loss = SelfAdjustingDiceLoss(use_sigmoid=True, **options)
        loss(bias.expand(len(labels), 1), labels, avg_factor=20.0).backward()
        return bias.grad.item()

    for alpha in (0.0, 1.0):
        assert slope(labels, alpha=alpha, over="element") > 0  # all fall, the positives too
        rise = slope(labels, alpha=alpha)
        assert rise < 0
        # A level of the pyramid without positives pulls less,
        assert 0 < slope(labels[20:2000], alpha=alpha) < -rise / 2
        # but more with the smoothing of single elements.
        assert slope(labels[20:2000], alpha=alpha, gamma=1.0) > -rise


@pytest.mark.parametrize("sigmoid", [True, False])
def test_a_power_of_0_gives_the_dice_loss_of_monai(sigmoid):
    monai = pytest.importorskip("monai.losses", reason="MONAI is not installed")
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(200, 5, generator=generator, dtype=torch.float64) * 4
    labels = torch.randint(5, (200,), generator=generator)
    for gamma in (1.0, 1e-3):
        smooth = {"smooth_nr": gamma, "smooth_dr": gamma, "reduction": "none"}
        theirs = monai.DiceLoss(sigmoid=sigmoid, softmax=not sigmoid, **smooth)
        hot = torch.nn.functional.one_hot(labels, 5).double()
        wanted = theirs(logits[..., None], hot[..., None]).flatten(1).sum(1)
        loss = SelfAdjustingDiceLoss(sigmoid, "element", alpha=0.0, gamma=gamma)
        found = loss(logits, labels, reduction_override="none")
        torch.testing.assert_close(found, wanted, rtol=0, atol=1e-10)
        theirs.batch = True
        wanted = theirs(logits[..., None], hot[..., None]).flatten()
        loss = SelfAdjustingDiceLoss(sigmoid, "batch", alpha=0.0, gamma=gamma)
        found = loss(logits, labels, reduction_override="none")
        torch.testing.assert_close(found, wanted, rtol=0, atol=1e-10)


def test_the_weight_has_no_gradient():
    """So certainty is best: with a gradient, a positive would be pulled back from p = 1."""
    loss = SelfAdjustingDiceLoss(use_sigmoid=True, over="element", alpha=2.0)
    for x in (-20.0, -1.0, 0.0, 3.0, 8.0):
        for label, sign in ((0, -1), (1, 1)):
            logits = torch.tensor([[x]], dtype=torch.float64, requires_grad=True)
            loss(logits, torch.tensor([label])).backward()
            assert logits.grad.item() * sign > 0


@pytest.mark.parametrize("value", [-1e4, 0.0, 1e4])
def test_degenerate_input_has_finite_gradients(value):
    for sigmoid, over in itertools.product((True, False), ("element", "batch")):
        for alpha in (0.0, 0.5, 1.0):
            loss = SelfAdjustingDiceLoss(sigmoid, over, alpha)
            logits = torch.tensor([[value, 0.0]], requires_grad=True)
            for label in (0, 1, 2, -1):
                total = loss(logits, torch.tensor([label]))
                total.backward()
                assert total.isfinite() and logits.grad.isfinite().all()
            none = loss(logits[:0], torch.zeros(0, dtype=torch.int64))
            assert none == 0
            ignored = loss(logits, torch.tensor([255]), ignore_index=255)
            assert ignored == 0 and loss(logits, torch.tensor([0]), avg_factor=0.0).isfinite()


def test_arguments_are_checked():
    for wrong in (
        {"alpha": -1},
        {"gamma": 0},
        {"alpha": math.nan},
        {"class_weight": "auto"},
        {"over": "x"},
    ):
        with pytest.raises(ConfigError, match="SelfAdjustingDiceLoss"):
            SelfAdjustingDiceLoss(**wrong)


def test_heads_of_every_task_take_it():
    dice = {"type": "negvision.SelfAdjustingDiceLoss"}
    for kind in ("negvision.ATSSHead", "mmdet.RetinaHead"):
        assigner = {"type": "mmdet.MaxIoUAssigner", "pos_iou_thr": 0.5, "neg_iou_thr": 0.4}
        train = {"assigner": assigner} if "Retina" in kind else None
        head = head_cases.dense_head(kind, train=train, loss_cls={**dice, "use_sigmoid": True})
        truth, metas = head_cases.batch(0)
        losses = head.loss_by_feat(*head(head_cases.features(1)), truth, metas)
        assert sum(losses["loss_cls"]).isfinite() and sum(losses["loss_cls"]) > 0
    model = two_stage_cases.detector({"type": "Shared2FCBBoxHead", "loss_cls": dice})
    losses = two_stage_cases.losses_of(model, two_stage_cases.batch(model, True))
    assert losses["loss_cls"] > 0
    pixels = MODELS.build({
        "type": "mmseg.FCNHead", "in_channels": 8, "channels": 8, "num_convs": 1, "num_classes": 3,
        "loss_decode": dice,
    })  # fmt: skip
    from mmengine.structures import PixelData
    from mmseg.structures import SegDataSample

    labels = torch.randint(3, (1, 8, 8), generator=torch.Generator().manual_seed(0))
    sample = SegDataSample(gt_sem_seg=PixelData(data=labels))
    losses = pixels.loss([torch.randn(1, 8, 8, 8)], [sample], {})
    assert losses["loss_dice"] > 0
    images = {
        "backbone": {"type": "negvision.ResNetCIFAR", "depth": 20}, "num_classes": 3,
        "in_features": 64,
    }  # fmt: skip
    for kind in ("negvision.OODClassifier", "negvision.AbeTClassifier"):
        built = MODELS.build({"type": kind, **images, "loss": dice})
        assert isinstance(built.loss, SelfAdjustingDiceLoss)
