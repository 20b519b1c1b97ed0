"""Assigners that look at predictions: task-aligned, SimOTA and dynamic soft labels."""

from collections.abc import Callable, Sequence

from mmdet.models.task_modules.assigners import AssignResult, BaseAssigner
from mmdet.models.task_modules.assigners.dynamic_soft_label_assigner import center_of_mass
from mmdet.structures.bbox import get_box_tensor
from mmengine.structures import InstanceData

from negvision.detection.assigners import require_plain_iou
from negvision.ops import dynamic_soft_label_assign, sim_ota_assign, tal_assign
from negvision.ops._assignment import similarity_arguments
from negvision.registry import TASK_UTILS


class _PredictionAssigner(BaseAssigner):
    """Takes one image apart for an operator, and its result together for mmdet."""

    operator: Callable

    def __init__(self, topk: int, iou_calculator: dict | None, **options) -> None:
        if topk < 1:
            raise ValueError(f"topk must be at least 1, got {topk}")
        require_plain_iou(iou_calculator, type(self).__name__)
        self.topk, self.options = topk, options

    def assign(
        self,
        pred_instances: InstanceData,
        gt_instances: InstanceData,
        gt_instances_ignore: InstanceData | None = None,
        **options,
    ) -> AssignResult:
        """Assign the priors of one image.

        Args:
            pred_instances: ``priors`` (A, 4): x, y, and the stride in x and y; ``bboxes`` (A, 4),
                decoded; ``scores`` (A, C): probabilities, for RTMDet logits.
            gt_instances: ``bboxes`` (G, 4) and ``labels`` (G,).
            gt_instances_ignore: No effect, as in mmdet.
            **options: Further arguments of the operator.

        Returns:
            ``gt_inds`` (A,): 0 negative, i + 1 positive of box i; ``max_overlaps`` (A,) float32;
            ``labels`` (A,): -1 for priors that are not positive.

        Raises:
            ValueError, RuntimeError: See the operator.
        """
        gt_inds, overlaps, labels, *metrics = type(self).operator(
            get_box_tensor(pred_instances.priors)[:, :4],
            get_box_tensor(pred_instances.bboxes)[None],
            pred_instances.scores[None],
            [get_box_tensor(gt_instances.bboxes)],
            [gt_instances.labels],
            self.topk,
            **self.options,
            **options,
        )
        result = AssignResult(len(gt_instances), gt_inds[0], overlaps[0], labels=labels[0])
        if metrics:
            result.assign_metrics = metrics[0][0]
        return result


@TASK_UTILS.register_module()
class TaskAlignedAssigner(_PredictionAssigner):
    """Task-aligned assignment (TOOD), in place of mmdet's ``TaskAlignedAssigner``.

    Use ``type="negvision.TaskAlignedAssigner"`` in a config. Without ties ``gt_inds`` equal
    mmdet's. Differences:

    - Priors with equal metrics are taken in index order on every device; mmdet leaves the order to
      ``torch.topk``.
    - ``max_overlaps`` is 0 for priors that are not positive; in mmdet it is -1e8.
    - Pairs whose score or overlap is NaN are no candidates; in mmdet they take the places of
      others. Boxes that are not finite or not of positive size get no priors.
    - Half-precision input is computed in float32.

    Args:
        topk: Candidates of a box, at least 1.
        iou_calculator: Accepted for mmdet's default only; this assigner has its own kernels.
        similarity: What takes the place of the IoU of predicted boxes: ``"iou"``, or for small
            objects ``"nwd"`` or ``"simd"``; ``max_overlaps``, by which mmdet's TOOD scales its
            targets, are then such similarities too.
        similarity_scale: C of NWD in pixels, or (m, n) of SimD; None: the papers' values for
            AI-TOD, 12.8 and (6.13, 4.59). See :func:`negvision.ops.box_similarity`.

    Raises:
        ValueError: ``topk`` below 1, or an unknown similarity or a scale that does not fit it.

    Source: Feng et al., ICCV 2021, "TOOD: Task-aligned One-stage Object Detection".

    Example:
        >>> import torch
        >>> squares = torch.tensor([[0.0, 0.0, 8.0, 8.0], [4.0, 0.0, 12.0, 8.0]])
        >>> predicted = InstanceData(
        ...     priors=squares, bboxes=squares, scores=torch.tensor([[0.5], [0.9]]))
        >>> boxes = InstanceData(bboxes=squares[:1], labels=torch.tensor([0]))
        >>> result = TaskAlignedAssigner(topk=1).assign(predicted, boxes)
        >>> result.gt_inds.tolist(), result.assign_metrics.tolist()
        ([1, 0], [0.5, 0.0])
    """

    operator = tal_assign

    def __init__(
        self,
        topk: int,
        iou_calculator: dict | None = None,
        similarity: str = "iou",
        similarity_scale: float | Sequence[float] | None = None,
    ) -> None:
        similarity_arguments(similarity, similarity_scale)
        super().__init__(
            topk, iou_calculator, similarity=similarity, similarity_scale=similarity_scale
        )

    def assign(
        self,
        pred_instances: InstanceData,
        gt_instances: InstanceData,
        gt_instances_ignore: InstanceData | None = None,
        alpha: float = 1,
        beta: float = 6,
    ) -> AssignResult:
        """Assign the priors of one image.

        Args:
            pred_instances: ``priors`` (A, 4 or more; the first four are x1, y1, x2, y2 in pixels),
                ``bboxes`` (A, 4), decoded, and ``scores`` (A, C), probabilities.
            gt_instances: ``bboxes`` (G, 4) and ``labels`` (G,).
            gt_instances_ignore: No effect, as in mmdet.
            alpha, beta: Exponents of score and overlap.

        Returns:
            ``gt_inds`` (A,): 0 negative, i + 1 positive of box i; ``max_overlaps`` (A,) float32;
            ``labels`` (A,): -1 for priors that are not positive; ``assign_metrics`` (A,) float32.

        Raises:
            ValueError, RuntimeError: See :func:`negvision.tal_assign`.
        """
        return super().assign(pred_instances, gt_instances, alpha=alpha, beta=beta)


@TASK_UTILS.register_module()
class SimOTAAssigner(_PredictionAssigner):
    """SimOTA assignment (YOLOX), in place of mmdet's ``SimOTAAssigner``.

    Use ``type="negvision.SimOTAAssigner"`` in a config. Without ties ``gt_inds`` equal mmdet's.
    Differences:

    - Priors with equal costs are taken in index order on every device. mmdet leaves the order to
      ``torch.topk``, and adds 1e5 to the costs of priors off the center, which rounds them to
      multiples of 0.008 and makes ties of different costs.
    - ``max_overlaps`` is 0 for priors that are not positive; in mmdet it is -1e5.
    - Boxes that are not finite or not of positive size get no priors.
    - Half-precision input is computed in float32.

    Args:
        center_radius: How far from the middle of a box its central priors lie, in strides.
        candidate_topk: The most priors a box takes.
        iou_weight, cls_weight: Weights of the parts of the cost.
        iou_calculator: Accepted for mmdet's default only; this assigner has its own kernels.

    Source: Ge et al., 2021, "YOLOX: Exceeding YOLO Series in 2021".

    Example:
        >>> import torch
        >>> predicted = InstanceData(
        ...     priors=torch.tensor([[4.0, 4.0, 8.0, 8.0], [12.0, 4.0, 8.0, 8.0]]),
        ...     bboxes=torch.tensor([[0.0, 0.0, 8.0, 8.0], [0.0, 0.0, 8.0, 4.0]]),
        ...     scores=torch.full((2, 3), 0.1))
        >>> boxes = InstanceData(
        ...     bboxes=torch.tensor([[0.0, 0.0, 8.0, 8.0]]), labels=torch.tensor([2]))
        >>> SimOTAAssigner().assign(predicted, boxes).gt_inds.tolist()
        [1, 0]
    """

    operator = sim_ota_assign

    def __init__(
        self,
        center_radius: float = 2.5,
        candidate_topk: int = 10,
        iou_weight: float = 3.0,
        cls_weight: float = 1.0,
        iou_calculator: dict | None = None,
    ) -> None:
        super().__init__(
            candidate_topk,
            iou_calculator,
            center_radius=center_radius,
            iou_weight=iou_weight,
            cls_weight=cls_weight,
        )


@TASK_UTILS.register_module()
class DynamicSoftLabelAssigner(_PredictionAssigner):
    """Dynamic soft-label assignment (RTMDet), in place of mmdet's ``DynamicSoftLabelAssigner``.

    Use ``type="negvision.DynamicSoftLabelAssigner"`` in a config. Without ties ``gt_inds`` equal
    mmdet's. Differences:

    - Priors with equal costs are taken in index order on every device; mmdet leaves the order to
      ``torch.topk``. Pairs of infinite cost, more than 41 strides apart, are no candidates.
    - ``max_overlaps`` is 0 for priors that are not positive; in mmdet it is -1e8.
    - Boxes that are not finite or not of positive size get no priors.
    - Half-precision input is computed in float32.

    Args:
        soft_center_radius: Distance from the middle of a box at which its cost is 1, in strides.
        topk: The most priors a box takes.
        iou_weight: Weight of the overlap's part of the cost.
        iou_calculator: Accepted for mmdet's default only; this assigner has its own kernels.

    Source: Lyu et al., 2022, "RTMDet: An Empirical Study of Designing Real-Time Object Detectors".

    Example:
        >>> import torch
        >>> predicted = InstanceData(
        ...     priors=torch.tensor([[4.0, 4.0, 8.0, 8.0], [12.0, 4.0, 8.0, 8.0]]),
        ...     bboxes=torch.tensor([[0.0, 0.0, 8.0, 8.0], [0.0, 0.0, 8.0, 4.0]]),
        ...     scores=torch.zeros(2, 3))
        >>> boxes = InstanceData(
        ...     bboxes=torch.tensor([[0.0, 0.0, 8.0, 8.0]]), labels=torch.tensor([2]))
        >>> DynamicSoftLabelAssigner().assign(predicted, boxes).gt_inds.tolist()
        [1, 0]
    """

    operator = dynamic_soft_label_assign

    def __init__(
        self,
        soft_center_radius: float = 3.0,
        topk: int = 13,
        iou_weight: float = 3.0,
        iou_calculator: dict | None = None,
    ) -> None:
        super().__init__(
            topk, iou_calculator, center_radius=soft_center_radius, iou_weight=iou_weight
        )

    def assign(
        self,
        pred_instances: InstanceData,
        gt_instances: InstanceData,
        gt_instances_ignore: InstanceData | None = None,
    ) -> AssignResult:
        """As :meth:`SimOTAAssigner.assign`, but ``scores`` are logits.

        The centers of ``gt_instances.masks`` (G, H, W), if there are any, take the place of the
        middles of boxes.
        """
        centers = None
        if "masks" in gt_instances and len(gt_instances):
            centers = [center_of_mass(gt_instances.masks)]
        return super().assign(pred_instances, gt_instances, gt_centers=centers)
