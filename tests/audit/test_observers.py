"""What observers see, against loops over single priors, pixels and faces."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from helpers import head_cases, two_stage_cases
from mmdet.datasets.transforms import LoadAnnotations, RandomCrop, RandomFlip, Resize
from mmdet.structures.bbox import bbox_overlaps
from mmengine.dataset import BaseDataset, Compose
from mmengine.structures import InstanceData, PixelData
from torch import nn
from torch.nn.functional import cosine_similarity

from negvision.audit.box_observers import DenseObserver, RoIObserver, _true_at, box_observer
from negvision.audit.observers import FaceObserver, SegmentationObserver, own_and_other
from negvision.audit.sample_numbers import SampleNumbers, regions_of
from negvision.detection.datasets import PackDetInputs
from negvision.detection.transforms import RandomZoom
from negvision.face.losses import UNPGLoss

near = {"rel": 1e-4, "abs": 1e-5, "nan_ok": True}


def numbered(truth):
    return [
        SimpleNamespace(gt_instances=InstanceData(number=torch.arange(len(gt)) + 10 * i, **gt))
        for i, gt in enumerate(truth)
    ]


def each(head, scores, deltas):
    """(image, prior, logits, box deltas times the stride of FCOS) of every prior, in order."""
    for image in range(len(scores[0])):
        prior = 0
        for level, (score, delta) in enumerate(zip(scores, deltas, strict=True)):
            unit = head.strides[level] if getattr(head, "norm_on_bbox", False) else 1
            c = head.cls_out_channels
            for y in range(score.shape[2]):
                for x in range(score.shape[3]):
                    for a in range(score.shape[1] // c):
                        logits = score[image, a * c : (a + 1) * c, y, x]
                        own = delta[image, a * 4 : a * 4 + 4, y, x] * unit
                        yield image, prior, level, (y, x), logits, own
                        prior += 1


MAX_IOU = {"type": "mmdet.MaxIoUAssigner", "pos_iou_thr": 0.4, "neg_iou_thr": 0.4, "min_pos_iou": 0}
HEADS = [
    ("negvision.ATSSHead", {}),
    ("negvision.ATSSHead", {"loss_bbox": {"type": "negvision.BoxIoULoss"}}),
    ("mmdet.ATSSHead", {}),
    ("negvision.ATSSRetinaHead", {}),
    ("negvision.ATSSFCOSHead", {"norm_on_bbox": True}),
    ("mmdet.RetinaHead", {"train": {"assigner": MAX_IOU}}),
]


@pytest.mark.parametrize(("kind", "options"), HEADS)
def test_dense_heads(kind, options):
    head = head_cases.dense_head(kind, 0.15, **options)
    truth, metas = head_cases.batch(0)
    metas[1]["pad_shape"] = (64, 64)  # some of its priors lie on no image
    outputs = [[level.detach() for level in out] for out in head(head_cases.features(1))]
    expected = head.loss_by_feat(*outputs, truth, metas)
    observer = DenseObserver(head)
    head.loss_by_feat(*outputs, truth, metas)
    assert observer.means is None  # no training step
    observer.samples = numbered(truth)
    losses = head.loss_by_feat(*outputs, truth, metas)
    assert {*losses} == {*expected}
    assigned = observed_assignment(head, outputs, truth, metas)
    observer.close()
    assert "loss_by_feat" not in vars(head) and "assign" not in vars(head.assigner)

    priors = torch.cat(head.prior_generator.grid_priors(head_cases.SHAPES, device="cpu"))
    rows = {}
    cells = []
    for image, prior, level, cell, logits, delta in each(head, outputs[0], outputs[1]):
        box = head.bbox_coder.decode(priors[prior][None], delta[None])[0]
        cells.append(
            (image, level, cell, logits.max(), logits.argmax(), box, assigned[image][prior])
        )
        slot = int(assigned[image][prior])
        if slot > 0:
            gt = truth[image][slot - 1]
            wanted = nn.functional.one_hot(gt.labels[0], 5).float()
            p = logits.sigmoid()
            cross = nn.functional.binary_cross_entropy_with_logits(logits, wanted, reduction="none")
            focal = (0.25 * wanted + 0.75 * (1 - wanted)) * (wanted - p).abs() ** 2 * cross
            iou = bbox_overlaps(box[None], gt.bboxes)[0, 0]
            rows.setdefault((image, slot - 1), []).append([*p, focal.sum(), iou])
    slots = [(image, k) for image, gt in enumerate(truth) for k in range(len(gt))]
    assert observer.numbers().tolist() == [10 * image + k for image, k in slots]
    for slot, loss, own, other, other_class, iou in zip(slots, *observer.means, strict=True):
        if slot not in rows:
            assert own.isnan()
            continue
        mean = torch.tensor(rows[slot]).mean(0)
        label = int(truth[slot[0]].labels[slot[1]])
        others = [float(mean[c]) if c != label else -1 for c in range(5)]
        expected = [mean[5], mean[label], max(others), mean[6]]
        found = [float(value) for value in (loss, own, other, iou)]
        assert found == pytest.approx([float(value) for value in expected], **near)
        assert int(other_class) == int(np.argmax(others))
    for image in range(len(truth)):
        check_peaks(observer.found, image, [c[1:] for c in cells if c[0] == image], truth[image])


def observed_assignment(head, outputs, truth, metas):
    seen, rows = [], {}
    name = "assign_batch" if "negvision" in type(head).__module__ else "assign"
    function = getattr(head.assigner, name)

    def watched(*args, **kwargs):
        result = function(*args, **kwargs)
        seen.extend([*result[0]] if isinstance(result, tuple) else [result.gt_inds])
        return result

    setattr(head.assigner, name, watched)
    head.loss_by_feat(*outputs, truth, metas)
    setattr(head.assigner, name, function)
    count = sum(h * w for h, w in head_cases.SHAPES) * head.num_base_priors
    for image, row in enumerate(seen):
        rows[image] = row
        if len(row) < count:  # image 1
            flags = head.prior_generator.valid_flags(head_cases.SHAPES, (64, 64), device="cpu")
            rows[image] = torch.full((count,), -1)
            rows[image][torch.cat(flags).bool()] = row
    return rows


def check_peaks(found, image, cells, truth):
    """``cells``: (level, cell, logit, class, box, assignment) of each prior."""
    best = {}
    for level, cell, logit, label, box, slot in cells:
        if (level, cell) not in best or logit > best[level, cell][0]:
            best[level, cell] = (logit, label, box, slot)
    peaks = []
    for (level, (y, x)), (logit, label, box, slot) in best.items():
        around = [(level, (y + i, x + k)) for i in (-1, 0, 1) for k in (-1, 0, 1)]
        if slot == 0 and all(best[c][0] <= logit for c in around if c in best):
            peaks.append((float(logit.sigmoid()), int(label), box))
    peaks.sort(key=lambda peak: -peak[0])
    free = [
        peak for peak in peaks[:32]
        if not len(truth) or bbox_overlaps(peak[2][None], truth.bboxes).max() <= 0.3
    ][:8]  # fmt: skip
    scores, labels, boxes = (part[image] for part in found)
    assert scores[: len(free)].tolist() == pytest.approx([peak[0] for peak in free], **near)
    assert not scores[len(free) :].any()
    assert labels[: len(free)].tolist() == [peak[1] for peak in free]
    for box, peak in zip(boxes, free, strict=False):
        assert box.tolist() == pytest.approx(peak[2].tolist(), rel=1e-3, abs=1e-2)


def test_an_image_without_boxes_has_only_detections():
    head = head_cases.dense_head("negvision.ATSSHead", 0.3)
    truth, metas = head_cases.batch(0, (0, 0, 0))
    observer = DenseObserver(head)
    observer.samples = numbered(truth)
    head.loss_by_feat(*head(head_cases.features(1)), truth, metas)
    assert observer.means is None and observer.found.scores.shape == (3, 8)


def test_rois():
    model = two_stage_cases.detector({"type": "Shared2FCBBoxHead"})
    nn.init.normal_(model.roi_head.bbox_head.fc_cls.weight, std=3)
    nn.init.normal_(model.roi_head.bbox_head.fc_reg.weight, std=0.3)
    data = two_stage_cases.batch(model, True, (3, 0))
    observer = RoIObserver(model.roi_head.bbox_head)
    seen = []
    function = vars(model.roi_head.bbox_head)["loss_and_target"]
    model.roi_head.bbox_head.loss_and_target = lambda **kw: (seen.append(kw), function(**kw))[1]
    truth = [sample.gt_instances for sample in data["data_samples"]]
    observer.samples = numbered(truth)
    model(**data, mode="loss")
    rois, head = seen[0]["rois"], model.roi_head.bbox_head
    rows, first = {}, 0
    for image, sampled in enumerate(seen[0]["sampling_results"]):
        for k, slot in enumerate(sampled.pos_assigned_gt_inds.tolist()):
            logits, deltas = (
                seen[0][name][first + k].detach() for name in ("cls_score", "bbox_pred")
            )
            gt = truth[image][slot]
            own = deltas.view(4, 4)[gt.labels[0]]
            box = head.bbox_coder.decode(rois[first + k, 1:][None], own[None])
            iou = bbox_overlaps(getattr(box, "tensor", box), gt.bboxes)[0, 0]
            p = logits.softmax(0)
            is_box = bool(sampled.pos_is_gt[k])
            rows.setdefault((image, slot), []).append(
                [*p[:4], -p[gt.labels[0]].log(), np.nan if is_box else float(iou)]
            )
        first += len(sampled.priors)
    assert {image for image, _ in rows} == {0}
    for k, values in enumerate(zip(*observer.means, strict=True)):
        mean = np.nanmean(np.array(rows[0, k], float), 0)
        label = int(truth[0].labels[k])
        others = [mean[c] if c != label else -1 for c in range(4)]
        wanted = [mean[4], mean[label], max(others), np.argmax(others), mean[5]]
        assert [float(v) for v in values] == pytest.approx(wanted, **near)
    assert observer.found.scores.shape == (2, 8)
    for image, boxes in enumerate(observer.found.boxes):
        kept = boxes[observer.found.scores[image] > 0]
        if len(truth[image]) and len(kept):
            assert bbox_overlaps(kept, truth[image].bboxes).max() <= 0.3


def test_the_last_stage_of_a_cascade_is_observed():
    model = two_stage_cases.detector({"type": "Shared2FCBBoxHead"}, "CascadeRCNN")
    observer = box_observer(model)
    data = two_stage_cases.batch(model, True, (3, 0))
    observer.samples = numbered([sample.gt_instances for sample in data["data_samples"]])
    model(**data, mode="loss")
    assert observer.means.own.isfinite().all() and len(observer.means.own) == 3
    last = model.roi_head.bbox_head[2]
    observer.close()
    assert "loss_and_target" not in vars(last)


def test_faces():
    torch.manual_seed(0)
    head = UNPGLoss(num_classes=5, embedding_size=4, scale=8.0)
    embeddings, labels = torch.randn(6, 4), torch.tensor([0, 1, 4, 4, 2, 3])
    observer = FaceObserver(SimpleNamespace(head=head))
    observer.samples = [0] * 6
    mean = head(embeddings, labels)
    cosines = [[cosine_similarity(e, c, 0).item() for c in head.weight] for e in embeddings]
    for i, label in enumerate(labels.tolist()):
        others = [-2 if k == label else c for k, c in enumerate(cosines[i])]
        found = [observer.means.own[i], observer.means.other[i]]
        assert [float(f) for f in found] == pytest.approx([cosines[i][label], max(others)], **near)
        assert observer.means.other_class[i] == np.argmax(others)
    assert observer.means.loss.mean().item() == pytest.approx(mean.item(), **near)


def test_a_single_person_or_class_has_no_other():
    head = UNPGLoss(num_classes=1, embedding_size=4, scale=8.0)
    observer = FaceObserver(SimpleNamespace(head=head))
    observer.samples = [0] * 2
    head(torch.eye(2, 4), torch.tensor([0, 0]))
    assert observer.means.other.isnan().all() and observer.means.other_class.tolist() == [-1, -1]
    own, other, other_class = own_and_other(torch.tensor([[0.5], [0.2]]), torch.tensor([0, 0]))
    assert own.tolist() == [0.5, pytest.approx(0.2)]
    assert other.isnan().all() and other_class.tolist() == [-1, -1]


def test_regions_of_pixels():
    labels = np.zeros((32, 48), np.uint8)
    labels[:, 16:32], labels[8:24, 20:28], labels[:, 44:] = 1, 2, 255
    regions, of = regions_of(labels)
    assert of == [0, 0, 1, 2]
    assert [len(np.unique(regions[labels == c])) for c in (0, 1, 2)] == [2, 1, 1]
    assert not regions[labels == 255].any()
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(1, 3, 16, 24, generator=generator)
    sample = SimpleNamespace(
        gt_sem_seg=PixelData(data=torch.from_numpy(labels.copy())[None]),
        gt_regions=torch.from_numpy(regions.astype(np.int32))[None],
        origin=SimpleNamespace(regions=tuple(of), number=3),
    )
    head = SimpleNamespace(loss_by_feat=lambda seg_logits, samples: {}, out_channels=3)
    observer = SegmentationObserver(SimpleNamespace(decode_head=head))
    observer.samples = [sample]
    head.loss_by_feat(logits, [sample])
    assert observer.numbers().tolist() == [3 * 65536 + k for k in range(4)]
    rows = [[] for _ in of]
    for y in range(16):
        for x in range(24):
            label, region = labels[2 * y + 1, 2 * x + 1], regions[2 * y + 1, 2 * x + 1]
            if region and of[region - 1] == label:
                p = logits[0, :, y, x].softmax(0)
                rows[region - 1].append([*p, -p[label].log(), float(p.argmax() == label)])
    for k, values in enumerate(zip(*observer.means, strict=True)):
        mean = torch.tensor(rows[k]).mean(0)
        others = [-1 if c == of[k] else float(mean[c]) for c in range(3)]
        wanted = [mean[3], mean[of[k]], max(others), int(np.argmax(others)), mean[4]]
        assert [float(v) for v in values] == pytest.approx([float(w) for w in wanted], **near)


def test_numbers_follow_their_boxes_through_a_pipeline():
    rng = np.random.default_rng(0)
    boxes = np.concatenate([rng.uniform(0, 60, (9, 2)), rng.uniform(70, 100, (9, 2))], 1)
    instances = [
        {
            "bbox": box.tolist(), "bbox_label": k % 3, "ignore_flag": int(k == 4),
            "annotation_id": 70 + k,
        }
        for k, box in enumerate(boxes)
    ]  # fmt: skip

    class Boxes(BaseDataset):
        def load_data_list(self):
            return [{"instances": instances, "img_id": 5}, {"instances": [], "img_id": 6}]

    dataset = Boxes(pipeline=[])
    load = LoadAnnotations(with_bbox=True)
    dataset.pipeline = Compose([
        load, Resize((90, 120)), RandomFlip(0.5), RandomCrop((60, 50)), RandomZoom((0.5, 1.5)),
        PackDetInputs(),
    ])  # fmt: skip
    numbers = SampleNumbers(dataset, "detection")
    assert numbers.traced and numbers.annotations.tolist() == [70 + k for k in range(9)]
    np.random.seed(0)  # noqa: NPY002
    seen = set()
    for _ in range(40):
        info = dataset.get_data_info(0)
        image = np.zeros((110, 110, 3), np.uint8)
        packed = dataset.pipeline(
            {**info, "img": image, "img_shape": (110, 110), "ori_shape": (110, 110)}
        )
        sample = packed and packed["data_samples"]
        if sample is None:
            continue
        truth = sample.gt_instances
        assert (truth.labels == truth.number % 3).all() and 4 not in truth.number
        seen |= {*truth.number.tolist()}
        height, width = sample.img_shape
        for box, number in zip(truth.bboxes.tensor, truth.number.tolist(), strict=True):
            x1, y1, x2, y2 = boxes[number]
            corners = sample.origin.homography @ np.array([[x1, x2], [y1, y2], [1, 1]])
            xs, ys = np.sort(corners[0]).clip(0, width), np.sort(corners[1]).clip(0, height)
            # What the first of two cuts has left lies inside.
            assert (box >= torch.tensor([xs[0], ys[0], xs[0], ys[0]]) - 0.1).all()
            assert (box <= torch.tensor([xs[1], ys[1], xs[1], ys[1]]) + 0.1).all()
    assert len(seen) == 8
    numbers.close()
    assert dataset.pipeline.transforms[0] is load and len(dataset.pipeline.transforms) == 6


def test_positives_are_found_as_on_a_cuda_device():
    mask = torch.tensor([0, 1, 1, 0, 1, 0, 1], dtype=torch.bool)

    class Cuda(torch.Tensor):
        is_cuda = True

    for most in (0, 2, 4, 6):
        rows = _true_at(mask.as_subclass(Cuda), most).tolist()
        assert rows == ([1, 2, 4, 6] + [7] * 6)[:most]
