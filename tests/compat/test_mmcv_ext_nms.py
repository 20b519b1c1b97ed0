"""NMS, NMS match and Soft-NMS against loops over Python floats."""

import math

import numpy as np
import pytest
import torch
import torchvision

from negvision.compat import mmcv_ext


def random_detections(seed, count=40):
    generator = torch.Generator().manual_seed(seed)
    top_left = torch.rand(count, 2, generator=generator, dtype=torch.float64) * 30
    size = torch.rand(count, 2, generator=generator, dtype=torch.float64) * 20 + 1
    boxes = torch.cat([top_left, top_left + size], dim=1)
    scores = torch.rand(count, generator=generator, dtype=torch.float64)
    return boxes, scores


def reference_iou(a, b, offset=0):
    width = max(0.0, min(a[2], b[2]) - max(a[0], b[0]) + offset)
    height = max(0.0, min(a[3], b[3]) - max(a[1], b[1]) + offset)
    area_a = (a[2] - a[0] + offset) * (a[3] - a[1] + offset)
    area_b = (b[2] - b[0] + offset) * (b[3] - b[1] + offset)
    union = area_a + area_b - width * height
    return width * height / union if union else 0.0


def reference_nms(boxes, scores, threshold, offset):
    boxes, scores = boxes.tolist(), scores.tolist()
    kept = []
    for index in sorted(range(len(boxes)), key=lambda i: -scores[i]):
        if all(reference_iou(boxes[index], boxes[k], offset) <= threshold for k in kept):
            kept.append(index)
    return kept


def reference_softnms(boxes, scores, threshold, sigma, min_score, method, offset):
    boxes, left = boxes.tolist(), dict(enumerate(scores.tolist()))
    taken = []
    while left:
        best = max(left, key=lambda i: left[i])
        taken.append((best, left.pop(best)))
        for index in list(left):
            iou = reference_iou(boxes[best], boxes[index], offset)
            if method == 2:
                left[index] *= math.exp(-iou * iou / sigma)
            elif iou >= threshold:
                left[index] *= 0 if method == 0 else 1 - iou
            if left[index] < min_score:
                del left[index]
    return taken


@pytest.mark.parametrize("offset", [0, 1])
@pytest.mark.parametrize("threshold", [0.1, 0.5, 0.8])
def test_nms_equals_reference(offset, threshold):
    for seed in range(5):
        boxes, scores = random_detections(seed)
        kept = mmcv_ext.nms(boxes, scores, iou_threshold=threshold, offset=offset)
        assert kept.tolist() == reference_nms(boxes, scores, threshold, offset)
        if offset == 0:
            assert torch.equal(kept, torchvision.ops.nms(boxes, scores, threshold))


def test_iou_equal_to_threshold_stays_in_nms_and_joins_in_nms_match():
    boxes = torch.tensor([[0.0, 0, 2, 1], [0, 0, 1, 1]])  # IoU exactly 0.5
    scores = torch.tensor([0.9, 0.8])
    assert mmcv_ext.nms(boxes, scores, 0.5, 0).tolist() == [0, 1]
    assert mmcv_ext.nms_match(torch.cat([boxes, scores[:, None]], 1), 0.5) == [[0, 1]]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_nms_in_half_precision(dtype):
    boxes = torch.tensor([[0, 0, 8, 8], [0, 0, 8, 7], [20, 20, 28, 28]], dtype=dtype)
    scores = torch.tensor([0.5, 0.75, 0.25], dtype=dtype)
    assert mmcv_ext.nms(boxes, scores, 0.5, 0).tolist() == [1, 2]


@pytest.mark.parametrize("threshold", [0.1, 0.4])
def test_nms_match_equals_reference(threshold):
    for seed in range(5):
        boxes, scores = random_detections(seed)
        expected, grouped = [], set()
        by_score = scores.argsort(descending=True).tolist()
        for index in by_score:
            if index in grouped:
                continue
            group = [index] + [
                other
                for other in by_score[by_score.index(index) + 1 :]
                if other not in grouped
                and reference_iou(boxes[index].tolist(), boxes[other].tolist()) >= threshold
            ]
            grouped.update(group)
            expected.append(group)
        dets = torch.cat([boxes, scores[:, None]], dim=1)
        assert mmcv_ext.nms_match(dets, iou_threshold=threshold) == expected


@pytest.mark.parametrize("offset", [0, 1])
@pytest.mark.parametrize("method", [0, 1, 2])
def test_softnms_equals_reference(method, offset):
    for seed in range(5):
        boxes, scores = random_detections(seed)
        dets = boxes.new_full((len(boxes), 5), torch.nan)
        arguments = (0.3, 0.5, 0.05, method, offset)
        indices = mmcv_ext.softnms(boxes, scores, dets, *arguments)
        expected = reference_softnms(boxes, scores, *arguments)
        assert indices.tolist() == [index for index, _ in expected]
        assert 0 < len(indices) < len(boxes)
        torch.testing.assert_close(dets[: len(indices), :4], boxes[indices])
        torch.testing.assert_close(
            dets[: len(indices), 4], boxes.new_tensor([score for _, score in expected])
        )


def test_softnms_keeps_the_first_box_even_below_the_minimum():
    boxes = torch.tensor([[0.0, 0, 4, 4], [10, 10, 14, 14]])
    scores = torch.tensor([0.01, 0.02])
    dets = torch.empty(2, 5)
    assert mmcv_ext.softnms(boxes, scores, dets, 0.3, 0.5, 0.05, 1, 0).tolist() == [1]


def test_no_boxes(substituted_mmcv):
    boxes, scores = torch.zeros(0, 4), torch.zeros(0)
    for function in (substituted_mmcv.nms, substituted_mmcv.soft_nms):
        dets, indices = function(boxes, scores, 0.5)
        assert dets.shape == (0, 5)
        assert indices.shape == (0,) and indices.dtype == torch.long
    assert mmcv_ext.nms_match(torch.zeros(0, 5), 0.5) == []


def test_mmcv_public_functions(substituted_mmcv):
    boxes, scores = random_detections(0)
    boxes, scores = boxes.float(), scores.float()
    dets, indices = substituted_mmcv.nms(
        boxes.numpy(), scores.numpy(), 0.5, score_threshold=0.2, max_num=5
    )
    expected = [i for i in reference_nms(boxes, scores, 0.5, 0) if scores[i] > 0.2][:5]
    assert isinstance(dets, np.ndarray) and indices.tolist() == expected

    for method in ("naive", "linear", "gaussian"):
        dets, indices = substituted_mmcv.soft_nms(boxes, scores, 0.3, method=method)
        assert len(dets) == len(indices) > 0
        assert (dets[:-1, 4] >= dets[1:, 4]).all()

    groups = substituted_mmcv.nms_match(torch.cat([boxes, scores[:, None]], dim=1), 0.3)
    assert sorted(torch.cat(groups).tolist()) == list(range(len(boxes)))

    labels = torch.arange(len(boxes)) % 3
    _, keep = substituted_mmcv.batched_nms(boxes, scores, labels, {"iou_threshold": 0.5})
    expected = torchvision.ops.batched_nms(boxes, scores, labels, 0.5)
    assert torch.equal(keep, expected)
