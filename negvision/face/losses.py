"""The UNPG loss and its class centres, whole or sharded over ranks."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from negvision.errors import UserError, did_you_mean
from negvision.face.centres import ClassCentres
from negvision.face.distributed import (
    all_reduce_in_place,
    gather,
    logsumexp_over_ranks,
    rank_and_world_size,
    scale_gradient,
    sum_over_ranks,
)
from negvision.ops import class_logsumexp, pair_logsumexp
from negvision.registry import MODELS


class BatchError(UserError, ValueError):
    """A batch that the loss cannot take: labels that are no class, or embeddings not finite."""


@MODELS.register_module()
class UNPGLoss(ClassCentres):
    """Margin softmax over class centres whose negatives are joined by those within the batch.

    Every sample is told apart from the centres of other classes (classification pairs) and from
    all pairs of different identities in the batch (metric pairs), of which those beyond the
    whiskers of their box plot are left out as noise::

        loss_i = -s p_i + log(exp(A_i) + exp(B))

    where p_i is the sample's cosine with its own centre less the margin, A_i the log-sum of
    ``s * cosine`` over the classes (p_i in the place of its own), and B that over the kept metric
    pairs, one number for the batch: nothing of size N x (C + pairs) is needed. Neither the N x C
    logits nor, for large batches, the N x N similarities are ever held. Similarities are float32
    under autocast, or float64 where the embeddings are.

    In a distributed run all is of the *global* batch, pairs and whiskers included: the loss is that
    of one process with the ranks' batches joined, and so are the gradients after
    DistributedDataParallel has averaged them. Ranks share the work by classes and by pairs.

    Args:
        num_classes: Identities C.
        embedding_size: D.
        margin: A margin by name (:mod:`negvision.face.margins`) and its arguments.
        scale: s, above 0.
        whisker: Length of the whiskers in interquartile ranges; None keeps every metric pair. The
            paper's is 1.5 for MS1MV2 and 1.0 for K-FACE.
        metric_pairs: False: the plain margin softmax.
        sharded: Each rank holds a share of the centres (Partial FC); checkpoints hold all of them
            and load at any world size with negvision's runner, which also clips gradients by the
            norm over all ranks. Not for optimizers that look at the norm of a whole parameter, as
            LARS and LAMB do.
        sample_rate: With ``sharded``: share of a rank's centres, in (0, 1], that serve as negatives
            in a step, those of the batch's own classes among them. The others have a gradient of
            zero; momentum and weight decay act on them still.
        products: "bfloat16" or "float16": what the factors of the products of embeddings and
            centres are rounded to, for GPUs (:func:`negvision.ops.class_logsumexp`). The sample's
            own cosine and those within the batch stay as they are. None rounds nothing.
        init_cfg: As in MMEngine.

    Attributes:
        weight: Shape (num_classes, embedding_size), or this rank's rows of it.

    Source:
        Jung et al., BMVC 2022, "Unified Negative Pair Generation toward Well-discriminative
        Feature Space for Face Recognition", section 3; ``sharded``: An et al., CVPR 2022, "Killing
        Two Birds with One Stone: Partial FC".

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
        if products not in (None, "bfloat16", "float16"):
            raise ValueError(f'products must be "bfloat16", "float16" or None, got {products!r}')
        self.scale, self.whisker, self.metric_pairs = scale, whisker, metric_pairs
        self.products = getattr(torch, products) if products else None
        self.margin = _build_margin(margin)

    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        """The loss of the (global) batch.

        Args:
            embeddings: Shape (N, D), not normalised: some margins look at the norm.
            labels: Shape (N,), integers from 0 to C - 1.

        Returns:
            A scalar.

        Raises:
            BatchError: No sample on any rank; or on the CPU, labels that are no class or embeddings
                that are not finite. (On CUDA looking would wait for the device.)
            ValueError: Shapes that do not fit.
        """
        self._check(embeddings, labels)
        with torch.autocast(embeddings.device.type, enabled=False):
            if embeddings.dtype != torch.float64:
                embeddings = embeddings.float()
            return self._loss(embeddings, labels.long())

    def _loss(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        rank, world_size = rank_and_world_size()
        embeddings = scale_gradient(embeddings, world_size)
        norms = torch.linalg.vector_norm(embeddings, dim=1)
        units = gather(embeddings / norms.clamp(min=1e-12)[:, None])
        # Each rank computes all margins, and gradients of what was gathered are summed.
        norms, labels = scale_gradient(gather(norms), 1 / world_size), gather(labels)
        if len(labels) == 0:
            raise BatchError("the loss needs at least one sample; the (global) batch is empty")

        centres, first = self.own_centres()
        centres, class_ids = self.sampled(centres, labels - first)
        cosine = self._target_cosines(units, centres, class_ids, labels - first)
        others = logsumexp_over_ranks(
            class_logsumexp(
                units, centres, labels - first, self.scale, class_ids, products=self.products
            )
        )
        positive = self.scale * self.margin(cosine, norms)
        logsumexp = torch.logaddexp(others, positive)
        if self.metric_pairs:
            pairs = pair_logsumexp(
                units, labels, self.scale, self.whisker, (rank, world_size),
                all_reduce_in_place if world_size > 1 else None,
            )  # fmt: skip
            logsumexp = torch.logaddexp(logsumexp, logsumexp_over_ranks(pairs.value))
        loss = (logsumexp - positive).mean()
        if hasattr(self.margin, "regulariser"):
            loss = loss + self.margin.regulariser(norms)
        return loss

    def _target_cosines(
        self, units: Tensor, centres: Tensor, class_ids: Tensor | None, own_labels: Tensor
    ) -> Tensor:
        """Cosine of each sample with its own centre, from the rank that has it."""
        if len(centres) == 0:
            return sum_over_ranks(units.sum(1) * 0)
        place = own_labels.clamp(0, len(centres) - 1)
        if class_ids is not None:
            place = torch.searchsorted(class_ids, own_labels).clamp(max=len(centres) - 1)
        here = (place if class_ids is None else class_ids[place]) == own_labels
        own = functional.normalize(centres[place], dim=1)
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
                f"label {labels[wrong][0].item()} of sample {wrong.nonzero()[0].item()} is none of "
                f"the {self.num_classes} classes (0 to {self.num_classes - 1}); set the head's "
                "num_classes to that of the data set"
            )
        spoilt = ~embeddings.isfinite().all(1)
        if spoilt.any():
            raise BatchError(
                f"{spoilt.sum().item()} of {len(embeddings)} embeddings are not finite, the first "
                f"that of sample {spoilt.nonzero()[0].item()}: the training has diverged. Lower "
                "the learning rate, clip gradients, or go on from an earlier checkpoint"
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
