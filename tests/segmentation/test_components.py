"""Component-level metrics against the definitions on sets of pixels."""

import numpy as np
import pytest
import torch

from negvision.ood import score_curve
from negvision.segmentation.metrics.components import (
    THRESHOLDS,
    Overlaps,
    PackedMap,
    best_f1_threshold,
    component_overlaps,
)


def regions(mask):
    """Components as sets of pixels, grown one pixel at a time."""
    left = {tuple(place) for place in np.argwhere(mask)}
    found = []
    while left:
        region, border = set(), [left.pop()]
        while border:
            y, x = border.pop()
            region.add((y, x))
            for near in ((y + a, x + b) for a in (-1, 0, 1) for b in (-1, 0, 1)):
                if near in left:
                    left.remove(near)
                    border.append(near)
        found.append(region)
    return found


def oracle(unknown, ood_map, min_predicted, min_object):
    """sIoU and PPV by their definitions (Chan et al., section 4.2)."""
    predicted = [r for r in regions(unknown & (ood_map != 255)) if len(r) >= min_predicted]
    truth = regions(ood_map == 1)
    small = set().union(*[r for r in truth if len(r) < min_object])
    truth = [r for r in truth if len(r) >= min_object]
    predicted = [r - small for r in predicted]
    siou = []
    for k in truth:
        touching = set().union(*[p for p in predicted if p & k])
        others = set().union(*[other for other in truth if other is not k])
        siou.append(len(k & touching) / len((k | touching) - others))
    any_truth = set().union(*truth)
    ppv = [len(p & any_truth) / len(p) for p in predicted if p]
    return sorted(siou), sorted(ppv)


def f1_oracle(siou, ppv):
    values = []
    for threshold in THRESHOLDS:
        tp = sum(value >= threshold for value in siou)
        fn = len(siou) - tp
        fp = sum(value < threshold for value in ppv)
        values.append(2 * tp / (2 * tp + fn + fp) if tp + fn + fp else 0.0)
    return np.mean(values)


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("sizes", [(1, 1), (4, 2), (2, 5)])
def test_random_maps_equal_the_oracle(seed, sizes):
    rng = np.random.default_rng(seed)
    density = rng.uniform(0.05, 0.5)
    ood_map = rng.choice([0, 1, 255], (14, 17), p=[0.9 - density, density, 0.1]).astype(np.uint8)
    unknown = rng.random(ood_map.shape) < density
    overlaps = component_overlaps(unknown, ood_map, *sizes)
    siou, ppv = oracle(unknown, ood_map, *sizes)
    assert sorted(overlaps.siou) == pytest.approx(siou)
    assert sorted(overlaps.ppv) == pytest.approx(ppv)
    metrics = overlaps.metrics()
    assert metrics["component_f1"] == pytest.approx(f1_oracle(siou, ppv))
    if siou:
        assert metrics["component_siou"] == pytest.approx(np.mean(siou))
    if ppv:
        assert metrics["component_ppv"] == pytest.approx(np.mean(ppv))


def test_one_prediction_over_two_objects_has_no_penalty():
    truth = np.zeros((4, 9), np.uint8)
    truth[:, :4] = truth[:, 5:] = 1
    overlaps = component_overlaps(np.ones((4, 9), bool), truth, 1, 1)
    # The column between them is all that is too much.
    assert overlaps.siou == pytest.approx([16 / 20, 16 / 20])
    assert overlaps.ppv == pytest.approx([32 / 36])


def test_metrics_on_the_thresholds():
    """0.5 is one of them: an object at it is found, a prediction at it is no false positive."""
    assert len(THRESHOLDS) == 11 and THRESHOLDS[5] == 0.5
    metrics = Overlaps(np.array([0.5]), np.array([0.5])).metrics()
    # Found at six thresholds without a false positive, missed at five with one.
    assert metrics["component_f1"] == pytest.approx(6 / 11)


@pytest.mark.parametrize("unknown", [False, True])
@pytest.mark.parametrize("value", [0, 255])
def test_no_object(unknown, value):
    overlaps = component_overlaps(np.full((4, 4), unknown), np.full((4, 4), value, np.uint8), 1, 1)
    assert len(overlaps.siou) == 0 and len(overlaps.ppv) == (unknown and value == 0)
    assert overlaps.metrics() == {"component_f1": 0, "component_siou": 0, "component_ppv": 0}


def test_best_threshold_equals_trying_all():
    generator = torch.Generator().manual_seed(0)
    scores = torch.randint(0, 20, (200,), generator=generator).float()
    is_ood = torch.rand(200, generator=generator) < scores / 30
    threshold, f1 = best_f1_threshold(score_curve(scores, is_ood))
    tried = {}
    for value in scores.unique().tolist():
        called = scores >= value
        tp = int((called & is_ood).sum())
        tried[value] = 2 * tp / (int(called.sum()) + int(is_ood.sum()))
    assert f1 == pytest.approx(max(tried.values()))
    assert tried[threshold] == pytest.approx(f1)


def test_packed_maps_are_lossless():
    rng = np.random.default_rng(0)
    scores = rng.normal(-5, 3, (30, 50)).astype(np.float32)
    scores[0, :4] = [0.0, -0.0, -1e12, 3e38]
    ood_map = rng.choice([0, 1, 255], (30, 50)).astype(np.uint8)
    packed = PackedMap(scores, ood_map)
    assert packed.scores().tobytes() == scores.tobytes()
    assert np.array_equal(packed.ood_map(), ood_map)
