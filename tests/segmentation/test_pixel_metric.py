"""OODPixelMetric against scikit-learn, mmseg's IoU, and itself over ranks."""

import json
import pickle

import numpy as np
import pytest
import torch
from helpers.ood_pixels import CLASSES, QUIET, prediction
from sklearn.metrics import average_precision_score, roc_auc_score

from negvision.errors import ConfigError, OODDataError
from negvision.ood import ood_score
from negvision.ood.records import OODRecords
from negvision.segmentation.metrics import OODPixelMetric, pixel_counts
from negvision.segmentation.metrics.components import Overlaps, component_overlaps


def metric_of(samples, **options):
    metric = OODPixelMetric(**{**QUIET, **options})
    metric.dataset_meta = {"classes": CLASSES}
    for start in range(0, len(samples), 2):
        metric.process(None, [sample.to_dict() for sample in samples[start : start + 2]])
    return metric


def evaluated(samples, **options):
    return metric_of(samples, **options).evaluate(len(samples))


def pixels(samples, name):
    """Scores and truths of all valid pixels."""
    scores, truth = [], []
    for sample in samples:
        valid = sample.gt_ood_map.data[0] != 255
        t = sample.temperature.data[0] if "temperature" in sample else None
        values = ood_score(name, sample.seg_logits.data, t, dim=0)
        scores.append(values[valid].numpy())
        truth.append((sample.gt_ood_map.data[0][valid] == 1).numpy())
    return np.concatenate(scores), np.concatenate(truth)


@pytest.mark.parametrize("exact", [True, False])
@pytest.mark.parametrize("temperature", [True, False])
def test_metrics_equal_scikit_learn(exact, temperature):
    samples = [prediction(seed, temperature=temperature) for seed in range(5)]
    values = evaluated(samples, exact=exact)
    tolerance = 1e-9 if exact else 2e-3
    for name in ("abet", "msp", "max_logit", "entropy", "energy"):
        prefix = "ood/" if name == "abet" else f"ood/{name}/"
        scores, truth = pixels(samples, name)
        expected = {
            "auroc": roc_auc_score(truth, scores),
            "ap_out": average_precision_score(truth, scores),
            "ap_in": average_precision_score(~truth, -scores),
        }
        for metric, value in expected.items():
            assert values[prefix + metric] == pytest.approx(value, abs=tolerance), name
    assert values["ood/num_ood"] == truth.sum() and values["ood/num_id"] == (~truth).sum()
    assert values["ood/prevalence"] == pytest.approx(truth.mean())


def test_void_is_ignored():
    samples = [prediction(seed) for seed in range(3)]
    before = evaluated(samples)
    for sample in samples:
        void = sample.gt_ood_map.data[0] == 255
        sample.ood_map.data[:, void] = 1e9
        sample.seg_logits.data[:, void] = -1e9
    after = evaluated(samples)
    assert after == before


def test_repeated_images_of_a_rank_count_once():
    samples = [prediction(seed) for seed in range(3)]
    assert evaluated([*samples, samples[0], samples[2]]) == evaluated(samples)


@pytest.mark.parametrize("exact", [True, False])
@pytest.mark.parametrize(("images", "ranks"), [(5, 2), (4, 2), (7, 3), (2, 4), (1, 3)])
def test_ranks_equal_one_process(images, ranks, exact):
    """Split as by DefaultSampler, which repeats the first images to fill the last batch."""
    samples = [prediction(seed, shift=0.5) for seed in range(images)]
    one = metric_of(samples, exact=exact, scores=("msp",))
    each = -(-images // ranks)
    dealt = (list(range(images)) * (ranks + 1))[: each * ranks]
    parts = [
        metric_of([samples[index] for index in dealt[rank::ranks]], exact=exact, scores=("msp",))
        for rank in range(ranks)
    ]
    # As sent between processes.
    results = one.combine([pickle.loads(pickle.dumps(part.results)) for part in parts])
    merged, single = one.compute_metrics(results), one.compute_metrics(one.results)
    # The same pixels; intervals and strata may differ by the order of images only.
    assert merged == pytest.approx(single, abs=1e-12)


def test_miou_equals_mmseg(capsys):
    from mmseg.evaluation import IoUMetric

    samples = [prediction(seed) for seed in range(4)]
    mmseg = IoUMetric(iou_metrics=["mIoU"])
    mmseg.dataset_meta = {"classes": CLASSES}
    mmseg.process(None, [sample.to_dict() for sample in samples])
    expected = mmseg.evaluate(4)
    values = evaluated(samples)
    assert 100 * values["ood/mIoU"] == pytest.approx(expected["mIoU"], abs=0.006)
    assert 100 * values["ood/pixel_accuracy"] == pytest.approx(expected["aAcc"], abs=0.006)


def test_absent_classes_do_not_lower_the_mean():
    confusion = np.diag([5, 5, 0])
    assert pixel_counts.confusion_metrics(confusion) == {"mIoU": 1.0, "pixel_accuracy": 1.0}
    nothing = pixel_counts.confusion_metrics(np.zeros((3, 3), int))
    assert nothing == {"mIoU": 0.0, "pixel_accuracy": 0.0}


def test_components_use_the_best_threshold():
    samples = [prediction(seed, shift=3.0) for seed in range(4)]
    values = evaluated(samples, exact=True)
    scores, truth = pixels(samples, "abet")
    order = np.unique(scores)
    f1 = [2 * (truth & (scores >= t)).sum() / ((scores >= t).sum() + truth.sum()) for t in order]
    best = order[np.argmax(f1)]
    assert values["ood/pixel_f1"] == pytest.approx(max(f1))
    assert values["ood/f1_threshold"] == pytest.approx(best)
    overlaps = Overlaps()
    for sample in samples:
        unknown = sample.ood_map.data[0].numpy() >= best
        overlaps += component_overlaps(unknown, sample.gt_ood_map.data[0].numpy(), 4, 3)
    assert len(overlaps.siou) == values["ood/num_components"] > 0
    for name, value in overlaps.metrics().items():
        assert values[f"ood/{name}"] == pytest.approx(value)
    assert not any("component" in name for name in evaluated(samples, components=False))


def test_sample_is_bounded_even_and_weighted(monkeypatch):
    monkeypatch.setattr(pixel_counts, "PIXELS_IN_ALL", 300)
    metric = metric_of([prediction(seed) for seed in range(9)])
    [counts] = metric.results
    records = metric.records([counts])
    assert len(records.is_ood) <= 300
    # All images are thinned to the same number of pixels of each kind.
    kept = [(image.is_ood.sum(), (~image.is_ood).sum()) for image in counts.images.values()]
    assert len(set(kept)) == 1 and kept[0][0] == kept[0][1]
    for kind, total in ((True, "num_ood"), (False, "num_id")):
        weight = records.weights[records.is_ood == kind].sum()
        assert weight == pytest.approx(sum(getattr(i, total) for i in counts.images.values()))
    spread = pixel_counts._spread(np.arange(100, 200), 4)
    assert spread.tolist() == [112, 137, 162, 187]
    assert pixel_counts._spread(np.arange(3), 4).tolist() == [0, 1, 2]


def test_table_and_file(tmp_path, capsys):
    samples = [prediction(seed, ood_share=0.02 * seed, shift=2.0) for seed in range(15)]
    values = evaluated(samples, scores_file=str(tmp_path / "scores.npz"), resamples=50)
    printed = capsys.readouterr().out
    for text in (
        "OOD pixels: ",
        "metrics: over every pixel, within ",
        "of the exact values; intervals and strata over ",
        "mIoU: ",
        f"image_auroc_worst: {values['ood/image_auroc_worst']:.4f}",
        "95 % over images",
        "predicted class",
        "up to 5 %",
        "components: OOD objects with at least 3 pixels; ",
    ):
        assert text in printed, text
    assert f"{'abet':<9}{values['ood/auroc']:>12.4f}" in printed
    records = OODRecords.load(tmp_path / "scores.npz")
    assert records.task == "pixels" and next(iter(records.scores)) == "abet"
    assert records.classes == list(CLASSES) and len(records.paths) == 15
    assert json.dumps(dict(records.notes))
    # The twelve images with the lowest AUROC among those with OOD pixels.
    aurocs = {
        index: roc_auc_score(truth, scores)
        for index, sample in enumerate(samples)
        for scores, truth in [pixels([sample], "abet")]
        if truth.any()
    }
    worst = sorted(aurocs, key=aurocs.get)[:12]
    assert set(records.heat) == set(worst)
    assert records.heat[worst[0]].shape == (24, 30)


@pytest.mark.parametrize(
    ("damage", "error", "message"),
    [
        (
            lambda s: s.pop("ood_map"),
            ConfigError,
            'to "negvision.AbeTEncoderDecoder"',
        ),
        (lambda s: s.pop("gt_ood_map"), ConfigError, r'"negvision.LoadOODMap", ood_classes=\['),
        (lambda s: s.pop("seg_logits"), ConfigError, "there are no seg_logits to compute 'msp'"),
        (
            lambda s: s["gt_ood_map"].update(data=torch.zeros(1, 3, 4)),
            ConfigError,
            r"gt_ood_map is \(3, 4\) and ood_map \(24, 30\)",
        ),
        (
            lambda s: s["gt_sem_seg"].update(data=torch.zeros(1, 3, 4)),
            ConfigError,
            "load annotations after Resize",
        ),
        (
            lambda s: s["gt_sem_seg"].update(data=torch.full((1, 24, 30), 3)),
            ConfigError,
            "a label is 3, but the data set has 3 classes",
        ),
        (
            lambda s: s["ood_map"]["data"].fill_(float("nan")),
            OODDataError,
            r"0.png, score 'abet': .* OOD scores are not finite",
        ),
        (
            lambda s: s["seg_logits"]["data"].fill_(float("inf")),
            OODDataError,
            "0.png, score 'msp': ",
        ),
    ],
)
def test_bad_samples(damage, error, message):
    sample = prediction(0).to_dict()
    damage(sample)
    metric = metric_of([])
    with pytest.raises(error, match=message):
        metric.process(None, [sample])


@pytest.mark.parametrize(("value", "kind"), [(0, "OOD"), (1, "ID"), (255, "OOD")])
def test_only_one_kind(value, kind):
    sample = prediction(0)
    sample.gt_ood_map.data.fill_(value)
    with pytest.raises(OODDataError, match=f"there is no {kind} sample .*negvision.LoadOODMap"):
        evaluated([sample])


def test_wrong_argument():
    with pytest.raises(ValueError, match="must be at least 1, got 0 and 100"):
        OODPixelMetric(min_component_size=0)
