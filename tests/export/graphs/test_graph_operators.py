"""The operators of the graphs against those of mmcv, and torch's checks of operators."""

import pytest
import torch
from mmcv.ops import batched_nms
from torch.nn import functional as F

from negvision.export.graphs import candidates
from negvision.export.graphs.operators import ABSENT, fit_to, pool_regions, suppress
from negvision.export.graphs.segmentation import AdaptiveMean


def _boxes(count: int, batch: int = 2) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(count)
    corner = torch.rand(batch, count, 2, generator=generator) * 80
    boxes = torch.cat([corner, corner + torch.rand(batch, count, 2, generator=generator) * 40], -1)
    scores = torch.rand(batch, count, generator=generator)
    return boxes, scores, torch.randint(0, 3, (batch, count), generator=generator)


@pytest.mark.parametrize("agnostic", [False, True])
@pytest.mark.parametrize("limit", [7, 500])
def test_suppression_matches_mmcv(agnostic, limit):
    boxes, scores, labels = _boxes(300)
    absent = scores < 0.2
    nms = {"type": "nms", "iou_threshold": 0.4, "class_agnostic": agnostic}
    found, places = candidates.suppress_by_group(
        boxes, torch.where(absent, ABSENT, scores), labels, nms, limit
    )
    assert found.shape == places.shape == (2, limit)
    for image in range(2):
        present = (~absent[image]).nonzero()[:, 0]
        kept = batched_nms(
            boxes[image, present], scores[image, present], labels[image, present], dict(nms)
        )[1][:limit]
        count = len(kept)
        assert count > 0
        assert places[image, :count].tolist() == present[kept].tolist()
        assert torch.equal(found[image, :count], scores[image, present[kept]])
        assert (found[image, count:] == ABSENT).all()


def test_image_without_boxes():
    boxes, scores, labels = _boxes(20)
    scores = torch.stack([torch.full_like(scores[0], ABSENT), scores[1]])
    found, _ = candidates.suppress_by_group(boxes, scores, labels, {"iou_threshold": 0.5}, 5)
    assert (found[0] == ABSENT).all() and (found[1] > 0).any()


def test_best_of_fewer_scores():
    values, places = candidates.best(torch.tensor([[0.3, 0.9]]), 4)
    torch.testing.assert_close(values, torch.tensor([[0.9, 0.3, ABSENT, ABSENT]]))
    assert places.tolist() == [[1, 0, 0, 0]]


def test_operators_pass_the_checks_of_torch():
    boxes, scores, _ = _boxes(30)
    torch.library.opcheck(suppress, (boxes, scores, 0.5, 8))
    features = [torch.rand(2, 3, 16, 16), torch.rand(2, 3, 8, 8)]
    regions = torch.cat([torch.tensor([0.0] * 15 + [1.0] * 15)[:, None], boxes[0]], 1)
    levels = torch.arange(30) % 2
    torch.library.opcheck(pool_regions, (features, regions, levels, [0.25, 0.125], 7, 2, True))
    sizes = torch.tensor([5, 6]), torch.tensor([9, 0])
    torch.library.opcheck(fit_to, (torch.rand(1, 2, 8, 8), *sizes, False))


def test_regions_are_pooled_from_their_own_level():
    features = [torch.full((1, 1, 16, 16), 1.0), torch.full((1, 1, 8, 8), 2.0)]
    regions = torch.tensor([[0.0, 8, 8, 40, 40], [0, 16, 16, 48, 48], [0, 8, 8, 40, 40]])
    pooled = pool_regions(features, regions, torch.tensor([1, 0, 0]), [0.25, 0.125], 2, 2, True)
    assert pooled.mean((1, 2, 3)).tolist() == [2.0, 1.0, 1.0]


@pytest.mark.parametrize("align_corners", [False, True])
def test_maps_are_cropped_and_enlarged(align_corners):
    maps = torch.rand(2, 3, 10, 12)
    out = fit_to(maps, torch.tensor([7, 99]), torch.tensor([14, 24]), align_corners)
    wanted = F.interpolate(maps[:, :, :7], (14, 24), mode="bilinear", align_corners=align_corners)
    torch.testing.assert_close(out, wanted)
    same = fit_to(maps, torch.tensor([99, 99]), torch.tensor([0, 0]), align_corners)
    assert torch.equal(same, maps)


@pytest.mark.parametrize("bins", [(1, 1), (2, 3), (6, 6)])
@pytest.mark.parametrize("size", [(6, 7), (13, 5), (24, 24)])
def test_adaptive_mean_is_the_adaptive_pool(bins, size):
    values = torch.rand(2, 3, *size)
    torch.testing.assert_close(
        AdaptiveMean(bins)(values), F.adaptive_avg_pool2d(values, bins), atol=1e-6, rtol=1e-5
    )
