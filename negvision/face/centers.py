"""Class centers, held in full by every rank or sharded over the ranks (Partial FC)."""

import torch
from mmengine.dist import broadcast, get_dist_info
from mmengine.model import BaseModule
from torch import Tensor, nn

from negvision.errors import CheckpointError
from negvision.face.distributed import scale_gradient

# Centers are drawn in blocks, each with its own seed, so that shards of any size start the same.
_INIT_BLOCK = 1024


class ClassCenters(BaseModule):
    """One center per class as a parameter ``weight``; the base of losses that compare with them.

    With ``sharded``, rank r of W holds the r-th of W consecutive shards of the classes. The state
    dict names the rows of a shard, e.g. ``weight[4:7]``; negvision's runner joins the shards when
    it saves. A full ``weight`` loads at any world size, each rank taking its rows.

    Args:
        num_classes: C.
        embedding_size: D.
        sharded: Each rank holds a shard.
        sample_rate: With ``sharded``: share of a rank's centers that :meth:`sampled` keeps.
        init_cfg: As in MMEngine.

    Attributes:
        weight: Shape (C, D), or this rank's rows of it.
        shard: The classes of this rank.
    """

    def __init__(
        self,
        num_classes: int,
        embedding_size: int,
        sharded: bool = False,
        sample_rate: float = 1.0,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg)
        if num_classes < 1 or embedding_size < 1:
            raise ValueError(
                f"num_classes and embedding_size must be at least 1, got {num_classes} and "
                f"{embedding_size}"
            )
        if not 0 < sample_rate <= 1 or (sample_rate < 1 and not sharded):
            raise ValueError(
                f"sample_rate must lie in (0, 1], and below 1 needs sharded=True; got {sample_rate}"
            )
        self.num_classes, self.embedding_size = num_classes, embedding_size
        self.sharded, self.sample_rate = sharded, sample_rate
        self.shard = self.shard_of(*get_dist_info())
        rows = len(self.shard) if sharded else num_classes
        self.weight = nn.Parameter(torch.empty(rows, embedding_size))
        self.reset_centers()

    def shard_of(self, rank: int, world_size: int) -> range:
        """The classes of ``rank``; the first ranks hold one more if C is not divisible."""
        base, more = divmod(self.num_classes, world_size)
        begin = rank * base + min(rank, more)
        return range(begin, begin + base + (rank < more))

    def sharded_rows(self) -> dict[str, tuple[range, int]]:
        """Sharded parameters: the rows that this rank holds, and the number of all rows."""
        return {"weight": (self.shard, self.num_classes)} if self.sharded else {}

    def reset_centers(self) -> None:
        """Draw new centers from N(0, 0.01), the same ones for any world size."""
        if self.weight.is_meta:
            return
        seed = torch.initial_seed() if not self.sharded else _common_seed()
        first = self.shard.start if self.sharded else 0
        with torch.no_grad():
            for block in range(first // _INIT_BLOCK, -(-(first + len(self.weight)) // _INIT_BLOCK)):
                begin = block * _INIT_BLOCK
                generator = torch.Generator().manual_seed((seed + block) % 2**63)
                drawn = torch.randn(_INIT_BLOCK, self.embedding_size, generator=generator) * 0.01
                low, high = max(begin, first), min(begin + _INIT_BLOCK, first + len(self.weight))
                self.weight[low - first : high - first] = drawn[low - begin : high - begin]

    def own_centers(self) -> tuple[Tensor, int]:
        """The centers that this rank computes with, and the class of the first.

        Raises:
            RuntimeError: The centers were sharded for another number of ranks.
        """
        rank, world_size = get_dist_info()
        own = self.shard_of(rank, world_size)
        if not self.sharded:
            # DistributedDataParallel averages the gradient of a parameter that all ranks hold.
            weight = scale_gradient(self.weight, world_size)
            # A slice would cost a gradient of its own, as large as the weight.
            return (weight if world_size == 1 else weight[own.start : own.stop]), own.start
        if own != self.shard:
            raise RuntimeError(
                f"this rank's shard is classes {own.start} to {own.stop}, but the loss was built "
                f"with {self.shard.start} to {self.shard.stop}: start the process group before the "
                "model is built"
            )
        return self.weight, own.start

    def sampled(self, centers: Tensor, own_labels: Tensor) -> tuple[Tensor, Tensor | None]:
        """In training, a random sample of this rank's centers (c, D) with the batch's classes.

        ``own_labels`` (N,) are the labels of the global batch minus the class of the first center.
        Returns centers (k, D) and their rows, (k,), ascending; or all centers and None.
        """
        if self.sample_rate == 1 or not self.training:
            return centers, None
        order = torch.rand(len(centers), device=centers.device)
        inside = own_labels[(own_labels >= 0) & (own_labels < len(centers))]
        order[inside] = 2.0  # the batch's own classes come first
        count = max(int(self.sample_rate * len(centers)), len(inside.unique()))
        chosen = order.topk(min(count, len(centers)), sorted=False).indices.sort().values
        return centers[chosen], chosen

    def _shard_key(self) -> str:
        full = not self.sharded or len(self.shard) == self.num_classes
        return "weight" if full else f"weight[{self.shard.start}:{self.shard.stop}]"

    def _save_to_state_dict(self, destination, prefix, keep_vars) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        destination[prefix + self._shard_key()] = destination.pop(prefix + "weight")

    def _load_from_state_dict(
        self, state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs
    ) -> None:
        own, full = prefix + self._shard_key(), prefix + "weight"
        shards = [key for key in state_dict if key.startswith(f"{full}[")]
        if shards and shards != [own]:
            raise CheckpointError(
                f"the state holds {shards[0]!r}, the centers of one rank, but {own!r} of "
                f"{self.num_classes} classes is needed. Save on all ranks with negvision's runner, "
                "which joins the shards"
            )
        if shards:
            state_dict[full] = state_dict.pop(own)
        elif full in state_dict and len(state_dict[full]) != self.num_classes:
            # MMEngine only warns of these, so that a backbone can train on other identities.
            error_msgs.append(
                f"{full} has the centers of {len(state_dict.pop(full))} classes in the checkpoint "
                f"and of {self.num_classes} here; they were not loaded"
            )
            return
        elif full in state_dict and self.sharded:
            state_dict[full] = state_dict[full][self.shard.start : self.shard.stop]
        super()._load_from_state_dict(
            state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs
        )


def _common_seed() -> int:
    """The seed of rank 0, for ranks that were seeded differently."""
    seed = torch.tensor([torch.initial_seed() % 2**62])
    broadcast(seed)
    return int(seed)
