"""OODImageMetric against scikit-learn over all sets and each set, and over ranks."""

import numpy as np
import pytest
import torch
from helpers.ood_images import QUIET, sample, samples
from sklearn.metrics import average_precision_score, roc_auc_score

from negvision.classification.ood_image_metric import OODImageMetric
from negvision.errors import ConfigError, OODDataError
from negvision.ood import SCORE_NAMES, ood_score
from negvision.ood.records import OODRecords


def metric_of(given, batch=7, **options):
    metric = OODImageMetric(**{**QUIET, **options})
    metric.dataset_meta = {"classes": ("a", "b", "c", "d")}
    for start in range(0, len(given), batch):
        metric.process(None, [s.to_dict() for s in given[start : start + batch]])
    return metric


def evaluated(given, **options):
    return metric_of(given, **options).evaluate(len(given))


def expected_values(given, name):
    scores = [ood_score(name, s.logits, s.get("temperature")).item() for s in given]
    truth, scores = np.array([s.is_ood for s in given]), np.array(scores)
    return {
        "auroc": roc_auc_score(truth, scores),
        "ap_out": average_precision_score(truth, scores),
        "ap_in": average_precision_score(~truth, -scores),
        "fpr95_ood": false_positives(scores[truth], scores[~truth]),
        "fpr95_id": false_positives(-scores[~truth], -scores[truth]),
    }


def false_positives(positives, negatives):
    """Share of negatives at the first threshold that at least 95 % of the positives reach."""
    for threshold in sorted(set(positives), reverse=True):
        if np.mean(positives >= threshold) >= 0.95:
            return np.mean(negatives >= threshold)


@pytest.mark.parametrize("own", ["abet", "msp"])
@pytest.mark.parametrize("temperature", [True, False])
def test_equals_scikit_learn_over_all_and_for_each_source(own, temperature):
    given = samples(own=own, temperature=temperature)
    values = evaluated(given, scores=SCORE_NAMES)
    parts = {"": given}
    for source in ("near", "far"):
        parts[f"{source}/"] = [s for s in given if s.source in ("in", source)]
    for prefix, part in parts.items():
        for name in SCORE_NAMES:
            score = "" if name == own else f"{name}/"
            for metric_name, value in expected_values(part, name).items():
                key = f"ood/{prefix}{score}{metric_name}"
                assert values[key] == pytest.approx(value, abs=1e-12), key
    assert values["ood/num_ood"] == 40 and values["ood/num_id"] == 40
    assert values["ood/prevalence"] == 0.5
    assert f"ood/{own}/auroc" not in values
    assert all(isinstance(value, int | float) for value in values.values())


def test_accuracy_is_of_known_images_with_a_label():
    given = samples((30, 5, 5))
    right = [s.pred_label.item() == s.label.item() for s in given[:30]]
    assert 0 < sum(right) < 30
    assert evaluated(given)["ood/accuracy"] == pytest.approx(sum(right) / 30)
    for s in given[:10]:
        s.label = torch.tensor(-1)
    assert evaluated(given)["ood/accuracy"] == pytest.approx(sum(right[10:]) / 20)
    for s in given:
        s.label = torch.tensor(-1)
    assert "ood/accuracy" not in evaluated(given)


@pytest.mark.parametrize("ranks", [2, 3])
def test_ranks_equal_one_process(ranks):
    """Split as by DefaultSampler, which repeats the first images to fill the last batch."""
    given = samples((21, 13, 9))
    one = metric_of(given)
    each = -(-len(given) // ranks)
    dealt = [given[i % len(given)] for i in range(each * ranks)]
    parts = [metric_of(dealt[rank::ranks]).results for rank in range(ranks)]
    merged = one.compute_metrics(one.combine(parts))
    assert merged == pytest.approx(one.compute_metrics(one.results), abs=1e-12)
    assert merged["num_ood"] + merged["num_id"] == 43


def test_predictions_without_a_score():
    metric = OODImageMetric(**QUIET)
    given = sample(0, "in").to_dict()
    without = {key: value for key, value in given.items() if key not in ("ood_score", "logits")}
    with pytest.raises(
        ConfigError, match=r"the predictions have no logits and no ood_score, only \[.*AbeTClass"
    ):
        metric.process(None, [without])
    given.pop("img_path")
    with pytest.raises(ConfigError, match=r"no img_path, only .*PackImageInputs at the end"):
        metric.process(None, [given])
    metric.process(None, [])
    assert not metric.results


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ((9, 0, 0), "there is no OOD sample"),
        ((0, 5, 4), "there is no ID sample"),
        ((0, 0, 0), r"there is no OOD sample \(0 OOD, 0 ID\)"),
    ],
)
def test_one_kind_alone_is_an_error(counts, message):
    with pytest.raises(OODDataError, match=message):
        evaluated(samples(counts))


def test_table_and_file(tmp_path, capsys):
    given = samples((40, 0, 15))
    metric = metric_of(given, scores=["energy"], scores_file=str(tmp_path / "scores.npz"))
    values = metric.evaluate(len(given))
    printed = capsys.readouterr().out
    assert "15 OOD and 40 ID on 55 images" in printed and "predicted class" in printed
    assert f"accuracy: {values['ood/accuracy']:.4f}" in printed
    (row,) = (line for line in printed.splitlines() if line.startswith("far") and "abet" in line)
    assert row.split() == [
        "far",
        "abet",
        "15",
        "40",
        *(
            f"{values[f'ood/far/{name}']:.4f}"
            for name in ("auroc", "ap_out", "ap_in", "fpr95_ood", "fpr95_id")
        ),
    ]
    records = OODRecords.load(tmp_path / "scores.npz")
    assert records.task == "images" and list(records.scores) == ["abet", "energy"]
    assert records.paths == [s.img_path for s in given]
    assert records.classes == ["a", "b", "c", "d"]
    assert records.labels.tolist() == [s.pred_label.item() for s in given]
    assert records.is_ood.tolist() == [s.is_ood for s in given]
    np.testing.assert_allclose(records.scores["abet"], [s.ood_score.item() for s in given])
    names, codes = records.strata["predicted class"]
    assert names == ["a", "b", "c", "d"] and codes.tolist() == records.labels.tolist()
    assert records.notes["accuracy"] == values["ood/accuracy"]
