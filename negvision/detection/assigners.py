"""Assigners: which priors are positive, which are negative, and which take no part."""

from collections.abc import Sequence
from typing import Any

import torch
from mmdet.models.task_modules.assigners import AssignResult, BaseAssigner, BboxOverlaps2D
from mmdet.models.task_modules.assigners import MaxIoUAssigner as MMDetMaxIoUAssigner
from mmdet.structures.bbox import get_box_tensor
from mmengine.structures import InstanceData
from torch import Tensor

from negvision.ops import atss_assign, max_iou_assign, pairwise_box_iou
from negvision.ops._assignment import similarity_arguments
from negvision.registry import TASK_UTILS

Instances = Sequence[InstanceData]
# The share of background that makes it part of an ignored box.
_INSIDE = 0.5


def require_plain_iou(iou_calculator: dict | None, name: str) -> None:
    """Raise a ValueError unless the setting is mmdet's default."""
    kind = (iou_calculator or {}).get("type", "BboxOverlaps2D")
    if str(kind).rpartition(".")[2] != "BboxOverlaps2D":
        raise ValueError(
            f"iou_calculator is {kind!r}; negvision.{name} computes the IoU of "
            f"horizontal boxes itself. Keep mmdet's {name} for another overlap."
        )


@TASK_UTILS.register_module()
class ATSSAssigner(BaseAssigner):
    """Adaptive training sample selection, with the call signature of mmdet's ``ATSSAssigner``.

    Use ``type="negvision.ATSSAssigner"`` in place of ``type="ATSSAssigner"`` in a config. On boxes
    without ties, ``gt_inds`` equal mmdet's. Differences:

    - Priors at equal distance are taken in index order on every device; mmdet leaves the order to
      ``torch.topk``. Boxes with integer coordinates often cause such ties.
    - A prior covered by an ignored box (``ignore_iof_thr``) takes no part. In mmdet it can still
      fill the candidates of a level with few priors and become positive.
    - If an image has ignored boxes only, the covered priors take no part; in mmdet all its priors
      become negative.
    - Candidates with bit-equal overlaps pass their own threshold; in mmdet the rounding of mean
      plus deviation can reject them all.
    - ``max_overlaps`` is 0 for priors that are not positive; in mmdet it is -1e8.
    - Boxes that are not finite or not of positive size get no priors.
    - Half-precision input is computed in float32.

    Args:
        topk: Candidates of a box on each level, the paper's k. At least 1.
        alpha: Exponent of DDOD's prediction-aware overlap, in [0, 1]; None: the IoU of the priors.
            Needs ``pred_instances.bboxes`` and ``.scores``.
        ignore_iof_thr: A prior takes no part if its intersection with an ignored box (crowds are
            ignored boxes) exceeds this share of its own area; -1: never.
        anchors_per_location: Multiplies ``topk``, as in the authors' code with several anchors per
            location. mmdet does not, hence the default of 1.
        iou_calculator: Accepted for mmdet's default only; this assigner has its own kernels.
        similarity: What takes the place of the IoU of candidates: ``"iou"``, or for small objects
            ``"nwd"`` or ``"simd"``, which tell candidates apart that do not overlap the box or
            cover it alike.
        similarity_scale: C of NWD in pixels, or (m, n) of SimD; None: the papers' values for
            AI-TOD, 12.8 and (6.13, 4.59). See :func:`negvision.ops.box_similarity`.
        min_size: For the test whether a prior's center lies inside a box, boxes count as at least
            so many pixels wide and high. A box smaller than the finest stride may hold no center at
            all; a little more than the stride gives each box one, and 0, as in the paper, leaves
            such boxes without a positive. Needs a head that takes positives outside of their
            boxes: ``negvision.ATSSHead`` and ``negvision.ATSSRetinaHead`` do.

    Raises:
        ValueError: A number out of its range, an unknown similarity, or a scale that does not fit.

    Source: Zhang et al., CVPR 2020, "Bridging the Gap Between Anchor-based and Anchor-free
    Detection via Adaptive Training Sample Selection"; ``alpha``: Chen et al., ACM MM 2021,
    "Disentangle Your Dense Object Detector".

    Example:
        >>> import torch
        >>> assigner = ATSSAssigner(topk=9)
        >>> priors = InstanceData(priors=torch.tensor([[0.0, 0.0, 8.0, 8.0], [8.0, 8.0, 16.0, 16.0],
        ...                                            [0.0, 8.0, 8.0, 16.0]]))
        >>> boxes = InstanceData(
        ...     bboxes=torch.tensor([[0.0, 0.0, 9.0, 9.0]]), labels=torch.tensor([2]))
        >>> result = assigner.assign(priors, [3], boxes)
        >>> result.gt_inds.tolist(), result.labels.tolist()
        ([1, 0, 0], [2, -1, -1])
    """

    def __init__(
        self,
        topk: int = 9,
        alpha: float | None = None,
        ignore_iof_thr: float = -1,
        anchors_per_location: int = 1,
        iou_calculator: dict | None = None,
        similarity: str = "iou",
        similarity_scale: float | Sequence[float] | None = None,
        min_size: float = 0.0,
    ) -> None:
        similarity_arguments(similarity, similarity_scale)
        if not 0 <= min_size < float("inf"):
            raise ValueError(f"min_size must be at least 0 pixels, got {min_size}")
        if topk < 1 or anchors_per_location < 1:
            raise ValueError(
                f"topk and anchors_per_location must be at least 1, got {topk} and "
                f"{anchors_per_location}"
            )
        if alpha is not None and not 0 <= alpha <= 1:
            raise ValueError(f"alpha must lie in [0, 1] or be None, got {alpha}")
        require_plain_iou(iou_calculator, "ATSSAssigner")
        self.topk = topk
        self.alpha = alpha
        self.ignore_iof_thr = ignore_iof_thr
        self.anchors_per_location = anchors_per_location
        self.similarity, self.similarity_scale = similarity, similarity_scale
        self.min_size = min_size

    def assign(
        self,
        pred_instances: InstanceData,
        num_level_priors: Sequence[int],
        gt_instances: InstanceData,
        gt_instances_ignore: InstanceData | None = None,
    ) -> AssignResult:
        """Assign the priors of one image.

        Args:
            pred_instances: ``priors`` (A, 4 or more; the first four are x1, y1, x2, y2 in pixels);
                ``alpha`` also needs ``bboxes`` (A, 4), decoded, and ``scores`` (A, C), logits.
            num_level_priors: Number of priors on each level; the sum is A.
            gt_instances: ``bboxes`` (G, 4) and ``labels`` (G,).
            gt_instances_ignore: ``bboxes`` (I, 4), or None.

        Returns:
            ``gt_inds`` (A,): 0 negative, i + 1 positive of box i, -1 takes no part;
            ``max_overlaps`` (A,) float32; ``labels`` (A,): -1 for priors that are not positive.

        Raises:
            ValueError: Shapes do not fit, or ``alpha`` without predictions.
        """
        predicted: list[Tensor | None] = [None, None]
        if self.alpha is not None:
            found = [pred_instances.get(name) for name in ("bboxes", "scores")]
            predicted = [None if values is None else values[None] for values in found]
        gt_inds, max_overlaps, labels = self.assign_batch(
            get_box_tensor(pred_instances.priors),
            num_level_priors,
            [gt_instances],
            None if gt_instances_ignore is None else [gt_instances_ignore],
            pred_boxes=predicted[0],
            pred_scores=predicted[1],
        )
        count = len(gt_instances.bboxes)
        return AssignResult(count, gt_inds[0], max_overlaps[0], labels=labels[0])

    def assign_batch(
        self,
        priors: Tensor,
        num_level_priors: Sequence[int],
        batch_gt_instances: Instances,
        batch_gt_instances_ignore: Instances | None = None,
        valid: Tensor | None = None,
        pred_boxes: Tensor | None = None,
        pred_scores: Tensor | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Assign the priors of a batch in one operator call.

        Arguments, results (B, A) and errors are as in :meth:`assign`, except:

        Args:
            priors: Shape (A, 4) if the images share them, else (B, A, 4).
            valid: Shape (B, A), bool: False for priors that take no part.
            pred_boxes, pred_scores: Shapes (B, A, 4) and (B, A, C), with ``alpha``.
        """
        dynamic: dict[str, Any] = {}
        if self.alpha is not None:
            if pred_boxes is None or pred_scores is None:
                raise ValueError(
                    f"alpha is {self.alpha}, so the assigner needs predictions: bboxes and scores "
                    "of pred_instances. For plain ATSS set alpha=None."
                )
            dynamic = {
                "pred_boxes": get_box_tensor(pred_boxes),
                "pred_scores": pred_scores,
                "alpha": self.alpha,
            }
        ignored = None
        if batch_gt_instances_ignore is not None:
            ignored = [
                priors.new_zeros((0, 4)) if gt is None else get_box_tensor(gt.bboxes)
                for gt in batch_gt_instances_ignore
            ]
        return atss_assign(
            priors if priors.shape[-1] == 4 else priors[..., :4],
            num_level_priors,
            [get_box_tensor(gt.bboxes) for gt in batch_gt_instances],
            self.topk * self.anchors_per_location,
            valid=valid,
            ignore_boxes=ignored,
            ignore_iof_thr=self.ignore_iof_thr,
            gt_labels=[gt.labels for gt in batch_gt_instances],
            similarity=self.similarity,
            similarity_scale=self.similarity_scale,
            min_size=self.min_size,
            **dynamic,
        )


@TASK_UTILS.register_module()
class MaxIoUAssigner(MMDetMaxIoUAssigner):
    """Max-IoU assignment, in place of mmdet's ``MaxIoUAssigner`` and of an ATSS assigner.

    Use ``type="negvision.MaxIoUAssigner"`` in RetinaNet, Faster R-CNN, and other configs of mmdet.
    Heads made for ATSS accept it too, for comparisons in which only the definition of positives
    differs (table 3 of the ATSS paper). Differences from mmdet's:

    - A box that overlaps no prior claims none. In mmdet, if ``min_pos_iou`` is 0, it claims all
      priors that it does not overlap, and a box with NaN makes the image take no part.
    - If an image has ignored boxes only, the covered priors take no part; in mmdet all its priors
      become negative.
    - Half-precision input is computed in float32. ``gpu_assign_thr`` has no effect: memory does
      not grow with boxes x priors.

    With ``perm_repeat_gt_cfg`` or another ``iou_calculator`` than mmdet's default, mmdet's own
    code runs.

    Args:
        center_in_box: Whether a prior is positive only if its center lies inside its box ("In GT
            Box" in table 2 of the paper); other priors become negative.
        **kwargs: As in mmdet's ``MaxIoUAssigner``.

    Example:
        >>> import torch
        >>> assigner = MaxIoUAssigner(pos_iou_thr=0.5, neg_iou_thr=0.4, min_pos_iou=0)
        >>> corners = torch.tensor([[0.0, 0.0], [8.0, 8.0]])
        >>> priors = InstanceData(priors=torch.cat([corners, corners + 8], 1))
        >>> boxes = InstanceData(
        ...     bboxes=torch.tensor([[0.0, 0.0, 9.0, 9.0]]), labels=torch.tensor([2]))
        >>> assigner.assign(priors, boxes).gt_inds.tolist()
        [1, 0]
    """

    def __init__(self, *args, center_in_box: bool = False, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self.center_in_box = center_in_box

    def assign(
        self,
        pred_instances: InstanceData,
        num_level_priors: Sequence[int] | InstanceData | None = None,
        gt_instances: InstanceData | None = None,
        gt_instances_ignore: InstanceData | None = None,
    ) -> AssignResult:
        """As :meth:`ATSSAssigner.assign`, or without ``num_level_priors``, which has no effect."""
        if isinstance(num_level_priors, InstanceData):  # as mmdet calls it
            ignored = gt_instances if gt_instances is not None else gt_instances_ignore
            gt_instances, gt_instances_ignore = num_level_priors, ignored
        assert gt_instances is not None
        priors = get_box_tensor(pred_instances.priors)[:, :4]
        plain = type(self.iou_calculator) is BboxOverlaps2D and self.iou_calculator.dtype is None
        if not plain or self.perm_repeat_gt_cfg is not None:
            result = super().assign(pred_instances, gt_instances, gt_instances_ignore)
        else:
            low = self.neg_iou_thr
            gt_inds, overlaps, labels = max_iou_assign(
                priors,
                [get_box_tensor(gt_instances.bboxes)],
                [gt_instances.labels],
                self.pos_iou_thr,
                low if isinstance(low, (int, float)) else tuple(low),
                min_pos_iou=self.min_pos_iou,
                match_low_quality=self.match_low_quality,
                gt_max_assign_all=self.gt_max_assign_all,
                ignore_boxes=None
                if gt_instances_ignore is None
                else [get_box_tensor(gt_instances_ignore.bboxes)],
                ignore_iof_thr=self.ignore_iof_thr,
                ignore_wrt_candidates=self.ignore_wrt_candidates,
            )
            result = AssignResult(len(gt_instances), gt_inds[0], overlaps[0], labels=labels[0])
        if self.center_in_box and len(gt_instances):
            boxes = get_box_tensor(gt_instances.bboxes)[result.gt_inds.clamp(min=1) - 1]
            centers = (priors[:, :2] + priors[:, 2:]) / 2
            inside = ((centers > boxes[:, :2]) & (centers < boxes[:, 2:])).all(1)
            outside = (result.gt_inds > 0) & ~inside
            result.gt_inds[outside] = 0
            result.labels[outside] = -1
        return result


@TASK_UTILS.register_module()
class IgnoringAssigner:
    """An assigner under which ignored boxes are neither objects nor background.

    By ``ignore_iof_thr``, mmdet's assigners spare priors that lie inside an ignored box. That is
    meant for crowds: of a single object, the priors that are larger than it stay background, and an
    object inside of an ignored box loses its priors. Here the inner assigner also gets the ignored
    boxes as objects. Priors that it gives to one of them take no part, nor does background that
    lies in an ignored box with more than half of its area. ``negvision train --suspects`` puts it
    around the assigners of a config.

    Args:
        assigner: Config of the inner assigner, mmdet's or negvision's ``ATSSAssigner`` or
            ``MaxIoUAssigner``. If its ``ignore_iof_thr`` is above 0, that acts too.

    Example:
        >>> inner = dict(type="negvision.MaxIoUAssigner", pos_iou_thr=0.2, neg_iou_thr=0.2)
        >>> assigner = IgnoringAssigner(inner)
        >>> priors = InstanceData(priors=torch.tensor([[0.0, 0, 16, 16], [16.0, 0, 32, 16]]))
        >>> small = InstanceData(bboxes=torch.tensor([[4.0, 4, 12, 12]]), labels=torch.tensor([0]))
        >>> assigner.assign(priors, [2], small[:0], small).gt_inds.tolist()
        [-1, 0]
    """

    def __init__(self, assigner: dict) -> None:
        self.inner = TASK_UTILS.build(assigner)
        if hasattr(self.inner, "assign_batch"):
            self.assign_batch = self._assign_batch

    def assign(self, pred_instances: InstanceData, *args, **kwargs) -> AssignResult:
        """Assign the priors of one image; arguments and result are those of the inner assigner."""
        boxes = list(args)
        # Heads made for ATSS pass the numbers of priors before the boxes.
        levels = [boxes.pop(0)] if boxes and not isinstance(boxes[0], InstanceData) else []
        kwargs |= dict(zip(("gt_instances", "gt_instances_ignore"), boxes, strict=False))
        truth, ignored = kwargs["gt_instances"], kwargs.get("gt_instances_ignore")
        if ignored is None or not len(ignored):
            return self.inner.assign(pred_instances, *levels, **kwargs)
        kwargs["gt_instances"] = _joined(truth, ignored)
        result = self.inner.assign(pred_instances, *levels, **kwargs)
        result.num_gts = len(truth)
        priors = get_box_tensor(pred_instances.priors)
        out = _spared(result.gt_inds, len(truth), priors, ignored)
        result.gt_inds = result.gt_inds.masked_fill(out, -1)
        if result.labels is not None:
            result.labels = result.labels.masked_fill(out, -1)
        return result

    def _assign_batch(
        self,
        priors: Tensor,
        num_level_priors: Sequence[int],
        batch_gt_instances: Instances,
        batch_gt_instances_ignore: Instances | None = None,
        **options,
    ) -> tuple[Tensor, Tensor, Tensor]:
        ignored = batch_gt_instances_ignore or [None] * len(batch_gt_instances)
        joined = [_joined(*pair) for pair in zip(batch_gt_instances, ignored, strict=True)]
        gt_inds, overlaps, labels = self.inner.assign_batch(
            priors, num_level_priors, joined, batch_gt_instances_ignore, **options
        )
        out = torch.zeros_like(gt_inds, dtype=torch.bool)
        for row, (truth, boxes) in enumerate(zip(batch_gt_instances, ignored, strict=True)):
            if boxes is not None and len(boxes):
                own = priors if priors.dim() == 2 else priors[row]
                out[row] = _spared(gt_inds[row], len(truth), own, boxes)
        return gt_inds.masked_fill(out, -1), overlaps, labels.masked_fill(out, -1)


def _spared(gt_inds: Tensor, count: int, priors: Tensor, ignored: InstanceData) -> Tensor:
    """Which priors (A,) take no part because of ignored boxes, after those of ``count`` objects."""
    boxes = get_box_tensor(ignored.bboxes)
    inside = pairwise_box_iou(priors[:, :4].float(), boxes.float(), "iof") > _INSIDE
    return (gt_inds > count) | ((gt_inds == 0) & inside.any(1))


def _joined(truth: InstanceData, ignored: InstanceData | None) -> InstanceData:
    """The boxes and labels of objects, then those of ignored boxes."""
    if ignored is None or not len(ignored):
        return truth
    boxes = [get_box_tensor(one.bboxes) for one in (truth, ignored)]
    # Nothing learns from the labels of ignored boxes, some of which have none.
    labels = [truth.labels, ignored.labels.clamp(min=0)]
    return InstanceData(bboxes=torch.cat(boxes), labels=torch.cat(labels))
