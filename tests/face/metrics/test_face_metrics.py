"""The registered metrics as a config uses them."""

import logging

import cv2
import numpy as np
import pytest
from helpers.face_cases import build, check_error_on_ranks, evaluated, predictions, random_case
from helpers.gloo import run_on_ranks
from mmengine.logging import MMLogger
from oracles.faces import slow_best_threshold, slow_tar_at_far, slow_templates
from sklearn.metrics import roc_auc_score

from negvision.errors import ConfigError, DatasetError
from negvision.face.metrics import EmbeddingError

_TEMPLATES = ("template_pairs", "template_same")
KINDS = ["VerificationMetric", "IdentificationMetric", "TemplateVerificationMetric"]


@pytest.fixture
def log(caplog):
    """The text that reaches the current MMEngine logger."""
    logger = MMLogger.get_current_instance()
    logger.addHandler(caplog.handler)
    caplog.handler.setLevel(logging.INFO)
    yield caplog
    logger.removeHandler(caplog.handler)


def cosine(a, b):
    a, b = a.astype(float), b.astype(float)
    return np.float32(np.dot(a, b) / np.linalg.norm(a) / np.linalg.norm(b))


def test_verification_equals_the_definitions():
    meta, embeddings, _ = random_case(0)
    values = evaluated(build(KINDS[0], meta), predictions(embeddings))
    same = meta["same"]
    scores = np.array([cosine(embeddings[i], embeddings[j]) for i, j in meta["pairs"]])
    assert values["verification/auc"] == pytest.approx(roc_auc_score(same, scores), abs=1e-6)
    for far in (1e-1, 1e-2):
        found = values[f"verification/tar@far=1e{round(np.log10(far))}"]
        assert found == pytest.approx(slow_tar_at_far(scores, same, far), abs=1e-9)
    # 700 pairs have fewer than a thousand negatives.
    assert not [key for key in values if "far=1e-3" in key or "far=1e-6" in key]
    assert values["verification/negative_pairs"] == (~same).sum()
    assert values["verification/negative_std"] == pytest.approx(scores[~same].std(), abs=1e-6)

    accuracies, used = [], []
    parts = [np.flatnonzero(same), np.flatnonzero(~same)]
    for fold in range(10):
        held_out = np.zeros(len(same), bool)
        for part in parts:
            held_out[[i for n, i in enumerate(part) if n * 10 // len(part) == fold]] = True
        used.append(slow_best_threshold(scores[~held_out], same[~held_out]))
        accuracies.append(np.mean((scores[held_out] >= used[-1]) == same[held_out]))
    assert values["verification/accuracy"] == pytest.approx(np.mean(accuracies), abs=1e-9)
    assert values["verification/accuracy_std"] == pytest.approx(np.std(accuracies, ddof=1))
    error = np.std(accuracies, ddof=1) / 10**0.5
    assert values["verification/accuracy_stderr"] == pytest.approx(error)
    assert np.isfinite(used).all()
    assert values["verification/threshold"] == pytest.approx(np.mean(used), abs=1e-6)


def test_folds_of_the_file_are_used_if_there_are_several():
    meta, embeddings, _ = random_case(1)
    parts = np.arange(len(meta["same"])) % 5
    metric = build(KINDS[0], {**meta, "folds": parts}, num_folds=3)
    given = evaluated(metric, predictions(embeddings))["verification/accuracy_stderr"]
    made = evaluated(build(KINDS[0], meta, num_folds=3), predictions(embeddings))
    one = {**meta, "folds": np.zeros(len(parts), int)}
    assert evaluated(build(KINDS[0], one, num_folds=3), predictions(embeddings)) == made
    assert given != made["verification/accuracy_stderr"]
    # The divisor of the standard error tells how many folds there were.
    std = evaluated(metric, predictions(embeddings))["verification/accuracy_std"]
    assert given == pytest.approx(std / 5**0.5)


@pytest.mark.parametrize("use_norm", [True, False])
@pytest.mark.parametrize("detector", [True, False])
def test_options_of_templates(use_norm, detector):
    meta, embeddings, _ = random_case(3)
    metric = build(KINDS[2], meta, use_norm=use_norm, use_detector_score=detector)
    values = evaluated(metric, predictions(embeddings))
    weights = meta["detection_scores"] if detector else None
    vectors = slow_templates(embeddings, meta["template_ids"], meta["media_ids"], use_norm, weights)
    scores = np.array([cosine(vectors[a], vectors[b]) for a, b in meta["template_pairs"]])
    same = meta["template_same"]
    assert values["template/auc"] == pytest.approx(roc_auc_score(same, scores), abs=1e-9)
    assert values["template/positive_mean"] == pytest.approx(scores[same].mean(), abs=1e-6)


def test_keys():
    """The first selects the best checkpoint; those that need more people or pairs are left out."""
    meta, embeddings, labels = random_case(2)
    firsts = ("accuracy", "rank1", "auc")
    found = [list(evaluated(build(kind, meta), predictions(embeddings, labels))) for kind in KINDS]
    assert [keys[0].partition("/")[2] for keys in found] == list(firsts)
    # Nine people in the gallery and twelve impostors.
    assert [key.partition("/")[2] for key in found[1][:3]] == ["rank1", "rank5", "dir@fpir=1e-1"]


def test_an_error_of_one_rank_is_raised_on_all(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # where ranks exchange their results
    run_on_ranks(check_error_on_ranks, 2, tmp_path)


@pytest.mark.parametrize("kind", KINDS)
def test_order_and_padding_change_nothing(kind):
    meta, embeddings, labels = random_case(4)
    metric = build(kind, meta)
    expected = evaluated(metric, predictions(embeddings, labels))
    rng = np.random.default_rng(0)
    order = rng.permutation(len(labels))
    padded = [*order, *order[:7]]
    # The same metric again: nothing is left of the first evaluation.
    assert evaluated(metric, predictions(embeddings, labels, padded), batch=3) == expected
    # The order of the protocol, except for the folds.
    shuffled = dict(meta)
    for names in (("pairs", "same"), ("gallery",), ("probes",), _TEMPLATES):
        order = rng.permutation(len(meta[names[0]]))
        shuffled.update({name: meta[name][order] for name in names})
    found = evaluated(build(kind, shuffled), predictions(embeddings, labels))
    for key, value in expected.items():
        if "accuracy" not in key and "threshold" not in key:
            assert found[key] == pytest.approx(value, abs=1e-12), key


def test_constant_embeddings_are_no_better_than_chance():
    meta, _, labels = random_case(7)
    embeddings = np.linspace(0.5, 2, len(labels))[:, None].astype("f4") * np.ones(8, "f4")
    samples = predictions(embeddings, labels)
    values = evaluated(build(KINDS[0], meta), samples)
    assert values["verification/auc"] == 0.5 and values["verification/overlap"] == 1
    assert values["verification/tar@far=1e-1"] == 0
    # Most pairs are negative, and no threshold between scores exists.
    assert values["verification/accuracy"] == pytest.approx(np.mean(~meta["same"]), abs=0.01)
    assert "verification/threshold" not in values
    assert evaluated(build(KINDS[1], meta), samples)["identification/rank5"] == 0


def test_tables(log):
    meta, embeddings, labels = random_case(8)
    meta["pairs"] = np.array([[0, 1], [2, 3], [0, 4], [4, 9]])
    meta["same"] = np.array([True, True, False, False])
    metric = build(KINDS[0], meta, prefix="lfw", fars=[0.5, 1e-4])
    values = evaluated(metric, predictions(embeddings))
    assert "lfw/tar@far=5e-1" in values and "lfw/accuracy" not in values
    assert "lfw: 4 pairs of 6 images" in log.text
    assert "10 folds need 10 pairs of each kind; there are 2 positive and 2" in log.text
    rows = [line.split() for line in log.text.splitlines()]
    assert ["1e-4", "-", "-", "-", "of", "2;", "needs", "10,000"] in rows
    half = next(row for row in rows if row[:1] == ["5e-1"])
    assert float(half[1]) == pytest.approx(values["lfw/tar@far=5e-1"], abs=1e-4)
    assert half[-2:] == ["of", "2"]

    log.clear()
    evaluated(build(KINDS[1], meta), predictions(embeddings, labels))
    assert "13 gallery images of 9 people, 23 probes of them, 12 of others" in log.text
    assert "needs more than 10 people in the gallery" in log.text
    log.clear()
    evaluated(build(KINDS[2], meta), predictions(embeddings))
    assert "120 pairs of 16 templates of 48 images" in log.text


def test_roc_file(tmp_path, monkeypatch, log):
    meta, embeddings, _ = random_case(9)
    monkeypatch.chdir(tmp_path)
    metric = build(KINDS[0], meta, roc_file="roc/lfw.npz")
    values = evaluated(metric, predictions(embeddings))
    curve = np.load(tmp_path / "roc" / "lfw.npz")
    area = np.trapezoid(curve["tar"], curve["far"])
    assert area == pytest.approx(values["verification/auc"], abs=1e-12)
    assert curve["thresholds"].shape == curve["far"].shape
    assert curve["negatives"] == values["verification/negative_pairs"]
    assert "lfw.npz" in log.text
    plot = tmp_path / "plot.png"
    evaluated(build(KINDS[2], meta, roc_file=str(plot)), predictions(embeddings))
    assert cv2.imread(str(plot)).std() > 5
    with pytest.raises(ValueError, match=r"roc_file must end with .* got 'roc.txt'"):
        build(KINDS[0], meta, roc_file="roc.txt")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("value", "message"), [(np.nan, "2 of 48 .* NaN or infinite"), (0, "2 of 48 .* are zero")]
)
def test_incomparable_embeddings(kind, value, message):
    meta, embeddings, labels = random_case(10)
    embeddings[[6, 31]] = value
    order = np.random.default_rng(0).permutation(48)
    samples = predictions(embeddings, labels, [*order, 6])
    metric = build(kind, meta)
    with pytest.raises(EmbeddingError, match=message + r".*\(the first: sample 6, faces/6.jpg\)"):
        evaluated(metric, samples)
    assert not metric.results


@pytest.mark.parametrize("kind", KINDS)
def test_missing_samples_and_embeddings(kind):
    meta, embeddings, labels = random_case(11)
    with pytest.raises(EmbeddingError, match=r"18 of the \d+ samples to compare were not pred"):
        evaluated(build(kind, meta), predictions(embeddings, labels, range(30)))
    with pytest.raises(EmbeddingError, match="no embedding was predicted"):
        build(kind, meta).evaluate(size=48)
    with pytest.raises(EmbeddingError, match=r"no embedding and no sample_idx, only \['label'\]"):
        build(kind, meta).process({}, [{"label": 3}])
    build(kind, meta).process({}, [])


@pytest.mark.parametrize(
    ("kind", "change", "error", "message"),
    [
        ("V", {"pairs": None}, ConfigError, r"needs 'pairs' in .* negvision.FacePairDataset"),
        ("V", {"pairs": np.zeros((0, 2), int)}, DatasetError, "nothing to compare"),
        ("V", {"pairs": np.zeros((700, 3), int)}, DatasetError, r"shape \(P, 2\).* got int64"),
        ("V", {"pairs": np.zeros((700, 2))}, DatasetError, "must be integers .* got float64"),
        ("V", {"same": np.ones(3, bool)}, DatasetError, r"shape \(P,\), got .* and \(3,\)"),
        ("V", {"same": np.ones(700, bool)}, DatasetError, "data has 700 and 0"),
        ("V", {"same": np.zeros(700, bool)}, DatasetError, "data has 0 and 700"),
        ("V", {"folds": np.ones(3, int)}, DatasetError, r"'folds'\] must have one entry per pair"),
        ("I", {"gallery": None, "probes": None}, ConfigError, "'gallery' and 'probes'"),
        ("I", {"probes": []}, DatasetError, r"'probes'\] must be distinct sample indices"),
        ("I", {"gallery": [1, 2, 1]}, DatasetError, r"'gallery'\] must be distinct"),
        ("I", {"gallery": [1, 2], "probes": [0, 2]}, DatasetError, "1 probes .* sample 2"),
        (
            "T",
            {"media_ids": np.zeros(5, int)},
            DatasetError,
            "one template and one medium per sample",
        ),
        ("T", {"template_pairs": np.full((120, 2), 3)}, DatasetError, "1 templates .* template 3"),
        ("T", {"template_same": np.ones(120, bool)}, DatasetError, "data has 120 and 0"),
        ("T", {"detection_scores": None}, ConfigError, "needs 'detection_scores'"),
    ],
)
def test_invalid_protocols(kind, change, error, message):
    meta = {**random_case(13)[0], **change}
    meta = {name: value for name, value in meta.items() if value is not None}
    name = next(name for name in KINDS if name.startswith(kind))
    options = {"use_detector_score": True} if kind == "T" else {}
    with pytest.raises(error, match=message):
        build(name, meta, **options)


def test_unusable_labels():
    meta, embeddings, labels = random_case(14)
    with pytest.raises(DatasetError, match=r"13 of 13 gallery images have no label .*sample 0"):
        evaluated(build(KINDS[1], meta), predictions(embeddings))
    labels = np.where(np.isin(np.arange(48), meta["gallery"]), labels, labels + 100)
    with pytest.raises(DatasetError, match="none of the 35 probes has a label"):
        evaluated(build(KINDS[1], meta), predictions(embeddings, labels))


@pytest.mark.parametrize(
    ("kind", "arguments", "message"),
    [
        (KINDS[0], {"num_folds": 1}, "num_folds must be at least 2, got 1"),
        (KINDS[0], {"fars": [0]}, "fars must be numbers between 0 and 1"),
        (KINDS[1], {"ranks": [0, 1]}, r"ranks must be positive numbers, got \[0, 1\]"),
        (KINDS[1], {"fpirs": [2]}, "fpirs must be numbers between 0 and 1"),
    ],
)
def test_wrong_arguments(kind, arguments, message):
    with pytest.raises(ValueError, match=message):
        build(kind, random_case(0)[0], **arguments)


def test_sets_are_evaluated_side_by_side():
    meta, embeddings, _ = random_case(0)
    other, more, _ = random_case(1)
    shifted = {**other, "pairs": other["pairs"] + len(embeddings)}
    both = build(KINDS[0], {"sets": {"lfw": meta, "agedb": shifted}})
    values = evaluated(both, predictions(np.concatenate([embeddings, more])))
    alone = [
        evaluated(build(KINDS[0], one), predictions(vectors))
        for one, vectors in ((meta, embeddings), (other, more))
    ]
    for name, own in zip(("lfw", "agedb"), alone, strict=True):
        for key, value in own.items():
            assert values[key.replace("/", f"/{name}/", 1)] == value
    mean = np.mean([own["verification/accuracy"] for own in alone])
    assert values["verification/accuracy"] == pytest.approx(mean)
    assert "verification/threshold" not in values
    with pytest.raises(ConfigError, match="'same' in the dataset's metainfo"):
        build(KINDS[0], {"sets": {"lfw": meta, "agedb": {"pairs": other["pairs"]}}})
