"""What many GPUs would give: a model of a training step, of named assumptions. Nothing is measured.

A step is forward, backward and what ranks exchange. Gradients go in DistributedDataParallel's
buckets while the backward pass runs, one after the other; what is not done by its end, and what a
loss exchanges in between, is waited for. docs/scaling.md has the assumptions with their sources.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

MIB = 1 << 20
# DistributedDataParallel's: a small first bucket, so that communication begins early.
BUCKETS = (1 * MIB, 25 * MIB)
# Of what a link can carry, and of a GPU's peak in bfloat16 (convolutions) and float32 (products).
LINK_SHARE, CONVOLUTION_SHARE, PRODUCT_SHARE = 0.8, 0.2, 0.6


class Cluster(NamedTuple):
    """Machines of GPUs. Bandwidths in bytes/s, one direction; peaks in operations/s."""

    name: str
    gpus: int
    inside: float
    between: float
    bfloat16: float
    float32: float

    def bandwidth(self, ranks: int) -> float:
        """Of a ring over ``ranks``: all of it crosses each machine's network once."""
        slowest = self.inside if ranks <= self.gpus else min(self.inside, self.between)
        return LINK_SHARE * slowest


INFINIBAND = Cluster("8 x H100, 8 x 400 Gb/s", 8, 450e9, 8 * 50e9, 989e12, 67e12)
ETHERNET = Cluster("8 x H100, 1 x 100 Gb/s", 8, 450e9, 12.5e9, 989e12, 67e12)


class Protocol(NamedTuple):
    """Of NCCL: seconds to begin, of a hop in and between machines, and the share of bandwidth."""

    tree: bool
    base: float
    inside: float
    between: float
    share: float


PROTOCOLS = (
    Protocol(False, 8.4e-6, 3.4e-6, 9.6e-6, 1.0),
    Protocol(False, 10.0e-6, 1.9e-6, 4.0e-6, 0.92),
    Protocol(False, 3.6e-6, 0.47e-6, 2.7e-6, 0.25),
    Protocol(True, 4.4e-6, 1.2e-6, 8.5e-6, 0.82),
    Protocol(True, 4.4e-6, 0.52e-6, 5.0e-6, 0.25),
)


class Exchange(NamedTuple):
    """A collective operation: "all_reduce" or "all_gather", and the bytes of its result."""

    kind: str
    size: float

    def sent(self, ranks: int) -> float:
        """Bytes that each rank sends, the fewest possible.

        Example:
            >>> Exchange("all_reduce", 8.0).sent(2), Exchange("all_gather", 8.0).sent(2)
            (8.0, 4.0)
        """
        rounds = 2 if self.kind == "all_reduce" else 1
        return rounds * (ranks - 1) / ranks * self.size

    def seconds(self, ranks: int, cluster: Cluster) -> float:
        """By the best of NCCL's protocols."""
        if ranks == 1:
            return 0.0
        return min(
            _latency(protocol, self.kind, ranks, cluster)
            + self.sent(ranks) / (cluster.bandwidth(ranks) * protocol.share)
            for protocol in PROTOCOLS
            if self.kind == "all_reduce" or not protocol.tree
        )


def _latency(protocol: Protocol, kind: str, ranks: int, cluster: Cluster) -> float:
    rounds = 2 if kind == "all_reduce" else 1
    machines = math.ceil(ranks / cluster.gpus)
    if protocol.tree:
        between, inside = math.log2(machines), ranks / machines - 1
    else:
        between, inside = machines - 1, ranks - machines
    return protocol.base + rounds * (inside * protocol.inside + between * protocol.between)


class Step(NamedTuple):
    """What one GPU does in a step: seconds, bytes, and what is exchanged without overlap."""

    images: int
    alone: float
    backward: float
    gradient_bytes: float
    exchanges: tuple[Exchange, ...] = ()

    def waiting(self, ranks: int, cluster: Cluster) -> float:
        """Seconds of communication that no computation hides."""
        losses = sum(exchange.seconds(ranks, cluster) for exchange in self.exchanges)
        return losses + exposed_seconds(self.gradient_bytes, self.backward, ranks, cluster)

    def seconds(self, ranks: int, cluster: Cluster) -> float:
        return self.alone + self.backward + self.waiting(ranks, cluster)

    def sent(self, ranks: int) -> float:
        """Bytes that each rank sends in a step."""
        gradients = Exchange("all_reduce", self.gradient_bytes)
        return sum(exchange.sent(ranks) for exchange in (gradients, *self.exchanges))


def buckets(gradient_bytes: float) -> list[float]:
    """Sizes of the buckets that gradients go in, in the order in which they go."""
    sizes, first = [], True
    while gradient_bytes > 0:
        sizes.append(min(gradient_bytes, BUCKETS[0] if first else BUCKETS[1]))
        gradient_bytes -= sizes[-1]
        first = False
    return sizes


def exposed_seconds(gradient_bytes: float, backward: float, ranks: int, cluster: Cluster) -> float:
    """From the end of the backward pass to that of the last bucket's exchange.

    Gradients are taken to become ready evenly over the backward pass.
    """
    if ranks == 1:
        return 0.0
    ready = end = 0.0
    for size in buckets(gradient_bytes):
        ready += backward * size / gradient_bytes
        end = max(end, ready) + Exchange("all_reduce", size).seconds(ranks, cluster)
    return end - backward


def atss_r50(ranks: int, cluster: Cluster, images: int = 2) -> Step:
    """ATSS R50 on images of 1344 x 800 in bfloat16 (configs/atss_r50.py)."""
    forward = images * 429.5e9 / (CONVOLUTION_SHARE * cluster.bfloat16)
    # The numbers of positives and their centernesses are averaged over ranks.
    exchanges = (Exchange("all_reduce", 4), Exchange("all_reduce", 4))
    return Step(images, forward, 2 * forward, 4 * 32_069_978, exchanges)


def unpg_r50(
    ranks: int, cluster: Cluster, images: int = 64, classes: int = 1_000_000, size: int = 512
) -> Step:
    """IResNet-50 in bfloat16 under UNPG, whose centres are shared out (configs/unpg_r50.py)."""
    forward = images * 12.62e9 / (CONVOLUTION_SHARE * cluster.bfloat16)
    batch = images * ranks
    # Four products with the rank's centres, and eight passes over its share of the pairs.
    of_classes = 4 * 2 * batch * (classes / ranks) * size
    of_pairs = 8 * 2 * (batch**2 / 2 / ranks) * size
    head = (of_classes + of_pairs) / (PRODUCT_SHARE * cluster.float32)
    exchanges = unpg_exchanges(batch, ranks, size)
    return Step(images, forward + head, 2 * forward, 4 * 43_590_336, exchanges)


def unpg_exchanges(batch: int, ranks: int, size: int) -> tuple[Exchange, ...]:
    """What :class:`negvision.face.losses.UNPGLoss` exchanges for a (global) batch, by ArcFace.

    Embeddings, norms and labels are gathered, each after the counts of all ranks; log-sums over
    classes and pairs, cosines with the own centre and four histograms of pairs are reduced; the
    gradient of the embeddings is reduced on the way back.
    """
    gathered = [
        Exchange("all_gather", bytes_) for bytes_ in (4 * batch * size, 4 * batch, 8 * batch)
    ]
    counts = [Exchange("all_gather", 8 * ranks)] * 3
    of_samples = [Exchange("all_reduce", 4 * batch)] * 3
    histograms = [Exchange("all_reduce", 2 * 256 * 8)] * 4
    of_pairs = [Exchange("all_reduce", 4)] * 2
    back = [Exchange("all_reduce", 4 * batch * size)]
    return (*gathered, *counts, *of_samples, *histograms, *of_pairs, *back)


def table(work: Callable[[int, Cluster], Step], cluster: Cluster, gpus: Sequence[int]) -> str:
    """Rows of Markdown: GPUs, images/s, share of the ideal, ms a step and of waiting, MB sent."""
    rows = [
        "| GPUs | images/s | of the ideal | step, ms | of it waiting, ms | sent by each, MB |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    one = work(1, cluster)
    ideal = one.images / one.seconds(1, cluster)
    for ranks in gpus:
        step = work(ranks, cluster)
        seconds = step.seconds(ranks, cluster)
        rate = ranks * step.images / seconds
        rows.append(
            f"| {ranks} | {rate:,.0f} | {rate / ranks / ideal:.0%} | {1e3 * seconds:.1f} | "
            f"{1e3 * step.waiting(ranks, cluster):.1f} | {step.sent(ranks) / 1e6:.0f} |"
        )
    return "\n".join(rows)
