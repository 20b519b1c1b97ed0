"""Sections for faces, segmentors, and classifiers, compared with scikit-learn."""

import numpy as np
import pytest
import torch
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample
from sklearn.metrics import confusion_matrix, jaccard_score, roc_curve

from negvision.classification.structures import ImageDataSample
from negvision.face.structures import FaceDataSample
from negvision.report.face_sections import PairCollector
from negvision.report.label_sections import LabelCollector, LabelMapCollector


def rows_of(section, title):
    [table] = [part for part in section.parts if part.title == title]
    return {row.name: list(row.values) for row in table.rows}


def face_samples(count=60):
    torch.manual_seed(0)
    people = torch.randn(6, 8)
    for index in range(count):
        sample = FaceDataSample.of(torch.tensor(index % 6), {"sample_idx": index})
        sample.embedding = people[index % 6] + 1.2 * torch.randn(8)
        yield sample


def test_pairs_of_faces():
    samples = list(face_samples())
    pairs = np.array([(a, b) for a in range(60) for b in range(a)])
    same = pairs[:, 0] % 6 == pairs[:, 1] % 6
    meta = {"pairs": pairs, "same": same}
    collector = PairCollector(meta, {"fars": (0.1, 0.01, 1e-6)})
    collector.add([], samples[:40])
    collector.add([], samples[40:])
    [section] = collector.sections()
    vectors = torch.stack([sample.embedding for sample in samples]).double()
    units = (vectors / vectors.norm(dim=1, keepdim=True)).numpy()
    scores = (units[pairs[:, 0]] * units[pairs[:, 1]]).sum(1)
    far, tar, _ = roc_curve(same, scores, drop_intermediate=False)
    points = rows_of(section, "TAR at FAR")
    # 1,500 impostor pairs support no FAR of one in a million.
    assert list(points) == ["FAR 1e-1", "FAR 1e-2"]
    for limit, name in ((0.1, "FAR 1e-1"), (0.01, "FAR 1e-2")):
        assert points[name][0] == pytest.approx(tar[far <= limit].max())
    values = rows_of(section, "Verification")
    assert values["positive_pairs"] == [int(same.sum())]
    assert values["auc"][0] == pytest.approx(np.trapezoid(tar, far))
    assert values["positive_mean"][0] == pytest.approx(scores[same].mean(), abs=1e-6)
    titles = [plot.title for part in section.parts if part.kind == "plots" for plot in part.plots]
    assert titles == ["ROC", "Scores of pairs"]
    galleries = [part for part in section.parts if part.kind == "gallery"]
    worst = np.sort(scores[same])[:6], np.sort(scores[~same])[::-1][:6]
    for part, wanted in zip(galleries, worst, strict=True):
        shown = [float(sample.facts[0].split()[1]) for sample in part.samples]
        np.testing.assert_allclose(shown, wanted, atol=1e-4)
    [section] = PairCollector({"gallery": [0]}, {}).sections()
    assert "no pairs" in section.missing and not section.parts


def seg_samples():
    rng = np.random.default_rng(3)
    for index in range(15):
        truth = rng.choice([0, 1, 2, 255], (20, 30), p=[0.5, 0.3, 0.1, 0.1])
        wrong = rng.random((20, 30)) < index / 20
        found = np.where(wrong | (truth == 255), rng.integers(0, 3, (20, 30)), truth)
        sample = SegDataSample(metainfo={"img_path": f"{index}.png"})
        sample.gt_sem_seg = PixelData(data=torch.from_numpy(truth)[None])
        sample.pred_sem_seg = PixelData(data=torch.from_numpy(found)[None])
        one_hot = torch.nn.functional.one_hot(torch.from_numpy(found), 4).movedim(-1, 0)
        sample.seg_logits = PixelData(data=2.0 * one_hot)
        yield sample


def test_label_maps():
    samples = list(seg_samples())
    collector = LabelMapCollector(("road", "car", "sky", "boat"), [[9, 9, 9]])
    for start in (0, 8):
        collector.add([], samples[start : start + 8])
    iou, confusion, calibration, worst = collector.sections()
    truth = np.concatenate([one.gt_sem_seg.data.numpy().ravel() for one in samples])
    found = np.concatenate([one.pred_sem_seg.data.numpy().ravel() for one in samples])
    valid = truth != 255
    truth, found = truth[valid], found[valid]
    [matrix] = confusion.parts
    assert np.array_equal(matrix.counts, confusion_matrix(truth, found, labels=range(4)))
    rows = rows_of(iou, "IoU by class")
    expected = jaccard_score(truth, found, average=None)
    assert [rows[name][0] for name in ("road", "car", "sky")] == pytest.approx(list(expected))
    assert rows["boat"] == [None, None, None, 0]
    values = rows_of(iou, "Segmentation")
    assert values["mIoU"][0] == pytest.approx(expected.mean())
    assert values["pixel accuracy"][0] == pytest.approx((truth == found).mean())
    score = np.exp(2) / (np.exp(2) + 3)
    gap = pytest.approx(abs(score - (truth == found).mean()), abs=1e-6)
    assert rows_of(calibration, "Calibration")["all classes"][0] == gap
    own = (truth == found)[found == 2]
    gap = pytest.approx(abs(score - own.mean()), abs=1e-6)
    assert rows_of(calibration, "Calibration")["sky"][0] == gap
    [gallery] = worst.parts
    shares = [float(sample.tag.split()[0]) for sample in gallery.samples]
    slow = []
    for one in samples:
        labels, predicted = one.gt_sem_seg.data.numpy(), one.pred_sem_seg.data.numpy()
        slow.append(100 * (labels != predicted)[labels != 255].mean())
    assert shares == pytest.approx(sorted(slow, reverse=True)[:12], abs=0.051)
    # The images are missing; both maps are shown anyway.
    assert all(sample.problem and len(sample.images) == 2 for sample in gallery.samples)
    empty = LabelMapCollector(("road", "car", "sky")).sections()
    assert all("no labels" in section.missing for section in empty)


def test_classes_of_images():
    rng = np.random.default_rng(4)
    truth, found = rng.integers(0, 3, (2, 50))
    is_ood = np.arange(50) % 5 == 0
    samples = []
    for label, predicted, ood in zip(truth, found, is_ood, strict=True):
        sample = ImageDataSample(label=torch.tensor(label), metainfo={"is_ood": bool(ood)})
        sample.pred_label, sample.pred_score = torch.tensor(predicted), torch.tensor(0.75)
        samples.append(sample)
    collector = LabelCollector(("a", "b", "c"))
    assert "known class" in collector.sections()[0].missing
    collector.add([], samples)
    accuracy, confusion, calibration = collector.sections()
    truth, found = truth[~is_ood], found[~is_ood]
    assert np.array_equal(confusion.parts[0].counts, confusion_matrix(truth, found))
    right = pytest.approx((truth == found).mean())
    assert rows_of(accuracy, "Classification")["accuracy"] == [right]
    for name, chosen in (("all classes", found >= 0), ("b", found == 1)):
        gap = abs(0.75 - (truth == found)[chosen].mean())
        row = rows_of(calibration, "Calibration")[name]
        assert row[0] == pytest.approx(gap) and row[3] == chosen.sum()
    assert rows_of(accuracy, "Accuracy by class")["b"][2] == (truth == 1).sum()
