"""Box losses on the compiled overlap operators."""

from torch import Tensor, nn

from negvision.ops import aligned_box_iou, box_similarity
from negvision.registry import MODELS


@MODELS.register_module()
class BoxIoULoss(nn.Module):
    """``1 - overlap`` of predicted and target boxes: IoU, GIoU, DIoU or CIoU loss.

    With ``mode="giou"`` the value equals mmdet's ``GIoULoss``, with one kernel each for forward and
    backward, and without reading the weights on the host, which on CUDA waits for the device.
    (mmdet's ``IoULoss`` uses the logarithm by default, and its ``CIoULoss`` drops the aspect term
    at low IoU, so their values differ.)

    Args:
        mode: ``"iou"`` (linear), ``"giou"``, ``"diou"`` or ``"ciou"``; see
            :func:`negvision.ops.pairwise_box_iou`.
        eps: Lower limit of the denominators.
        loss_weight: Factor of the loss.

    Raises:
        ValueError: Unknown mode.

    Example:
        >>> import torch
        >>> box = torch.tensor([[0.0, 0.0, 2.0, 2.0]])
        >>> BoxIoULoss("giou")(box, box + 2)
        tensor(1.5000)
    """

    def __init__(self, mode: str = "giou", eps: float = 1e-6, loss_weight: float = 1.0) -> None:
        super().__init__()
        if mode not in ("iou", "giou", "diou", "ciou"):
            raise ValueError(f"mode is {mode!r}; it must be 'iou', 'giou', 'diou' or 'ciou'")
        self.mode = mode
        self.eps = eps
        self.loss_weight = loss_weight

    def forward(
        self,
        pred: Tensor,
        target: Tensor,
        weight: Tensor | None = None,
        avg_factor: float | Tensor | None = None,
    ) -> Tensor:
        """Loss of boxes (N, 4) against boxes (N, 4).

        Args:
            pred: Predicted boxes, (x1, y1, x2, y2).
            target: Target boxes.
            weight: Shape (N,), or (N, 4), which is averaged over the coordinates.
            avg_factor: Divides the sum; None means N.
        """
        return self.loss_weight * _mean(1 - self._similarity(pred, target), weight, avg_factor)

    def _similarity(self, pred: Tensor, target: Tensor) -> Tensor:
        return aligned_box_iou(pred, target, self.mode, self.eps)


@MODELS.register_module()
class NWDLoss(BoxIoULoss):
    """``1 - NWD`` of predicted and target boxes: its gradient reaches boxes that do not overlap.

    Heads use it where they use a GIoU loss, on decoded boxes (``reg_decoded_bbox=True``). NWD
    measures in pixels and falls to 0 for boxes much larger than C apart, so it suits small objects
    of one scale; see :func:`negvision.ops.box_similarity`.

    Args:
        scale: The constant C in pixels, near the mean size of the objects (the root of their
            area). The default is that of AI-TOD, as in the paper.
        loss_weight: Factor of the loss.

    Raises:
        ValueError: ``scale`` is not above 0.

    Source: Wang et al., 2021, arXiv 2110.13389, section 4.3.

    Example:
        >>> import torch
        >>> box = torch.tensor([[0.0, 0.0, 2.0, 2.0]])
        >>> NWDLoss()(box, box + torch.tensor([12.8, 0.0, 12.8, 0.0]))
        tensor(0.6321)
    """

    def __init__(self, scale: float = 12.8, loss_weight: float = 1.0) -> None:
        super().__init__(loss_weight=loss_weight)
        if not 0 < scale < float("inf"):
            raise ValueError(f"scale must be above 0 pixels, got {scale}")
        self.scale = scale

    def _similarity(self, pred: Tensor, target: Tensor) -> Tensor:
        return box_similarity(pred, target, "nwd", self.scale)


def _mean(loss: Tensor, weight: Tensor | None, avg_factor: float | Tensor | None) -> Tensor:
    if weight is not None:
        loss = loss * (weight.mean(-1) if weight.dim() == 2 else weight)
    return loss.sum() / (max(len(loss), 1) if avg_factor is None else avg_factor)
