"""ATSS assignment of a batch in one call."""

from collections.abc import Sequence

from torch import Tensor

from negvision.ops import fallback
from negvision.ops._assignment import (
    constant,
    flattened,
    joined,
    per_image,
    require_shape,
    run_operator,
    similarity_arguments,
)


def atss_assign(
    priors: Tensor,
    num_level_priors: Sequence[int],
    gt_boxes: Sequence[Tensor],
    topk: int = 9,
    *,
    valid: Tensor | None = None,
    ignore_boxes: Sequence[Tensor] | None = None,
    ignore_iof_thr: float = -1.0,
    pred_boxes: Tensor | None = None,
    pred_scores: Tensor | None = None,
    gt_labels: Sequence[Tensor] | None = None,
    alpha: float = 1.0,
    similarity: str = "iou",
    similarity_scale: float | Sequence[float] | None = None,
    min_size: float = 0.0,
) -> tuple[Tensor, Tensor, Tensor]:
    """Choose the positive priors of every box of every image (ATSS).

    For each box, the ``topk`` priors of each level whose centers are nearest to the box center are
    candidates. A candidate is positive if its IoU with the box is at least the mean plus the
    standard deviation of the IoUs of all candidates of the box, and its center lies more than 0.01
    pixels inside the box. A prior that several boxes claim goes to the one with the highest IoU.

    Exact and equal on every device: distances and IoUs are float32 without fused multiply-add, mean
    and deviation float64. Ties: priors at equal distance rank by index; of equal IoUs the box with
    the lower index wins. (With ``alpha``, the last bit of exp and pow can differ between devices.)

    If the priors of a level form a grid in row-major order, the time is O(G k L) for boxes on or
    near it, and grows if a box is far away or most priors near it are invalid; otherwise it is
    O(A G). Memory is O(B A + G k L). The CUDA kernels do not wait for the host.

    Args:
        priors: Shape (A, 4), shared by all images, or (B, A, 4); (x1, y1, x2, y2) in pixels, level
            after level. Any floating dtype; computed in float32.
        num_level_priors: Priors per level; they add up to A.
        gt_boxes: One tensor (G_i, 4) per image; G_i may be 0. A box whose width or height is not
            positive, or whose area is not finite, claims nothing.
        topk: Candidates per box and level (k in the paper), or all if a level has fewer.
        valid: Shape (B, A), bool; priors with False do not take part.
        ignore_boxes: One tensor (I_i, 4) per image, or None.
        ignore_iof_thr: A prior does not take part if its intersection with an ignored box is more
            than this share of its own area. 0 or below ignores no prior.
        pred_boxes: Shape (B, A, 4), decoded predictions, for the prediction-aware form of DDOD
            (Chen et al., ACM MM 2021, section 3.3): the overlap of a candidate is then
            ``sigmoid(score) ** (1 - alpha) * IoU(prediction, box) ** alpha``.
        pred_scores: Shape (B, A, C), logits; with ``pred_boxes``.
        gt_labels: One int64 tensor (G_i,) per image; None means 0 for all. Required with
            ``pred_boxes``, for which a box with a label outside 0 ... C - 1 claims nothing.
        alpha: See ``pred_boxes``; in [0, 1].
        similarity: What takes the place of the IoU everywhere above: ``"iou"``, ``"nwd"``
            (normalized Wasserstein distance) or ``"simd"`` (similarity distance). The latter two
            are above 0 for boxes apart, too; see :func:`box_similarity`.
        similarity_scale: C of NWD in pixels, or (m, n) of SimD; None: the papers' values for
            AI-TOD, 12.8 and (6.13, 4.59).
        min_size: For the test whether a center lies inside, a box counts as at least this wide and
            high, in pixels, about its middle. If that is a little more than the finest stride,
            each box on the grid holds a center.

    Returns:
        ``gt_inds``, (B, A) int64: i + 1 for a positive of the image's box i, 0 for a negative, -1
        for a prior that does not take part. ``max_overlaps``, (B, A) float32: the overlap of a
        positive with its box, else 0. ``labels``, (B, A) int64: the label of a positive's box,
        else -1.

    Raises:
        ValueError: Arguments do not match; the message names the expected and the given shape.
        RuntimeError: On CUDA, more than 3,072 candidates per box or 64 levels.

    Source:
        Zhang et al., CVPR 2020, "Bridging the Gap Between Anchor-based and Anchor-free Detection
        via Adaptive Training Sample Selection", section 3.2 and algorithm 1.

    Example:
        >>> import torch
        >>> corners = torch.tensor([[x, y] for y in range(0, 32, 8) for x in range(0, 32, 8)])
        >>> priors = torch.cat([corners, corners + 16], 1).float()
        >>> gt_inds, overlaps, labels = atss_assign(
        ...     priors, [16], [torch.tensor([[8.0, 8.0, 24.0, 24.0]]), torch.zeros(0, 4)])
        >>> gt_inds[0].nonzero().flatten().tolist(), gt_inds[1].any().item()
        ([5], False)
        >>> overlaps[0, 5].item(), labels[0, 5].item()
        (1.0, 0)
    """
    num_images = len(gt_boxes)
    if priors.dim() == 2:
        priors = priors[None]
    require_shape(priors, (None, None, 4), "priors")
    if len(priors) not in (1, num_images):
        raise ValueError(f"priors are of {len(priors)} images, gt_boxes of {num_images}")
    num_priors = priors.shape[1]
    if sum(num_level_priors) != num_priors:
        raise ValueError(
            f"num_level_priors {list(num_level_priors)} add up to {sum(num_level_priors)}, "
            f"but there are {num_priors} priors"
        )
    if topk < 1:
        raise ValueError(f"topk must be at least 1, got {topk}")
    kind, scale = similarity_arguments(similarity, similarity_scale)
    if not 0 <= min_size < float("inf"):
        raise ValueError(f"min_size must be at least 0 pixels, got {min_size}")
    if valid is not None:
        require_shape(valid, (num_images, num_priors), "valid", priors)
    gts, num_gts = flattened(gt_boxes, priors, "gt_boxes")
    ignored, num_ignored = None, [0] * num_images
    if ignore_boxes is not None and ignore_iof_thr > 0:
        per_image(ignore_boxes, num_images, "ignore_boxes")
        ignored, num_ignored = flattened(ignore_boxes, priors, "ignore_boxes")
    labels = None
    if gt_labels is not None:
        labels = joined(per_image(gt_labels, num_images, "gt_labels"), gts).long()
        require_shape(labels, (len(gts),), "gt_labels", priors)
    if pred_boxes is not None:
        if pred_scores is None or gt_labels is None:
            raise ValueError("pred_boxes need pred_scores and gt_labels too")
        if not 0 <= alpha <= 1:
            raise ValueError(f"alpha must lie in [0, 1], got {alpha}")
        require_shape(pred_boxes, (num_images, num_priors, 4), "pred_boxes", priors)
        require_shape(pred_scores, (num_images, num_priors, None), "pred_scores", priors)
        pred_boxes, pred_scores = pred_boxes.detach().float(), pred_scores.detach().float()

    arguments = (
        constant(priors),
        list(num_level_priors),
        gts,
        num_gts,
        topk,
        valid,
        ignored,
        num_ignored,
        ignore_iof_thr,
        pred_boxes,
        pred_scores,
        labels,
        alpha,
    )
    if kind or min_size:
        arguments = (*arguments, kind, scale, float(min_size))
    return run_operator("atss_assign", fallback.atss_assign, arguments)
