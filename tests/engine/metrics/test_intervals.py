"""Intervals of accuracy, mean IoU and verification."""

from __future__ import annotations

import logging

import numpy as np
import pytest
import torch
from helpers.face_cases import evaluated, predictions, random_case
from mmengine.logging import MMLogger
from mmseg.evaluation import IoUMetric as MmsegMetric

from negvision import (
    AccuracyMetric,
    IdentificationMetric,
    IoUMetric,
    TemplateVerificationMetric,
    VerificationMetric,
)
from negvision.engine.metric_names_hook import name_patterns
from negvision.face.metrics.identification_metric import identify, probe_figures
from negvision.face.metrics.roc import roc_curve
from negvision.face.metrics.verification_metric import pair_figures


@pytest.fixture
def log(caplog):
    """The text logged by the current MMEngine logger."""
    logger = MMLogger.get_current_instance()
    logger.addHandler(caplog.handler)
    caplog.handler.setLevel(logging.INFO)
    yield caplog
    logger.removeHandler(caplog.handler)


def test_the_interval_of_accuracy_is_binomial(log):
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 3, 300)
    predicted = np.where(generator.random(300) < 0.8, labels, (labels + 1) % 3)
    metric = AccuracyMetric(resamples=1000)
    metric.dataset_meta = {"classes": ("a", "b", "c")}
    samples = [
        {"img_path": f"{i}.jpg", "label": label, "pred_label": found}
        for i, (label, found) in enumerate(zip(labels, predicted, strict=True))
    ]
    metric.process(None, samples)
    values = metric.evaluate(300)
    accuracy = values["classification/accuracy"]
    reach = 1.96 * np.sqrt(accuracy * (1 - accuracy) / 300)
    limits = [values[f"classification/accuracy_{end}"] for end in ("low", "high")]
    assert limits == pytest.approx([accuracy - reach, accuracy + reach], abs=0.006)
    mean = values["classification/mean_recall"]
    assert values["classification/mean_recall_low"] < mean
    assert "95 % intervals, 1,000 resamples of 300 images\naccuracy  " in log.text
    metric.process(None, samples[:1])
    assert not any(name.endswith("low") for name in metric.evaluate(1))


def label_maps(seed):
    generator = np.random.default_rng(seed)
    truth = torch.from_numpy(generator.integers(0, 3, (1, 12, 16)))
    wrong = torch.from_numpy(generator.random((1, 12, 16)) < 0.1 + 0.03 * (seed % 5))
    found = torch.where(wrong, (truth + 1) % 3, truth)
    return {"gt_sem_seg": {"data": truth}, "pred_sem_seg": {"data": found}}


def test_mean_iou_is_that_of_mmseg_with_an_interval(log):
    results = {}
    for kind, options in ((MmsegMetric, {}), (IoUMetric, {}), (IoUMetric, {"resamples": 500})):
        metric = kind(iou_metrics=["mIoU"], **options)
        metric.dataset_meta = {"classes": ("a", "b", "c")}
        metric.process(None, [label_maps(seed) for seed in range(20)])
        results[kind, *options] = metric.evaluate(20)
    plain, same, values = results.values()
    assert same == plain and {name: values[name] for name in plain} == plain
    assert set(values) == set(name_patterns(metric))
    areas = [
        MmsegMetric.intersect_and_union(
            one["pred_sem_seg"]["data"][0], one["gt_sem_seg"]["data"][0], 3, 255
        )
        for one in map(label_maps, range(20))
    ]
    of_images = [float(image[0].sum() / image[3].sum()) for image in areas]
    reach = 196 * np.std(of_images) / np.sqrt(20)
    middle = (values["aAcc_low"] + values["aAcc_high"]) / 2
    assert middle == pytest.approx(values["aAcc"], abs=0.2)
    assert values["aAcc_high"] - middle == pytest.approx(reach, rel=0.1)
    assert values["mIoU_low"] < values["mIoU"] < values["mIoU_high"]
    assert "500 resamples of 20 images: aAcc" in log.text


@pytest.mark.parametrize("scored", [False, True])
def test_segmentations_without_scores_have_no_calibration_error(scored):
    """As those of an exported model, which predicts classes alone."""
    metric = IoUMetric(iou_metrics=["mIoU"], errors=True, resamples=0)
    metric.dataset_meta = {"classes": ("a", "b", "c")}
    samples = [label_maps(seed) for seed in range(3)]
    for sample in samples if scored else ():
        sample["seg_logits"] = {"data": torch.zeros(3, 12, 16)}
    metric.process(None, samples)
    values = metric.evaluate(3)
    assert ("ece" in values) == scored and values["mIoU"] > 0
    if scored:
        assert values["ece"] == pytest.approx(values["aAcc"] / 100 - 1 / 3, abs=1e-4)


def test_people_drawn_twice_count_as_two_people():
    meta, embeddings, labels = random_case(3)
    pairs, same, people = meta["pairs"], meta["same"], labels[meta["pairs"]]
    unit = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
    scores = (unit[pairs[:, 0]] * unit[pairs[:, 1]]).sum(1).round(2)
    weights = np.random.default_rng(0).integers(0, 3, 12)
    figures = pair_figures(scores, same, people, (0.1, 0.01))
    times = np.where(same, weights[people[:, 0]], weights[people].prod(1))
    for drawn, repeats in ((weights, times), (np.ones(12, int), np.ones(len(same), int))):
        curve = roc_curve(np.repeat(scores, repeats), np.repeat(same, repeats))
        expected = [curve.auroc(), curve.at_far(0.1).rate, curve.at_far(0.01).rate]
        assert figures(drawn[None])[0] == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(("known", "drawn"), [(True, "12 people"), (False, "48 images")])
def test_verification_has_intervals(log, known, drawn):
    meta, embeddings, labels = random_case(3)
    metric = VerificationMetric(resamples=200)
    metric.dataset_meta = meta
    values = evaluated(metric, predictions(embeddings, labels if known else None))
    assert f"95 % intervals, 200 resamples of {drawn}\nauc  " in log.text
    for name in ("auc", "tar@far=1e-1"):
        key = f"verification/{name}"
        assert 0 <= values[f"{key}_low"] < values[key] < values[f"{key}_high"] <= 1
    # 600 negative pairs: no TAR at 1e-3, and no interval.
    assert not any("1e-3" in name for name in values)


@pytest.mark.parametrize(("known", "drawn"), [(True, "12 people"), (False, "16 templates")])
def test_templates_have_intervals(log, known, drawn):
    meta, embeddings, labels = random_case(3)
    metric = TemplateVerificationMetric(resamples=200)
    metric.dataset_meta = meta
    values = evaluated(metric, predictions(embeddings, labels if known else None))
    assert f"95 % intervals, 200 resamples of {drawn}\nauc  " in log.text
    key = "template/auc"
    assert 0 <= values[f"{key}_low"] < values[key] < values[f"{key}_high"] <= 1
    assert values[key] == pytest.approx(np.nanmean(metric.draws["auc"]), abs=0.1)
    assert TemplateVerificationMetric().resamples == 0


def test_identification_has_intervals_over_people(log):
    meta, embeddings, labels = random_case(3)
    gallery, probes = meta["gallery"], meta["probes"]
    metric = IdentificationMetric(ranks=(1, 5), fpirs=(0.1,), resamples=200)
    metric.dataset_meta = meta
    values = evaluated(metric, predictions(embeddings, labels))
    assert "95 % intervals, 200 resamples of 12 people\nrank1" in log.text
    for name in ("rank1", "dir@fpir=1e-1"):
        key = f"identification/{name}"
        assert 0 <= values[f"{key}_low"] <= values[key] <= values[f"{key}_high"] <= 1
    # The figures of a draw are those of its probes, as often as their people are drawn.
    owner, inside = labels[probes], np.isin(labels[probes], labels[gallery])
    result = identify(embeddings[gallery], labels[gallery], embeddings[probes], owner)
    figures = probe_figures(result, owner[inside], owner[~inside], (1, 5), (0.1,))
    weights = np.random.default_rng(0).integers(0, 3, (5, 12))
    for row, found in zip(weights, figures(weights), strict=True):
        drawn = np.repeat(probes, row[owner])
        again = identify(embeddings[gallery], labels[gallery], embeddings[drawn], labels[drawn])
        scores = np.concatenate([again.mate_scores, again.impostor_scores])
        highest = max(
            np.mean((again.ranks == 1) & (again.mate_scores >= limit))
            for limit in [*scores, np.inf]
            if np.mean(again.impostor_scores >= limit) <= 0.1
        )
        assert found == pytest.approx([again.rank_rate(1), again.rank_rate(5), highest])


@pytest.mark.parametrize("kind", [AccuracyMetric, IoUMetric, VerificationMetric])
def test_negative_resamples_are_refused(kind):
    with pytest.raises(ValueError, match="resamples must be at least 0, got -1"):
        kind(resamples=-1)
    assert kind().resamples is None
