"""The UNPG loss."""

import math

import torch
from mmengine.dist import get_dist_info
from torch import Tensor, nn
from torch.nn import functional

from negvision.errors import UserError, did_you_mean
from negvision.face.centers import ClassCenters
from negvision.face.distributed import (
    gather,
    logsumexp_over_ranks,
    scale_gradient,
    sum_over_ranks,
)
from negvision.ops import class_logsumexp, pair_logsumexp
from negvision.registry import MODELS


class BatchError(UserError, ValueError):
    """The loss cannot use a batch: a label is not a class, or an embedding is not finite."""


@MODELS.register_module()
class UNPGLoss(ClassCenters):
    """Margin softmax over class centers, with the negative pairs of the batch as more negatives.

    The negatives of every sample are the centers of other classes (classification pairs) and all
    pairs of different identities in the batch (metric pairs). Metric pairs beyond the whiskers of
    their box plot are left out as noise::

        loss_i = -s p_i + log(exp(A_i) + exp(B))

    Here p_i is the sample's cosine with its own center minus the margin, A_i the log-sum-exp of
    ``s * cosine`` over the classes (with p_i for its own class), and B that over the kept metric
    pairs, one number per batch. Nothing of size N x (C + pairs) is needed: neither the N x C
    logits nor, for large batches, the N x N similarities are ever stored. Similarities are float32
    under autocast, and float64 if the embeddings are.

    In a distributed run, everything refers to the *global* batch, including pairs and whiskers:
    the loss is that of one process with the joined batch, and so are the gradients after
    DistributedDataParallel has averaged them. Ranks divide the work by classes and by pairs.

    Args:
        num_classes: Identities C.
        embedding_size: D.
        margin: Name of a margin (:mod:`negvision.face.margins`) and its arguments.
        scale: s, above 0.
        whisker: Length of the whiskers in interquartile ranges; None keeps every metric pair. The
            paper uses 1.5 for MS1MV2 and 1.0 for K-FACE.
        metric_pairs: False gives the plain margin softmax.
        pair_weight: Factor of the sum over metric pairs, exp(B), above 0; 1 is the paper's. Below
            1 where a batch's pairs drown the class centers: few classes, or embeddings that have
            moved into one cone.
        sharded: Each rank holds a shard of the centers (Partial FC). With negvision's runner,
            checkpoints hold all of them and load at any world size, and gradients are clipped by
            the norm over all ranks. Not for optimizers that use the norm of a full parameter, such
            as LARS and LAMB.
        sample_rate: With ``sharded``: share of a rank's centers, in (0, 1], that serve as negatives
            in a step, including those of the batch's own classes. The others have a zero gradient;
            momentum and weight decay still act on them.
        products: "bfloat16" or "float16": the precision to which the factors of the products of
            embeddings and centers are rounded, for GPUs (:func:`negvision.ops.class_logsumexp`).
            The sample's own cosine and those within the batch are not rounded. None rounds nothing.
        init_cfg: As in MMEngine.

    Attributes:
        weight: Shape (num_classes, embedding_size), or this rank's rows of it.

    Source: Jung et al., BMVC 2022, "Unified Negative Pair Generation toward Well-discriminative
    Feature Space for Face Recognition", section 3; ``sharded``: An et al., CVPR 2022, "Killing Two
    Birds with One Stone: Partial FC".

    Example:
        >>> _ = torch.manual_seed(0)
        >>> loss = UNPGLoss(num_classes=10, embedding_size=4, margin=dict(type="CosFaceMargin"))
        >>> loss(torch.randn(6, 4), torch.tensor([0, 0, 1, 1, 9, 9])).isfinite().item()
        True
    """

    def __init__(
        self,
        num_classes: int,
        embedding_size: int,
        margin: dict | nn.Module | None = None,
        scale: float = 64.0,
        whisker: float | None = 1.5,
        metric_pairs: bool = True,
        pair_weight: float = 1.0,
        sharded: bool = False,
        sample_rate: float = 1.0,
        products: str | None = None,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(num_classes, embedding_size, sharded, sample_rate, init_cfg)
        if not scale > 0:
            raise ValueError(f"scale must be above 0, got {scale}")
        if whisker is not None and not whisker >= 0:
            raise ValueError(f"whisker must be at least 0 or None, got {whisker}")
        if not 0 < pair_weight < math.inf:
            raise ValueError(f"pair_weight must be above 0, got {pair_weight}")
        if products not in (None, "bfloat16", "float16"):
            raise ValueError(f'products must be "bfloat16", "float16" or None, got {products!r}')
        self.scale, self.whisker, self.metric_pairs = scale, whisker, metric_pairs
        self.pair_weight = pair_weight
        self.products = getattr(torch, products) if products else None
        self.margin = _build_margin(margin)

    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        """The loss of the (global) batch, a scalar.

        Args:
            embeddings: Shape (N, D), not normalized: some margins use the norm.
            labels: Shape (N,), integers from 0 to C - 1.

        Raises:
            BatchError: No rank has a sample; or, on the CPU, a label is not a class or an embedding
                is not finite. (On CUDA, the check would wait for the device.)
        """
        self._check(embeddings, labels)
        with torch.autocast(embeddings.device.type, enabled=False):
            if embeddings.dtype != torch.float64:
                embeddings = embeddings.float()
            return self._loss(embeddings, labels.long())

    def _loss(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        rank, world_size = get_dist_info()
        embeddings = scale_gradient(embeddings, world_size)
        norms = torch.linalg.vector_norm(embeddings, dim=1)
        units = gather(embeddings / norms.clamp(min=1e-12)[:, None])
        # Each rank computes all margins, and the gradients of gathered values are summed.
        norms, labels = scale_gradient(gather(norms), 1 / world_size), gather(labels)
        if len(labels) == 0:
            raise BatchError("the loss needs at least one sample; the (global) batch is empty")

        centers, first = self.own_centers()
        centers, class_ids = self.sampled(centers, labels - first)
        cosine = self._target_cosines(units, centers, class_ids, labels - first)
        others = logsumexp_over_ranks(
            class_logsumexp(
                units, centers, labels - first, self.scale, class_ids, products=self.products
            )
        )
        positive = self.scale * self.margin(cosine, norms)
        logsumexp = torch.logaddexp(others, positive)
        if self.metric_pairs:
            pairs = self._pair_logsumexp(units, labels, rank, world_size)
            logsumexp = torch.logaddexp(logsumexp, pairs + math.log(self.pair_weight))
        loss = self.mean_loss(logsumexp - positive)
        if hasattr(self.margin, "regularizer"):
            loss = loss + self.margin.regularizer(norms)
        return loss

    def _pair_logsumexp(self, units: Tensor, labels: Tensor, rank: int, world_size: int) -> Tensor:
        """B: the log-sum-exp over the metric pairs of the global batch that the whiskers keep."""
        pairs = pair_logsumexp(
            units, labels, self.scale, self.whisker, (rank, world_size),
            torch.distributed.all_reduce if world_size > 1 else None,
        )  # fmt: skip
        return logsumexp_over_ranks(pairs.value)

    def mean_loss(self, losses: Tensor) -> Tensor:
        """The mean of the losses (N,) of the samples of all ranks, in their order."""
        return losses.mean()

    def _target_cosines(
        self, units: Tensor, centers: Tensor, class_ids: Tensor | None, own_labels: Tensor
    ) -> Tensor:
        """Cosine of each sample with its own center, from the rank that holds it."""
        if len(centers) == 0:
            return sum_over_ranks(units.sum(1) * 0)
        place = own_labels.clamp(0, len(centers) - 1)
        if class_ids is not None:
            place = torch.searchsorted(class_ids, own_labels).clamp(max=len(centers) - 1)
        here = (place if class_ids is None else class_ids[place]) == own_labels
        own = functional.normalize(centers[place], dim=1)
        return sum_over_ranks(torch.where(here, (units * own).sum(1), 0.0))

    def _check(self, embeddings: Tensor, labels: Tensor) -> None:
        if embeddings.dim() != 2 or embeddings.shape[1] != self.embedding_size:
            raise ValueError(
                f"embeddings must have shape (N, {self.embedding_size}), got "
                f"{tuple(embeddings.shape)}"
            )
        if labels.shape != embeddings.shape[:1]:
            raise ValueError(
                f"labels must have shape ({len(embeddings)},), got {tuple(labels.shape)}"
            )
        if embeddings.device.type != "cpu":
            return
        wrong = (labels < 0) | (labels >= self.num_classes)
        if wrong.any():
            raise BatchError(
                f"label {labels[wrong][0].item()} of sample {wrong.nonzero()[0].item()} is not one "
                f"of the {self.num_classes} classes (0 to {self.num_classes - 1}); set the head's "
                "num_classes to that of the dataset"
            )
        invalid = ~embeddings.isfinite().all(1)
        if invalid.any():
            raise BatchError(
                f"{invalid.sum().item()} of {len(embeddings)} embeddings are not finite "
                f"(the first: sample {invalid.nonzero()[0].item()}): the training has diverged. "
                "Lower the learning rate, clip gradients, or continue from an earlier checkpoint"
            )


def _build_margin(margin: dict | nn.Module | None) -> nn.Module:
    if isinstance(margin, nn.Module):
        return margin
    margin = margin or {"type": "ArcFaceMargin", "m": 0.5}
    name = str(margin.get("type", "")).removeprefix("negvision.")
    if not name.endswith("Margin") or MODELS.get(name) is None:
        known = ["NoMargin", "CosFaceMargin", "ArcFaceMargin", "MagFaceMargin", "AdaFaceMargin"]
        nearest = did_you_mean(name, known) or f"; known: {', '.join(known)}"
        raise ValueError(f"margin type {margin.get('type')!r} is not known{nearest}")
    return MODELS.build({**margin, "type": f"negvision.{name}"})
