"""Assignments that look at predictions: task-aligned, SimOTA and dynamic soft labels."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from negvision.ops import prediction_fallback
from negvision.ops._assignment import (
    constant,
    flattened,
    joined,
    per_image,
    require_shape,
    run_operator,
    similarity_arguments,
)

# The rules of the operator.
_TASK_ALIGNED, _CONTAINED, _SIM_OTA, _SOFT_LABEL = range(4)
# Below the size for which PyTorch wakes threads: beside a busy core, each of its operators would
# wait for the thread there.
_SCORES_AT_ONCE = (1 << 15) - 1


def tal_assign(
    priors: Tensor,
    pred_boxes: Tensor,
    pred_scores: Tensor,
    gt_boxes: Sequence[Tensor],
    gt_labels: Sequence[Tensor],
    topk: int = 13,
    *,
    alpha: float = 1.0,
    beta: float = 6.0,
    similarity: str = "iou",
    similarity_scale: float | Sequence[float] | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Choose the positive priors of every box of every image by their predictions (TOOD).

    For each box, the ``topk`` priors with the highest ``score ** alpha * IoU ** beta`` are
    candidates: the score of the box's class, and the IoU of the predicted box. A candidate is
    positive if its metric is above 0 and its center lies more than 0.01 pixels inside the box. A
    prior that several boxes claim goes to the one whose IoU is highest.

    Equal metrics rank by prior index, of equal IoUs the box with the lower index wins, so results
    are the same on every device and number of threads. (With an ``alpha`` or ``beta`` that is not
    a multiple of 0.5, the last bit of pow can differ between devices.) A pair whose score or IoU
    is NaN is no candidate. Memory is O(B A + G topk), never boxes x priors; the CUDA kernels do
    not wait for the host.

    Args:
        priors: Shape (A, 4), shared by all images, or (B, A, 4): (x1, y1, x2, y2) in pixels; only
            their centers count. Any floating dtype; computed in float32.
        pred_boxes: Shape (B, A, 4), decoded, (x1, y1, x2, y2) in pixels.
        pred_scores: Shape (B, A, C), probabilities.
        gt_boxes: One tensor (G_i, 4) per image; G_i may be 0. A box whose width or height is not
            positive, or whose area is not finite, claims nothing.
        gt_labels: One int64 tensor (G_i,) per image, from 0 to C - 1.
        topk: Candidates per box.
        alpha, beta: Exponents, at least 0.
        similarity, similarity_scale: What takes the place of the IoU; see
            :func:`negvision.atss_assign`.

    Returns:
        ``gt_inds``, (B, A) int64: i + 1 for a positive of the image's box i, else 0.
        ``max_overlaps``, (B, A) float32: the IoU of a positive with its box, else 0. ``labels``,
        (B, A) int64: the label of a positive's box, else -1. ``metrics``, (B, A) float32: the
        metric of a positive, else 0.

    Raises:
        ValueError: Arguments do not match, or a label is not from 0 to C - 1. (Labels on a GPU are
            not read by the host; a box with such a label claims nothing there.)
        RuntimeError: A score that is used lies outside [0, 1]. (On a GPU its pair is no candidate.)
            On CUDA, ``topk`` above 192.

    Source:
        Feng et al., ICCV 2021, "TOOD: Task-aligned One-stage Object Detection", section 3.2.

    Example:
        >>> priors = torch.tensor([[0.0, 0.0, 8.0, 8.0], [4.0, 0.0, 12.0, 8.0]])
        >>> gt_inds, overlaps, labels, metrics = tal_assign(
        ...     priors, priors[None], torch.tensor([[[0.5], [0.9]]]),
        ...     [torch.tensor([[0.0, 0.0, 8.0, 8.0]])], [torch.tensor([0])], topk=1)
        >>> gt_inds.tolist(), metrics.tolist()
        ([[1, 0]], [[0.5, 0.0]])
    """
    return _assign(
        priors, pred_boxes, pred_scores, gt_boxes, gt_labels, topk, _TASK_ALIGNED,
        [alpha, beta, 0.0], similarity=similarity_arguments(similarity, similarity_scale),
    )  # fmt: skip


def sim_ota_assign(
    priors: Tensor,
    pred_boxes: Tensor,
    pred_scores: Tensor,
    gt_boxes: Sequence[Tensor],
    gt_labels: Sequence[Tensor],
    topk: int = 10,
    *,
    center_radius: float = 2.5,
    cls_weight: float = 1.0,
    iou_weight: float = 3.0,
) -> tuple[Tensor, Tensor, Tensor]:
    """Choose the positive priors of every box of every image by their costs (SimOTA, YOLOX).

    Priors take part whose point lies inside a box, or less than ``center_radius`` strides from
    the middle of one in x and y. The cost of a pair is the binary cross-entropy of the prior's
    scores with the box's class, times ``cls_weight``, plus ``-log(IoU + 1e-7)`` times
    ``iou_weight``. Each box takes the k priors of lowest cost, those first that lie inside this
    box and near its middle; k is the sum of its ``topk`` highest IoUs, rounded down, at least 1.
    A prior that several boxes take goes to the box for which its cost is lowest.

    Equal costs rank by index; costs are float32 values of float64 sums. Devices, memory, and boxes
    and pairs that claim nothing are as in :func:`tal_assign`.

    Args:
        priors: Shape (A, 4) or (B, A, 4): x, y of the point, stride in x and y, in pixels.
        pred_boxes, pred_scores, gt_boxes, gt_labels: As in :func:`tal_assign`.
        topk: The most priors a box takes.
        center_radius: In strides.
        cls_weight, iou_weight: At least 0.

    Returns:
        ``gt_inds``, ``max_overlaps`` and ``labels``, as in :func:`tal_assign`.

    Raises:
        ValueError, RuntimeError: As :func:`tal_assign`; also strides that are not positive (on the
            CPU), and on CUDA ``topk`` above 96.

    Source:
        Ge et al., 2021, "YOLOX: Exceeding YOLO Series in 2021", section 2.1.

    Example:
        >>> priors = torch.tensor([[4.0, 4.0, 8.0, 8.0], [12.0, 4.0, 8.0, 8.0]])
        >>> boxes = torch.tensor([[[0.0, 0.0, 8.0, 8.0], [0.0, 0.0, 8.0, 4.0]]])
        >>> gt_inds, overlaps, labels = sim_ota_assign(
        ...     priors, boxes, torch.full((1, 2, 3), 0.1),
        ...     [torch.tensor([[0.0, 0.0, 8.0, 8.0]])], [torch.tensor([2])])
        >>> gt_inds.tolist(), labels.tolist()
        ([[1, 0]], [[2, -1]])
    """
    scores = constant(pred_scores)
    costs = _by_rows(scores, lambda s: torch.log1p(-s).clamp_(min=-100).sum(-1).neg_())
    return _assign(
        priors, pred_boxes, scores, gt_boxes, gt_labels, topk, _SIM_OTA,
        [cls_weight, iou_weight, center_radius], costs,
    )[:3]  # fmt: skip


def dynamic_soft_label_assign(
    priors: Tensor,
    pred_boxes: Tensor,
    pred_scores: Tensor,
    gt_boxes: Sequence[Tensor],
    gt_labels: Sequence[Tensor],
    topk: int = 13,
    *,
    center_radius: float = 3.0,
    iou_weight: float = 3.0,
    gt_centers: Sequence[Tensor] | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Choose the positive priors of every box of every image by soft-label costs (RTMDet).

    Priors take part whose point lies inside a box. The cost of a pair is the sum over classes of
    the binary cross-entropy with a soft label (the IoU for the box's class, else 0) times the
    squared error of the probability, plus ``-log(IoU + 1e-7)`` times ``iou_weight``, plus
    ``10 ** (distance - center_radius)``: the distance of the point from the middle of the box in
    strides. How many priors a box takes, and all else, is as in :func:`sim_ota_assign`, without
    its preference for central priors. A pair whose cost is not finite is no candidate.

    Args:
        priors: As in :func:`sim_ota_assign`.
        pred_boxes, gt_boxes, gt_labels: As in :func:`tal_assign`.
        pred_scores: Shape (B, A, C), logits.
        topk: The most priors a box takes.
        center_radius: In strides.
        iou_weight: At least 0.
        gt_centers: One tensor (G_i, 2) per image to use instead of the middles of boxes, such as
            the centers of masks.

    Returns:
        ``gt_inds``, ``max_overlaps`` and ``labels``, as in :func:`tal_assign`.

    Raises:
        ValueError, RuntimeError: As :func:`sim_ota_assign`, without a limit of scores.

    Source:
        Lyu et al., 2022, "RTMDet: An Empirical Study of Designing Real-Time Object Detectors",
        section 3.3.

    Example:
        >>> priors = torch.tensor([[4.0, 4.0, 8.0, 8.0], [12.0, 4.0, 8.0, 8.0]])
        >>> boxes = torch.tensor([[[0.0, 0.0, 8.0, 8.0], [0.0, 0.0, 8.0, 4.0]]])
        >>> gt_inds, overlaps, labels = dynamic_soft_label_assign(
        ...     priors, boxes, torch.zeros(1, 2, 3),
        ...     [torch.tensor([[0.0, 0.0, 16.0, 8.0]])], [torch.tensor([2])])
        >>> gt_inds.tolist(), overlaps.tolist()
        ([[1, 0]], [[0.5, 0.0]])
    """
    scores = constant(pred_scores)
    softplus = torch.nn.functional.softplus
    costs = _by_rows(scores, lambda s: softplus(s).mul_(s.sigmoid().square_()).sum(-1))
    return _assign(
        priors, pred_boxes, scores, gt_boxes, gt_labels, topk, _SOFT_LABEL,
        [1.0, iou_weight, center_radius], costs, gt_centers,
    )[:3]  # fmt: skip


def task_aligned_targets(
    pd_scores: Tensor,
    pd_bboxes: Tensor,
    anc_points: Tensor,
    gt_labels: Tensor,
    gt_bboxes: Tensor,
    mask_gt: Tensor,
    *,
    topk: int = 10,
    alpha: float = 0.5,
    beta: float = 6.0,
    eps: float = 1e-9,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Training targets by task-aligned assignment, with the arguments of Ultralytics' assigner.

    It can stand in for the ``forward`` of ``TaskAlignedAssigner`` in YOLOv8 and later, for
    horizontal boxes. The candidates of a box are the ``topk`` anchor points inside it with the
    highest ``score ** alpha * CIoU ** beta``, CIoU being 0 where it is negative. A point that
    several boxes claim goes to the box around it whose CIoU is highest, even if that box did not
    claim it. The target score of a positive is its metric over the highest metric of its box,
    times the highest CIoU of its box.

    Only points with a metric above 0 are candidates: if a box has fewer than ``topk`` of them, no
    others fill the places. Ties and memory are as in :func:`tal_assign`.

    Args:
        pd_scores: Shape (B, A, C), probabilities.
        pd_bboxes: Shape (B, A, 4), decoded, (x1, y1, x2, y2) in pixels.
        anc_points: Shape (A, 2), in pixels.
        gt_labels: Shape (B, M, 1), padded.
        gt_bboxes: Shape (B, M, 4), padded.
        mask_gt: Shape (B, M, 1): whether a row is a box.
        topk, alpha, beta: See above; exponents at least 0.
        eps: Added to the highest metric of a box.

    Returns:
        ``target_labels`` (B, A) int64 and ``target_bboxes`` (B, A, 4): those of the box of a
        positive, of box 0 for other points; ``target_scores`` (B, A, C) float32: 0 except for the
        class of a positive; ``fg_mask`` (B, A) bool: the positives; ``target_gt_idx`` (B, A) int64:
        the index of a positive's box, else 0. Without any box (M = 0): labels of C, and zeros.

    Raises:
        ValueError, RuntimeError: As :func:`tal_assign`.

    Source:
        Feng et al., ICCV 2021, "TOOD: Task-aligned One-stage Object Detection", section 3.2;
        Zheng et al., AAAI 2020 (CIoU).

    Example:
        >>> points = torch.tensor([[4.0, 4.0], [20.0, 4.0]])
        >>> boxes = torch.tensor([[[0.0, 0.0, 8.0, 8.0], [12.0, 0.0, 28.0, 8.0]]])
        >>> labels, boxes, scores, positive, index = task_aligned_targets(
        ...     torch.full((1, 2, 3), 0.5), boxes, points, torch.tensor([[[2]]]),
        ...     torch.tensor([[[0.0, 0.0, 8.0, 8.0]]]), torch.ones(1, 1, 1))
        >>> positive.tolist(), scores[0, 0].tolist()
        ([[True, False]], [0.0, 0.0, 1.0])
    """
    images, rows = gt_bboxes.shape[:2]
    require_shape(gt_bboxes, (len(pd_scores), rows, 4), "gt_bboxes", pd_scores)
    require_shape(gt_labels, (images, rows, 1), "gt_labels", pd_scores)
    require_shape(mask_gt, (images, rows, 1), "mask_gt", pd_scores)
    require_shape(anc_points, (None, 2), "anc_points", pd_scores)
    scores = torch.zeros_like(pd_scores, dtype=torch.float32, requires_grad=False)
    index = torch.zeros(pd_scores.shape[:2], dtype=torch.int64, device=pd_scores.device)
    if rows == 0:
        labels = torch.full_like(index, pd_scores.shape[2])
        return labels, torch.zeros_like(pd_bboxes), scores, index > 0, index
    boxes = torch.where(mask_gt.bool(), gt_bboxes, 0)  # without area, so they claim nothing
    known = torch.where(mask_gt.bool(), gt_labels, 0).squeeze(-1).long()
    gt_inds, overlaps, _, metrics = _assign(
        torch.cat([anc_points, anc_points], 1), pd_bboxes, pd_scores, boxes.unbind(0),
        known.unbind(0), topk, _CONTAINED, [alpha, beta, 0.0],
    )  # fmt: skip
    positive = gt_inds > 0
    index = (gt_inds - 1).clamp_(min=0)
    labels = gt_labels.squeeze(-1).long().gather(1, index)
    zeros = metrics.new_zeros((images, rows))
    best_metric = zeros.scatter_reduce(1, index, metrics, "amax")
    best_overlap = zeros.scatter_reduce(1, index, overlaps, "amax")
    share = metrics * best_overlap.gather(1, index) / (best_metric.gather(1, index) + eps)
    column = known.gather(1, index)[..., None]
    scores.scatter_(2, column, torch.where(positive, share, 0)[..., None])
    target_boxes = gt_bboxes.gather(1, index[..., None].expand(-1, -1, 4))
    return labels, target_boxes, scores, positive, index


def _by_rows(scores: Tensor, costs_of: Callable[[Tensor], Tensor]) -> Tensor:
    """The costs of (B, A, C) scores, (B, A); on a CPU in small pieces, in one thread."""
    if not scores.is_cpu or scores.numel() <= _SCORES_AT_ONCE:
        return costs_of(scores)
    rows = scores.reshape(-1, scores.shape[-1])
    pieces = rows.split(max(1, _SCORES_AT_ONCE // max(1, rows.shape[1])))
    return torch.cat([costs_of(piece) for piece in pieces]).view(scores.shape[:2])


def _assign(
    priors: Tensor,
    pred_boxes: Tensor,
    pred_scores: Tensor,
    gt_boxes: Sequence[Tensor],
    gt_labels: Sequence[Tensor],
    topk: int,
    rule: int,
    weights: list[float],
    class_costs: Tensor | None = None,
    gt_centers: Sequence[Tensor] | None = None,
    similarity: tuple[int, list[float]] = (0, []),
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    images = len(gt_boxes)
    if priors.dim() == 2:
        priors = priors[None]
    require_shape(priors, (None, None, 4), "priors")
    if len(priors) not in (1, images):
        raise ValueError(f"priors are of {len(priors)} images, gt_boxes of {images}")
    require_shape(pred_boxes, (images, priors.shape[1], 4), "pred_boxes", priors)
    require_shape(pred_scores, (images, priors.shape[1], None), "pred_scores", priors)
    if topk < 1:
        raise ValueError(f"topk must be at least 1, got {topk}")
    if not min(weights[:2]) >= 0:
        names = "alpha and beta" if class_costs is None else "weights"
        raise ValueError(f"{names} must be at least 0, got {weights[0]} and {weights[1]}")
    strides = priors[..., 2:].unbind(-1)  # one by one for the reason of _SCORES_AT_ONCE
    if class_costs is not None and priors.is_cpu and not all((s > 0).all() for s in strides):
        raise ValueError("priors must be (x, y, stride, stride) with strides above 0")
    gts, num_gts = flattened(gt_boxes, priors, "gt_boxes")
    labels = joined(per_image(gt_labels, images, "gt_labels"), gts).long()
    require_shape(labels, (len(gts),), "gt_labels", priors)
    if labels.is_cpu and len(labels):
        low, high = labels.aminmax()
        if low < 0 or high >= pred_scores.shape[2]:
            raise ValueError(
                f"gt_labels are from {low} to {high}, but pred_scores have {pred_scores.shape[2]} "
                "classes"
            )
    centers = None
    if gt_centers is not None:
        centers = constant(joined(per_image(gt_centers, images, "gt_centers"), gts))
        require_shape(centers, (len(gts), 2), "gt_centers", priors)
    arguments: tuple = (
        constant(priors), constant(pred_boxes), constant(pred_scores), class_costs, gts, num_gts,
        labels, centers, rule, topk, [float(each) for each in weights],
    )  # fmt: skip
    if similarity[0]:
        arguments = (*arguments, *similarity)
    return run_operator(
        "assign_by_predictions", prediction_fallback.assign_by_predictions, arguments
    )
