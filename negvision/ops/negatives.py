"""Log-sums over negative pairs: of a batch with class centers, and of a batch with itself.

Both process tiles of similarities, so that neither the N x C logits nor, above a size, the N x N
matrix is ever in memory; the backward pass recomputes the tiles.
"""

from collections.abc import Callable, Iterable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.autograd import Function

from negvision.ops import fallback
from negvision.ops._extension import is_compiled_for

# Similarities per tile: 1 MiB, which fits a core's cache, and 256 MiB on a GPU.
_TILE = {"cpu": 1 << 18}
_TILE_ELSEWHERE = 1 << 26
_STRIP_ROWS = 256
# Keep up to this many similarities of a batch with itself: 64 MiB in float32.
_HELD_SIMILARITIES = 1 << 24


class PairLogsumexp(NamedTuple):
    """What :func:`pair_logsumexp` returns."""

    value: Tensor
    bounds: Tensor
    kept: Tensor
    total: Tensor


def class_logsumexp(
    embeddings: Tensor,
    centers: Tensor,
    labels: Tensor,
    scale: float,
    class_ids: Tensor | None = None,
    tile: int | None = None,
    products: torch.dtype | None = None,
) -> Tensor:
    """``log sum_j exp(scale * cos(e_i, w_j))`` over all classes j but the sample's own.

    The own class is left out because a margin changes only that logit; the caller adds it. Memory
    is one tile of similarities plus the gradient of the centers; the compiled operator for CPUs
    has a tile for each thread, and in the backward pass up to 32 gradients of the embeddings, 64
    MiB or four of them. The four matrix products (one
    forward, three backward) have the dtype of the embeddings unless ``products`` is given.

    Args:
        embeddings: Shape (N, D), of unit norm; float32 or float64.
        centers: Shape (C, D), of any norm; normalized a tile at a time. Norms are at least 1e-12.
        labels: Shape (N,), integer. A label that is no class leaves nothing out.
        scale: Factor of the cosines; above 0.
        class_ids: Shape (C,), integer: the class of each center, if the centers are a share or a
            sample of all; default 0 to C - 1.
        tile: Similarities computed at a time; default 2^18 on a CPU and 2^26 on a GPU.
        products: bfloat16 or float16: round the factors of products of float32 embeddings to this.
            A GPU multiplies these several times as fast, a CPU does not. Sums stay float32. A
            cosine is off by at most 2^-7 (2^-10 for float16), a log-sum by ``scale`` times that.

    Returns:
        Shape (N,); -inf where no class is left.

    Raises:
        ValueError: Shapes do not match, ``scale`` is not above 0, or ``products`` is another type.

    Example:
        >>> e = torch.tensor([[1.0, 0.0]])
        >>> w = torch.tensor([[2.0, 0.0], [0.0, 3.0], [-1.0, 0.0]])
        >>> class_logsumexp(e, w, torch.tensor([0]), scale=1.0)  # log(exp(0) + exp(-1))
        tensor([0.3133])
    """
    _check(embeddings, labels, scale)
    if centers.dim() != 2 or centers.shape[1] != embeddings.shape[1]:
        raise ValueError(
            f"centers must have shape (C, {embeddings.shape[1]}), got {tuple(centers.shape)}"
        )
    if class_ids is None:
        class_ids = torch.arange(len(centers), dtype=torch.int32, device=centers.device)
    if class_ids.shape != (len(centers),):
        raise ValueError(f"class_ids must have shape ({len(centers)},), got {class_ids.shape}")
    if products not in (None, torch.bfloat16, torch.float16) or (
        products and embeddings.dtype != torch.float32
    ):
        raise ValueError(
            f"products must be None, or torch.bfloat16 or torch.float16 of float32 embeddings, got "
            f"{products} of {embeddings.dtype}"
        )
    if tile is None:
        tile = _TILE.get(embeddings.device.type, _TILE_ELSEWHERE)
    columns = max(1, tile // max(1, len(embeddings)))
    with torch.autocast(embeddings.device.type, enabled=False):
        return _ClassLogsumexp.apply(
            embeddings, centers.to(embeddings.dtype), labels.int(), class_ids.int(), scale, columns,
            products,
        )  # fmt: skip


def pair_logsumexp(
    embeddings: Tensor,
    labels: Tensor,
    scale: float,
    whisker: float | None = 1.5,
    share: tuple[int, int] = (0, 1),
    all_reduce: Callable[[Tensor], None] | None = None,
    hold: int = _HELD_SIMILARITIES,
) -> PairLogsumexp:
    """``log sum exp(scale * cos(e_i, e_j))`` over the negative pairs of a batch that are kept.

    Negative pairs are those with i < j and different labels. Of their K sorted similarities v, Q1
    is ``v[K // 4]`` and Q3 ``v[3 * K // 4]``; kept are those from ``Q1 - whisker * (Q3 - Q1)`` to
    ``Q3 + whisker * (Q3 - Q1)``, inclusive. The quartiles are exact, and found without sorting, by
    counting one byte of the similarities at a time. No gradient reaches the bounds.

    Args:
        embeddings: Shape (N, D), of unit norm; float32 or float64.
        labels: Shape (N,), integer.
        scale: Factor of the similarities; above 0.
        whisker: Length of the whiskers in interquartile ranges, at least 0; None keeps all pairs.
        share: (rank, world size): compute value and gradient of this rank's share of the pairs;
            all ranks pass the same embeddings.
        all_reduce: Sums a tensor over the ranks in place, so that the bounds are of all pairs.
        hold: Keep up to this many similarities (N * N) for the backward pass; above it, tiles are
            recomputed each time.

    Returns:
        ``value``, a scalar, -inf if no pair is kept; ``bounds`` (2,), infinite without a whisker;
        ``kept``, int64: the number of kept pairs in this share; ``total``, int64: K.

    Raises:
        ValueError: Shapes do not match, ``scale`` is not above 0, or ``whisker`` is below 0.

    Source:
        Jung et al., BMVC 2022, "Unified Negative Pair Generation toward Well-discriminative
        Feature Space for Face Recognition", section 3.

    Example:
        >>> e = torch.nn.functional.normalize(torch.tensor([[1.0, 0.0], [1.0, 1.0], [0.0, 1.0]]))
        >>> pairs = pair_logsumexp(e, torch.tensor([0, 0, 1]), scale=1.0, whisker=None)
        >>> pairs.total.item(), round(pairs.value.item(), 4)  # log(exp(0) + exp(0.7071))
        (2, 1.1079)
    """
    _check(embeddings, labels, scale)
    if whisker is not None and not whisker >= 0:
        raise ValueError(f"whisker must be at least 0 or None, got {whisker}")
    with torch.autocast(embeddings.device.type, enabled=False):
        return PairLogsumexp(
            *_PairLogsumexp.apply(embeddings, labels.int(), scale, whisker, share, all_reduce, hold)
        )


def _check(embeddings: Tensor, labels: Tensor, scale: float) -> None:
    if embeddings.dim() != 2 or embeddings.dtype not in (torch.float32, torch.float64):
        raise ValueError(
            "embeddings must be float32 or float64 of shape (N, D), got "
            f"{embeddings.dtype} of {tuple(embeddings.shape)}"
        )
    if labels.shape != embeddings.shape[:1] or labels.is_floating_point():
        raise ValueError(
            f"labels must be integers of shape ({len(embeddings)},), got "
            f"{labels.dtype} of {tuple(labels.shape)}"
        )
    if not scale > 0:
        raise ValueError(f"scale must be above 0, got {scale}")


def _kernels(device_type: str):
    return torch.ops.negvision if is_compiled_for(device_type) else fallback


def _in_one_call(embeddings: Tensor, products: torch.dtype | None) -> bool:
    """Whether one operator takes all tiles, so that threads wait for each other once only."""
    on = embeddings.device.type
    return (
        on == "cpu"
        and products is None
        and is_compiled_for(on)
        and hasattr(torch.ops.negvision, "class_logsumexp")  # absent from older libraries
    )


class _Once(Function):
    """A gradient that refuses differentiation, which autograd would silently ignore."""

    @staticmethod
    def forward(ctx, gradient, *depends_on):
        return None if gradient is None else gradient.view_as(gradient)

    @staticmethod
    def backward(ctx, *grads):
        raise NotImplementedError(
            "negvision's log-sums over negative pairs can be differentiated once, not twice"
        )


class _ClassLogsumexp(Function):
    @staticmethod
    def forward(ctx, embeddings, centers, labels, class_ids, scale, columns, products):
        ctx.scale, ctx.columns, ctx.products = scale, columns, products
        if _in_one_call(embeddings, products):
            logsumexp = torch.ops.negvision.class_logsumexp(
                embeddings.detach(), centers.detach(), labels, class_ids, scale, columns
            )
            ctx.save_for_backward(embeddings, centers, labels, class_ids, logsumexp)
            return logsumexp
        logsumexp = embeddings.new_full((len(embeddings),), -torch.inf)
        kernels, everywhere = _kernels(embeddings.device.type), -len(embeddings)
        factors = _rounded(embeddings, products)
        for begin in range(0, len(centers), columns):
            some = slice(begin, begin + columns)
            unit, _ = _normalized(centers[some])
            of_tile, _ = kernels.negatives_logsumexp(
                _product(factors, _rounded(unit, products).T),
                labels, class_ids[some], everywhere, None, scale,
            )  # fmt: skip
            logsumexp = torch.logaddexp(logsumexp, of_tile)
        ctx.save_for_backward(embeddings, centers, labels, class_ids, logsumexp)
        return logsumexp

    @staticmethod
    def backward(ctx, *grads):
        embeddings, centers, *_ = ctx.saved_tensors
        (grad,) = grads
        with torch.no_grad(), torch.autocast(embeddings.device.type, enabled=False):
            gradients = _ClassLogsumexp.gradients(ctx, grad.contiguous())
        of_embeddings, of_centers = (_Once.apply(g, embeddings, centers, grad) for g in gradients)
        return of_embeddings, of_centers, None, None, None, None, None

    @staticmethod
    def gradients(ctx, grad):
        embeddings, centers, labels, class_ids, logsumexp = ctx.saved_tensors
        if _in_one_call(embeddings, ctx.products):
            of_embeddings, of_centers = torch.ops.negvision.class_logsumexp_backward(
                embeddings.detach(), centers.detach(), labels, class_ids, ctx.scale, ctx.columns,
                logsumexp, grad, ctx.needs_input_grad[1],
            )  # fmt: skip
            return of_embeddings, of_centers if ctx.needs_input_grad[1] else None
        kernels, everywhere = _kernels(embeddings.device.type), -len(embeddings)
        of_embeddings = torch.zeros_like(embeddings)
        of_centers = torch.empty_like(centers) if ctx.needs_input_grad[1] else None
        products, factors = ctx.products, _rounded(embeddings, ctx.products)
        if products is not None:
            # Scale the largest possible weight to just below 2^14, so that float16 can represent it
            # and those of classes a billion times less likely.
            most = torch.linalg.vector_norm(grad, torch.inf) if len(grad) else grad.sum()
            lift = (14 - (ctx.scale * most).clamp(min=1e-30).log2()).floor().exp2()
            grad = grad * lift
        for begin in range(0, len(centers), ctx.columns):
            some = slice(begin, begin + ctx.columns)
            unit, norm = _normalized(centers[some])
            unit_factors = _rounded(unit, products)
            tile = _product(factors, unit_factors.T)
            kernels.negatives_softmax_(
                tile, labels, class_ids[some], everywhere, None, ctx.scale, logsumexp, grad
            )
            if products is None:
                of_embeddings.addmm_(tile, unit)
            else:
                tile = tile.to(products)
                of_embeddings += _product(tile, unit_factors) / lift
            if of_centers is not None:
                own = of_centers[some]
                if products is None:
                    torch.mm(tile.T, embeddings, out=own)
                else:
                    own.copy_(_product(tile.T, factors)).div_(lift)
                # Through the normalization: a component along the center does not rotate it.
                own.addcmul_(unit, torch.linalg.vecdot(own, unit)[:, None], value=-1).div_(norm)
        return of_embeddings, of_centers


def _rounded(values: Tensor, dtype: torch.dtype | None) -> Tensor:
    return values if dtype is None else values.to(dtype)


def _product(a: Tensor, b: Tensor) -> Tensor:
    """The matrix product, summed in float32 at least."""
    if a.dtype in (torch.float32, torch.float64):
        return a @ b
    # A CPU would round the sums to the dtype of the factors.
    return torch.mm(a, b, out_dtype=torch.float32) if a.is_cuda else a.float() @ b.float()


def _normalized(centers: Tensor) -> tuple[Tensor, Tensor]:
    norm = torch.linalg.vector_norm(centers, dim=1, keepdim=True).clamp_(min=1e-12)
    return centers / norm, norm


class _PairLogsumexp(Function):
    @staticmethod
    def forward(ctx, embeddings, labels, scale, whisker, share, all_reduce, hold):
        kernels = _kernels(embeddings.device.type)
        strips = _Strips(embeddings, labels, share, held=len(embeddings) ** 2 <= hold)
        bounds = None
        if whisker is not None:
            bounds, total = _whisker_bounds(kernels, strips, whisker, embeddings, all_reduce)
        values, kept = [embeddings.new_full((1,), -torch.inf)], labels.new_zeros(1).long()
        for tile, rows, columns in strips:
            of_tile, kept_of_tile = kernels.negatives_logsumexp(
                tile, rows, columns, 0, bounds, scale
            )
            values.append(of_tile)
            kept += kept_of_tile.sum()
        value, kept = torch.cat(values).logsumexp(0), kept[0]
        if whisker is None:
            total = kept.clone()
            if all_reduce is not None:
                all_reduce(total)
        ctx.save_for_backward(embeddings, labels, value, bounds)
        ctx.strips, ctx.scale = strips, scale
        if bounds is None:
            bounds = embeddings.new_tensor([-torch.inf, torch.inf])
        ctx.mark_non_differentiable(bounds, kept, total)
        return value, bounds, kept, total

    @staticmethod
    def backward(ctx, *grads):
        embeddings, grad = ctx.saved_tensors[0], grads[0]
        with torch.no_grad(), torch.autocast(embeddings.device.type, enabled=False):
            gradient = _PairLogsumexp.gradient(ctx, grad)
        return _Once.apply(gradient, embeddings, grad), None, None, None, None, None, None

    @staticmethod
    def gradient(ctx, grad):
        embeddings, _, value, bounds = ctx.saved_tensors
        kernels = _kernels(embeddings.device.type)
        of_embeddings = torch.zeros_like(embeddings)
        for begin, (tile, rows, columns) in zip(ctx.strips.begins, ctx.strips, strict=True):
            weights = tile.clone() if ctx.strips.held else tile
            each = (len(rows),)
            kernels.negatives_softmax_(
                weights, rows, columns, 0, bounds, ctx.scale,
                value.expand(each).contiguous(), grad.expand(each).contiguous(),
            )  # fmt: skip
            own, others = embeddings[begin : begin + len(rows)], embeddings[begin:]
            of_embeddings[begin : begin + len(rows)].addmm_(weights, others)
            of_embeddings[begin:].addmm_(weights.T, own)
        return of_embeddings


class _Strips:
    """Similarities of blocks of rows with all samples from the block's first row on.

    Iterating yields (tile, row labels, column labels). Tiles that are not kept are recomputed with
    the same products, so that the bits are the same.
    """

    def __init__(self, embeddings: Tensor, labels: Tensor, share: tuple[int, int], held: bool):
        rank, world_size = share
        self.embeddings, self.labels, self.held = embeddings, labels, held
        self.begins = list(range(0, len(embeddings), _STRIP_ROWS))[rank::world_size]
        self._tiles = [self._tile(begin) for begin in self.begins] if held else []

    def _tile(self, begin: int) -> Tensor:
        return self.embeddings[begin : begin + _STRIP_ROWS] @ self.embeddings[begin:].T

    def __iter__(self):
        for index, begin in enumerate(self.begins):
            tile = self._tiles[index] if self.held else self._tile(begin)
            yield tile, self.labels[begin : begin + _STRIP_ROWS], self.labels[begin:]


def _whisker_bounds(
    kernels,
    tiles: Iterable[tuple[Tensor, Tensor, Tensor]],
    whisker: float,
    like: Tensor,
    all_reduce: Callable[[Tensor], None] | None,
) -> tuple[Tensor, Tensor]:
    """The ends of the whiskers of the box plot of all negative similarities.

    A radix select: similarities map to unsigned integers of the same order, and the bytes of both
    quartiles are found from the top down, by histograms of the values whose higher bytes agree.
    The tiles are read 4 times in float32 and 8 times in float64. Nothing waits for the device.

    Args:
        kernels: Provides ``negatives_histogram``.
        tiles: (similarities, row labels, column labels) of strips that begin at the diagonal;
            iterable several times.
        whisker: Length of a whisker in interquartile ranges.
        like: A tensor of the dtype and on the device of the similarities.
        all_reduce: Sums the histograms over ranks, in place.

    Returns:
        The bounds, (2,), and the number of pairs, int64; without pairs the bounds are undefined.
    """
    bits = torch.finfo(like.dtype).bits
    keys = torch.zeros(2, dtype=torch.int64, device=like.device)
    ranks, total = keys, keys[0]  # known after the first round
    for shift in range(bits - 8, -1, -8):
        counts = torch.zeros(2, 256, dtype=torch.int64, device=like.device)
        for tile, rows, columns in tiles:
            counts += kernels.negatives_histogram(tile, rows, columns, 0, keys, shift)
        if all_reduce is not None:
            all_reduce(counts)
        until = counts.cumsum(1)
        if shift == bits - 8:
            total = until[0, -1]
            ranks = torch.stack([total // 4, 3 * total // 4])
        byte = (until <= ranks[:, None]).sum(1).clamp(max=255)
        ranks = ranks - (until - counts).gather(1, byte[:, None])[:, 0]
        keys = keys << 8 | byte
    low, high = _values(keys, like.dtype)
    reach = whisker * (high - low)
    return torch.stack([low - reach, high + reach]), total


def _values(keys: Tensor, dtype: torch.dtype) -> Tensor:
    """The numbers whose sortable integers are ``keys``."""
    if dtype == torch.float64:
        lowest = torch.iinfo(torch.int64).min
        return torch.where(keys < 0, keys ^ lowest, ~keys).view(dtype)
    positive = keys >= 1 << 31
    signed = torch.where(positive, keys - (1 << 31), -1 - keys)
    return signed.int().view(dtype)
