"""Suspects among images, regions and faces."""

import numpy as np
import pytest

from negvision.audit.labels import (
    FaceSubject,
    Groups,
    LabelSubject,
    margins,
    region_rows,
    region_subject,
)
from negvision.audit.sample_numbers import regions_of
from negvision.audit.subject import Audit, by_history
from negvision.data.sample_history import SampleHistory

CLASSES = ("a", "b", "c", "d")


def images(seed=0, count=1000, sure=6.0):
    """Labels, 5 % of them wrong, and probabilities of a model that mostly knows the truth."""
    random = np.random.default_rng(seed)
    truth = random.integers(0, 4, count)
    logits = random.normal(0, 1, (count, 4)) + sure * np.eye(4)[truth]
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    labels = truth.copy()
    wrong = random.choice(count, count // 20, replace=False)
    labels[wrong] = (labels[wrong] + random.integers(1, 4, len(wrong))) % 4
    names = [f"{row}.jpg" for row in range(count)]
    rows = np.arange(count)
    return LabelSubject("image", labels, probabilities, CLASSES, names, rows, rows), truth, wrong


def test_wrong_labels_of_images_are_found_with_the_right_class():
    subject, truth, wrong = images()
    found = {one.annotation: one for one in Audit.of(list(subject.findings())).suspects}
    assert len(set(found) & set(wrong.tolist())) >= 0.8 * len(wrong)
    assert len(found) <= 1.2 * len(wrong)
    right = [found[row].proposed == CLASSES[truth[row]] for row in wrong.tolist() if row in found]
    assert np.mean(right) > 0.9
    assert np.mean([one.probability for one in found.values()]) > 0.7


def test_a_model_that_tells_nothing_makes_few_suspects():
    subject, *_ = images(sure=0.0)
    assert len(Audit.of(list(subject.findings())).suspects) <= 0.03 * 1000


@pytest.mark.parametrize("classes", [0, 1])
def test_no_images_and_one_class(classes):
    rows, chances = np.zeros(classes, np.int64), np.ones((classes, 1))
    subject = LabelSubject("image", rows, chances, ("a",), ["x"] * classes, rows, rows)
    assert Audit.of(list(subject.findings())).suspects == []


def test_losses_of_a_training_replace_the_scores_of_a_model():
    subject, _, wrong = images(count=100)
    loss = np.full((100, 3), 0.1)
    loss[wrong] = [4, 3, 3.5]
    rival = np.full((100, 3), 2)
    seen = np.arange(100)[:, None] < 99  # the last one was never drawn
    seen = np.broadcast_to(seen, loss.shape)
    grid = np.broadcast_to(np.arange(100)[:, None], loss.shape)
    epoch = np.broadcast_to(np.arange(3), loss.shape)
    columns = {"annotation": grid, "epoch": epoch, "loss": loss, "other_class": rival}
    columns = {name: values[seen] for name, values in columns.items()}
    history = SampleHistory.of("classification", "", CLASSES, **columns)
    [findings] = subject.findings()
    found = by_history(findings, history, CLASSES)
    assert np.flatnonzero(found.probability > 0).tolist() == sorted(set(wrong.tolist()) - {99})
    suspects = Audit.of([found]).suspects
    assert {one.proposed for one in suspects} == {"c"} and suspects[0].probability > 0.9
    empty = SampleHistory.of("classification", "", CLASSES)
    assert Audit.of([by_history(findings, empty, CLASSES)]).suspects == []


def test_the_loss_of_the_model_counts_as_much_as_those_before():
    subject, *_ = images(count=100)
    loss = np.random.default_rng(0).exponential(1, (100, 3))
    columns = {"annotation": np.repeat(np.arange(100), 3), "epoch": np.tile(np.arange(3), 100)}
    history = SampleHistory.of("classification", "", CLASSES, loss=loss.reshape(-1), **columns)
    [findings] = subject.findings()
    chances = subject.probabilities[np.arange(100), subject.labels]
    np.testing.assert_array_equal(findings.scores, 1 - chances)
    memory = (loss.mean(1) - np.log(chances)) / 2
    scores = (memory - memory.mean()) / memory.std()
    found = by_history(findings, history, CLASSES)
    np.testing.assert_allclose(found.scores, scores, atol=1e-5)


def test_few_labels_are_scored_by_margins():
    subject, *_ = images(count=49)
    [findings] = subject.findings()
    np.testing.assert_array_equal(findings.scores, margins(subject.probabilities, subject.labels))


def test_margins_are_the_definition():
    random = np.random.default_rng(0)
    chances, labels = random.random((50, 5)), random.integers(0, 5, 50)
    slow = [max(np.delete(c, n)) - c[n] for c, n in zip(chances, labels, strict=True)]
    np.testing.assert_allclose(margins(chances, labels), slow)


def test_boxes_and_means_of_regions_are_the_definition():
    random = np.random.default_rng(0)
    labels = random.integers(0, 3, (6, 8)).repeat(8, 0).repeat(8, 1)
    labels[:8, :16] = 255
    chances = random.random((3, 48, 64))
    numbers, of = regions_of(labels)
    given, means, ids, boxes = region_rows(5, labels, chances)
    assert given.tolist() == of and ids.tolist() == [5 * 65536 + n for n in range(len(of))]
    for n, (x, y, w, h) in enumerate(boxes.tolist()):
        rows, columns = np.nonzero(numbers == n + 1)
        assert (labels[rows, columns] == of[n]).all()
        assert (x, y, w, h) == (
            columns.min(), rows.min(), np.ptp(columns) + 1, np.ptp(rows) + 1
        )  # fmt: skip
        np.testing.assert_allclose(means[n], chances[:, rows, columns].mean(1))


def test_a_region_of_another_class_is_the_most_suspicious():
    truth = np.zeros((40, 40), np.int64)
    truth[8:32, 8:32] = 1
    chances = np.stack([np.where(truth == k, 0.9, 0.1) for k in (0, 1)])
    given = truth.copy()
    given[20:32, 8:32] = 0  # half of the object
    given[0, 0] = 1  # too small to tell
    maps = truth, given, np.full((40, 40), 255)
    rows = [region_rows(place, one, chances) for place, one in enumerate(maps)]
    subject = region_subject(rows, ("ground", "cat"), ["a.png", "b.png", "c.png"])
    [found] = subject.findings()
    assert len(found.scores) == 4  # in b.png the half joins the ground around it
    worst = found.suspect(int(found.scores.argmax()))
    assert (worst.image, worst.label) == ("b.png", "ground")
    assert worst.annotation >> 16 == 1 and worst.bbox == (0, 0, 40, 40)
    nothing = region_subject([], ("ground", "cat"), [])
    assert Audit.of(list(nothing.findings())).suspects == []


def faces(people=30, each=8, noise=0.5, seed=0):
    random = np.random.default_rng(seed)
    centers = random.normal(0, 1, (people, 64))
    labels = np.repeat(np.arange(people), each)
    return centers[labels] + random.normal(0, noise, (len(labels), 64)), labels


def subject_of(embeddings, labels):
    names = [f"person {label}" for label in range(labels.max(initial=-1) + 1)]
    return FaceSubject(embeddings, labels, names, [f"{row}.jpg" for row in range(len(labels))])


def test_a_face_among_others_people_and_a_person_with_two_names_are_found():
    embeddings, labels = faces()
    labels[:4] = 30  # half of person 0 has another name
    given = labels.copy()
    given[[20, 100, 180]] = [25, 3, 7]
    found = Audit.of(list(subject_of(embeddings, given).findings())).suspects
    flipped = {one.annotation: one.proposed for one in found if one.kind == "identity"}
    assert flipped.items() >= {20: "person 2", 100: "person 12", 180: "person 22"}.items()
    [pair] = [one for one in found if one.kind == "people"]
    assert {pair.label, pair.proposed} == {"person 30", "person 0"} and pair.probability > 0.3


def test_two_people_under_one_name_and_a_person_of_another_split_are_found():
    embeddings, labels = faces(people=60)
    labels[-4:] = 0  # of the last person half has the name of the first
    subject = subject_of(embeddings, labels)
    [mixed] = [one for one in Audit.of(list(subject.findings())).suspects if one.kind == "mixed"]
    assert (mixed.label, mixed.image) == ("person 0", "476.jpg") and mixed.probability > 0.3
    assert "the smaller one has 476.jpg, 477.jpg, 478.jpg" in mixed.reason
    # Other photographs of persons 7 and 12, and of 20 strangers.
    others = faces(people=22, each=1, seed=1)[0]
    others[:2] = embeddings[[7 * 8, 12 * 8]] + faces(people=2, each=1, seed=2)[0] / 3
    found = Audit.of([subject.overlap(others, [f"{row}.png of val" for row in range(22)])])
    assert [one.label for one in found.suspects] == ["person 7", "person 12"]
    assert "mean face to 0.png of val is 0." in found.suspects[0].reason
    assert Audit.of([subject.overlap(np.zeros((0, 64)), [])]).suspects == []


def test_the_gap_of_two_groups_is_the_definition_and_its_split_the_best():
    for seed in range(5):
        unit = faces(people=2, each=5, noise=1.0, seed=seed)[0]
        unit /= np.linalg.norm(unit, axis=1, keepdims=True)
        found = Groups.of(unit, np.arange(10))
        second, pairs = np.isin(np.arange(10), found.smaller), unit @ unit.T
        same = second[:, None] == second
        inside = pairs[same & ~np.eye(10, dtype=bool)].mean()
        assert found.gap == pytest.approx(inside - pairs[~same].mean())
        assert second[:5].all() ^ second[5:].all()
    one = np.ones((6, 2)) / 2**0.5
    assert Groups.of(one, np.arange(6)).gap == Groups.of(one, np.arange(3)).gap == -2


def test_face_scores_are_the_definition():
    embeddings, labels = faces(people=4, each=3, noise=3.0)
    labels[-1] = 4  # the only face of a person
    unit = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)

    def cosine(a, b):
        return a @ b / np.linalg.norm(a) / np.linalg.norm(b)

    score, other = subject_of(embeddings, labels).scores
    for row, (face, label) in enumerate(zip(unit, labels, strict=True)):
        rest = [unit[r] for r in range(len(unit)) if labels[r] == label and r != row]
        near = {k: cosine(face, unit[labels == k].sum(0)) for k in range(5) if k != label}
        best = max(near, key=near.get)
        assert other[row] == best
        wanted = near[best] - cosine(face, np.sum(rest, 0)) if rest else -2
        assert score[row] == pytest.approx(wanted, rel=1e-4)


def test_one_person_and_none():
    for people in (0, 1):
        embeddings, labels = (
            faces(people=people) if people else (np.zeros((0, 4)), np.zeros(0, int))
        )
        assert Audit.of(list(subject_of(embeddings, labels).findings())).suspects == []
