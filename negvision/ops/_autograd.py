"""Fake kernels and gradients of the compiled operators."""

import torch
from torch import Tensor


def register() -> None:
    """Register them; call once after loading the library."""
    library = torch.library
    library.register_fake("negvision::atss_assign", _fake_atss_assign)
    library.register_fake("negvision::negatives_logsumexp", _fake_negatives_logsumexp)
    library.register_fake("negvision::negatives_softmax_", lambda *_: None)
    library.register_fake("negvision::negatives_histogram", _fake_negatives_histogram)
    library.register_fake("negvision::image_planes", _fake_planes)
    # Absent from libraries built before them.
    for name, fake in (
        ("distort_colors", _fake_planes),
        ("assign_by_predictions", _fake_assign_by_predictions),
        ("max_iou_assign", _fake_max_iou_assign),
        ("class_logsumexp", _fake_class_logsumexp),
        ("class_logsumexp_backward", _fake_class_logsumexp_backward),
    ):
        if hasattr(torch.ops.negvision, name):
            library.register_fake(f"negvision::{name}", fake)
    for kind, fake in (("pairwise", _fake_pairwise), ("aligned", _fake_aligned)):
        name = f"negvision::{kind}_box_iou"
        backward = getattr(torch.ops.negvision, f"{kind}_box_iou_backward")
        library.register_fake(name, fake)
        library.register_fake(f"{name}_backward", _fake_backward)
        library.register_autograd(name, _backward_with(backward), setup_context=_remember)
        library.register_autograd(f"{name}_backward", _refuse)


def _fake_atss_assign(priors, num_level_priors, gt_boxes, num_gts, *_):
    return _fake_max_iou_assign(priors, gt_boxes, num_gts)


def _fake_assign_by_predictions(priors, boxes, *_):
    values = priors.new_empty(boxes.shape[:2])
    gt_inds = torch.empty_like(values, dtype=torch.int64)
    return gt_inds, values, torch.empty_like(gt_inds), torch.empty_like(values)


def _fake_max_iou_assign(priors, gt_boxes, num_gts, *_):
    values = priors.new_empty((len(num_gts), priors.shape[1]))
    gt_inds = torch.empty_like(values, dtype=torch.int64)
    return gt_inds, values, torch.empty_like(gt_inds)


def _fake_negatives_logsumexp(similarities, row_labels, *_):
    rows = similarities.new_empty(similarities.shape[0])
    return rows, torch.empty_like(rows, dtype=torch.int64)


def _fake_negatives_histogram(similarities, row_labels, column_labels, diagonal, prefixes, shift):
    return prefixes.new_empty((prefixes.shape[0], 256))


def _fake_class_logsumexp(embeddings, *_):
    return embeddings.new_empty(embeddings.shape[0])


def _fake_class_logsumexp_backward(embeddings, centers, *arguments):
    of_centers = centers if arguments[-1] else centers[:0]
    return torch.empty_like(embeddings), of_centers.new_empty(of_centers.shape)


def _fake_planes(image, *_):
    return image.new_empty((image.shape[2], *image.shape[:2]))


def _fake_pairwise(boxes1, boxes2, mode, eps):
    return boxes1.new_empty((boxes1.shape[0], boxes2.shape[0]))


def _fake_aligned(boxes1, boxes2, mode, eps):
    return boxes1.new_empty((boxes1.shape[0],))


def _fake_backward(grad, boxes1, boxes2, mode, eps):
    return boxes1.new_empty(boxes1.shape), boxes2.new_empty(boxes2.shape)


def _remember(ctx, inputs, output) -> None:
    boxes1, boxes2, ctx.mode, ctx.eps = inputs
    ctx.save_for_backward(boxes1, boxes2)


def _backward_with(operator):
    def backward(ctx, grad: Tensor):
        boxes1, boxes2 = ctx.saved_tensors
        grad1, grad2 = operator(grad, boxes1, boxes2, ctx.mode, ctx.eps)
        return grad1, grad2, None, None

    return backward


def _refuse(ctx, *grads):
    """Refuse a second derivative, which autograd would silently ignore."""
    raise NotImplementedError("negvision's box overlaps can be differentiated once, not twice")
