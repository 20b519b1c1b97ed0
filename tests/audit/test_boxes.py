"""Scores of boxes by what a detector finds: a slow oracle, each kind of error, degenerate input."""

import numpy as np
import pytest

from negvision.audit import boxes
from negvision.audit.boxes import BoxSubject, BoxTable, drop, score_boxes, shift, swap
from negvision.audit.subject import Audit

CLASSES = ("red", "white", "platelet")


def random_set(seed, images=6, objects=8, classes=3, spread=60.0):
    """Crowded annotations with some ignored ones, and detections near them and anywhere."""
    random = np.random.default_rng(seed)

    def table(count, **columns):
        low = random.uniform(0, spread, (count, 2))
        box = np.concatenate([low, low + random.uniform(8, 30, (count, 2))], 1).round(1)
        image, label = random.integers(0, images, count), random.integers(0, classes, count)
        return BoxTable.of(image, label, box, **columns)

    truth = table(images * objects, ignored=random.random(images * objects) < 0.15)
    noise = table(images * objects, score=random.random(images * objects).round(2))
    near = truth.box + random.normal(0, 3, truth.box.shape).round(1)
    label = np.where(random.random(len(truth)) < 0.8, truth.label, 0)
    found = BoxTable.of(truth.image, label, near, random.random(len(truth)).round(2))
    return truth, noise.joined(found)


def iou(a, b):
    sides = [min(a[i + 2], b[i + 2]) - max(a[i], b[i]) for i in (0, 1)]
    if min(sides) <= 0:
        return 0.0, 0.0
    shared, area = sides[0] * sides[1], [(c[2] - c[0]) * (c[3] - c[1]) for c in (a, b)]
    return shared / (sum(area) - shared), shared / area[0]


def oracle(truth, found):
    """The definitions, box by box: wrong_class, misplaced, duplicate, and missing by row."""
    T, D = range(len(truth)), range(len(found))
    over = [[iou(found.box[d], truth.box[a]) for a in T] for d in D]
    there = [[found.image[d] == truth.image[a] for a in T] for d in D]
    real = [[there[d][a] and not truth.ignored[a] for a in T] for d in D]
    same = [[real[d][a] and found.label[d] == truth.label[a] for a in T] for d in D]
    explains = [any(same[d][a] and over[d][a][0] >= 0.5 for a in T) for d in D]
    score, wrong, misplaced, used = found.score, [], [], set()
    own = [max([score[d] for d in D if same[d][a] and over[d][a][0] >= 0.5], default=0) for a in T]
    for a in T:
        rival = [
            score[d]
            for d in D
            if real[d][a] and not same[d][a] and over[d][a][0] >= 0.5 and not explains[d]
        ]
        wrong.append(-1 if truth.ignored[a] else max(rival, default=0) - own[a])
        beside = []
        for d in D:
            mine = [b for b in T if same[d][b] and over[d][b][0] >= 0.2]
            if mine and max(mine, key=lambda b: (over[d][b][0], -b)) == a:
                beside.append(d)
        best = max(beside, key=lambda d: (score[d], -d), default=None)
        misplaced.append(0 if best is None else score[best] * (1 - over[best][a][0]))
        used.add(best)
    duplicate = []
    for a in T:
        rows = [
            b
            for b in T
            if truth.image[a] == truth.image[b]
            and not truth.ignored[a]
            and not truth.ignored[b]
            and (own[b], -b) > (own[a], -a)
        ]
        duplicate.append(max([iou(truth.box[a], truth.box[b])[0] for b in rows], default=0))
    largest = [max([over[d][a][0] for a in T if real[d][a]], default=0) for d in D]
    free = []
    for d in sorted(D, key=lambda d: -score[d]):
        crowd = any(there[d][a] and truth.ignored[a] and over[d][a][1] >= 0.5 for a in T)
        if not explains[d] and largest[d] < 0.5 and not crowd and d not in used:
            rivals = [e for e in free if found.image[e] == found.image[d]]
            if all(iou(found.box[e], found.box[d])[0] <= 0.5 for e in rivals):
                free.append(d)
    return wrong, misplaced, duplicate, {d: score[d] * (1 - largest[d]) for d in free}


@pytest.mark.parametrize("seed", range(4))
def test_scores_are_those_of_the_definition_box_by_box(seed, monkeypatch):
    monkeypatch.setattr(boxes, "_BLOCK", 4)
    truth, found = random_set(seed)
    scores = score_boxes(truth, found)
    wrong, misplaced, duplicate, missing = oracle(truth, found)
    np.testing.assert_allclose(scores.wrong_class, wrong, atol=1e-12)
    np.testing.assert_allclose(scores.misplaced, misplaced, atol=1e-12)
    np.testing.assert_allclose(scores.duplicate, duplicate, atol=1e-12)
    assert dict(zip(scores.missing.tolist(), scores.missing_score, strict=True)) == pytest.approx(
        missing
    )
    assert len(missing) > 10 and max(misplaced) > 0.3 and max(wrong) > 0


def perfect(truth, random):
    """Detections as a good model finds them: all objects, some noise."""
    real = truth.rows(np.flatnonzero(~truth.ignored))
    sides = np.tile(real.box[:, 2:] - real.box[:, :2], 2)
    near = real.box + random.normal(0, 0.03, real.box.shape) * sides
    score = random.uniform(0.6, 1, len(real))
    noise = random.uniform(0, 80, (len(real), 2))
    noise = BoxTable.of(
        real.image, real.label, np.c_[noise, noise + 15], random.uniform(0, 0.3, len(real))
    )
    return BoxTable.of(real.image, real.label, near, score).joined(noise)


@pytest.fixture(scope="module")
def good():
    random = np.random.default_rng(0)
    image = np.repeat(np.arange(100), 4)
    low = np.tile([[0, 0], [60, 0], [0, 60], [60, 60]], (100, 1)) + random.uniform(0, 8, (400, 2))
    truth = BoxTable.of(image, random.integers(0, 3, 400), np.c_[low, low + 30])
    return truth, perfect(truth, random)


def audit(truth, found, classes=CLASSES):
    names = [f"{place}.jpg" for place in range(100)]
    subject = BoxSubject(truth, found, classes, names, range(100), 10 * np.arange(500))
    return Audit.of(list(subject.findings()))


def test_each_planted_error_is_found_and_few_right_labels(good):
    truth, found = good
    random = np.random.default_rng(1)
    left, dropped = drop(truth, random, 0.05)
    table, swapped = swap(left, random, 3, 0.05)
    table, shifted = shift(table, random, 0.05)
    result = audit(table, found)
    kinds = {"missing": len(dropped), "class": len(swapped), "location": len(shifted)}
    for kind, planted in kinds.items():
        assert planted * 0.7 <= sum(one.kind == kind for one in result.suspects) <= planted * 1.4
    ids = {one.annotation for one in result.suspects if one.kind == "class"}
    assert len(ids & set((10 * table.place[swapped]).tolist())) >= 0.8 * len(swapped)
    assert result.calibration["class"]["planted"] == 6 * 38
    one = next(one for one in result.suspects if one.kind == "class" and one.probability > 0.8)
    assert one.proposed != one.label and one.proposed in one.reason


def test_few_right_labels_are_suspects(good):
    assert len(audit(*good).suspects) <= 0.02 * 400


def test_detections_that_tell_nothing_make_no_suspects(good):
    truth, found = good
    random = np.random.default_rng(0)
    blind = BoxTable.of(
        found.image, random.integers(0, 3, len(found)), found.box, found.score * 0 + 0.5
    )
    kinds = [one.kind for one in audit(truth, blind).suspects]
    assert kinds.count("location") + kinds.count("class") <= 0.08 * 400


def test_a_second_box_on_an_object_is_a_duplicate_and_the_looser_one(good):
    truth, found = good
    extra = truth.rows(np.arange(5))
    extra = BoxTable.of(extra.image, extra.label, extra.box + 1.5)
    extra.place[:] += 400
    result = audit(truth.joined(extra), found)
    assert sum(one.kind == "duplicate" for one in result.suspects) == 5


NONE = BoxTable.of([], [], [])


def test_no_detections_no_annotations_one_class_and_nan(good):
    truth, found = good
    assert audit(NONE, NONE).suspects == [] and audit(truth, NONE).suspects == []
    # Without annotations nothing can be planted: what is found with certainty is a suspect.
    kinds = {one.kind for one in audit(NONE, found).suspects}
    assert kinds == {"missing"}
    assert all(one.probability is None for one in audit(NONE, found).suspects)
    one_class = BoxTable.of(found.image, found.label * 0, found.box, found.score)
    single = BoxTable.of(truth.image, truth.label * 0, truth.box)
    assert not any(one.kind == "class" for one in audit(single, one_class, ("red",)).suspects)
    assert len(BoxTable.of([0, 0], [1, 1], [[0, 0, np.nan, 1], [0, 0, 2, 2]], [0.5, np.inf])) == 0
