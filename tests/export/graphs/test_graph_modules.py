"""Each graph, run by torch, against the predictions of its model."""

import pytest
import torch
from mmdet.structures import DetDataSample
from mmseg.structures import SegDataSample

from negvision.errors import ExportError
from negvision.export.graphs.choice import choose_graph
from negvision.face.structures import FaceDataSample

SIZES = [(150, 190), (160, 130)]


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("atss", {}),
        ("atss", {"model__test_cfg__nms_pre": -1}),
        ("atss", {"model__test_cfg__max_per_img": 7}),
        ("atss", {"model__test_cfg__min_bbox_size": 40}),
        ("abet", {}),
        ("abet", {"model__bbox_head__score": "energy"}),
        ("retina", {}),
        ("retina", {"model__bbox_head__anchor_generator__ratios": [0.5, 1.0, 2.0]}),
        ("faster", {}),
        ("faster_abet", {}),
        ("faster_abet", {"model__roi_head__bbox_head__reg_class_agnostic": True}),
    ],
)
def test_boxes_match_the_model(built, name, options):
    _, model = built(name, **options)
    images = torch.randn(2, 3, 160, 192, generator=torch.Generator().manual_seed(1))
    samples = [
        DetDataSample(metainfo={"img_shape": size, "ori_shape": size, "scale_factor": (1.0, 1.0)})
        for size in SIZES
    ]
    with torch.no_grad():
        wanted = [one.pred_instances for one in model.predict(images, samples, rescale=False)]
        graph = choose_graph(model)
        outputs = dict(zip(graph.outputs, graph.module(images, torch.tensor(SIZES)), strict=True))
    assert graph.has_ood == ("abet" in name or "faster" in name)
    for row, found in enumerate(wanted):
        count = outputs["counts"][row].item()
        assert count == len(found) > 5
        torch.testing.assert_close(outputs["boxes"][row, :count], found.bboxes)
        torch.testing.assert_close(outputs["scores"][row, :count], found.scores)
        assert torch.equal(outputs["labels"][row, :count], found.labels)
        assert (outputs["labels"][row, count:] == -1).all()
        assert not outputs["boxes"][row, count:].any()
        assert graph.has_ood == ("ood_score" in found)
        if graph.has_ood:
            torch.testing.assert_close(outputs["ood_scores"][row, :count], found.ood_score)


def test_boxes_end_at_the_padding(built):
    _, model = built("atss")
    graph = choose_graph(model)
    images = torch.randn(2, 3, 160, 192, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        boxes = graph.module(images, torch.tensor(SIZES))[0]
        full = graph.module(images, graph.defaults["sizes"])[0]
    assert boxes[1, :, 2].max() == 130 and full[1, :, 2].max() > 130


@pytest.mark.parametrize("kind", ["negvision.AbeTEncoderDecoder", "EncoderDecoder"])
def test_maps_match_the_model(built, kind):
    _, model = built("pixels", model__type=kind)
    images = torch.randn(2, 3, 96, 112, generator=torch.Generator().manual_seed(1))
    meta = {"img_shape": (96, 112), "ori_shape": (75, 91), "padding_size": [0, 10, 0, 5]}
    with torch.no_grad():
        wanted = model.predict(images, [SegDataSample(metainfo=meta) for _ in range(2)])
        graph = choose_graph(model)
        labels, *scores = graph.module(images, torch.tensor([91, 102]), torch.tensor([75, 91]))
    assert len(labels[0].unique()) > 2
    assert graph.has_ood == bool(scores) == (kind != "EncoderDecoder")
    for row, sample in enumerate(wanted):
        assert torch.equal(labels[row], sample.pred_sem_seg.data[0].int())
        if scores:
            torch.testing.assert_close(scores[0][row], sample.ood_map.data[0])


@pytest.mark.parametrize("flip", [False, True])
def test_embeddings_match_the_model(built, flip):
    _, model = built("face", model__flip_test=flip)
    graph = choose_graph(model)
    assert graph.size == (32, 32)
    images = torch.randn(3, 3, 32, 32)
    with torch.no_grad():
        wanted = model(images, [FaceDataSample() for _ in range(3)], mode="predict")
        [embeddings] = graph.module(images)
    torch.testing.assert_close(embeddings, torch.stack([one.embedding for one in wanted]))


def test_face_model_checks_the_size_of_its_pipeline(built):
    _, model = built("face")
    with pytest.raises(ExportError, match="takes no image of 48 x 48 pixels"):
        choose_graph(model, (48, 48))


@pytest.mark.parametrize(
    ("name", "options", "reason"),
    [
        ("atss", {"model__test_cfg__nms__type": "soft_nms"}, "soft_nms"),
        ("atss", {"model__test_cfg__max_per_img": -1}, "max_per_img"),
        ("pixels", {"model__test_cfg__mode": "slide"}, "test_cfg.mode=whole"),
    ],
)
def test_unsupported_options_are_named(built, name, options, reason):
    _, model = built(name, **options)
    with pytest.raises(ExportError, match=reason):
        choose_graph(model)


def test_head_with_its_own_steps_is_refused(built):
    _, model = built("atss")

    class Own(type(model.bbox_head)):
        def _bbox_post_process(self, *args, **kwargs):
            return super()._bbox_post_process(*args, **kwargs)

    model.bbox_head.__class__ = Own
    with pytest.raises(ExportError, match="the box head Own has a _bbox_post_process of its own"):
        choose_graph(model)
