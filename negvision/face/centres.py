"""Class centres, whole on every rank or shared out over the ranks (Partial FC)."""

import torch
from mmengine.model import BaseModule
from torch import Tensor, nn

from negvision.errors import CheckpointError
from negvision.face.distributed import rank_and_world_size, scale_gradient

# Centres are drawn in blocks with a seed each, so that shards of any size begin alike.
_INIT_BLOCK = 1024


class ClassCentres(BaseModule):
    """One centre a class, as a parameter ``weight``; a base for losses that compare with them.

    With ``sharded``, rank r of W holds the r-th of W consecutive shares of the classes. Such a
    share is named as one in the state dict, e.g. ``weight[4:7]``; negvision's runner joins the
    shares when it saves. A whole ``weight`` loads at any world size, each rank taking its rows.

    Args:
        num_classes: C.
        embedding_size: D.
        sharded: Each rank holds a share.
        sample_rate: With ``sharded``: share of a rank's centres that :meth:`sampled` leaves.
        init_cfg: As in MMEngine.

    Attributes:
        weight: Shape (C, D), or this rank's rows of it.
        shard: The classes that are this rank's.
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
        self.shard = self.shard_of(*rank_and_world_size())
        rows = len(self.shard) if sharded else num_classes
        self.weight = nn.Parameter(torch.empty(rows, embedding_size))
        self.reset_centres()

    def shard_of(self, rank: int, world_size: int) -> range:
        """The classes that are ``rank``'s; the first ranks hold one more if they do not divide."""
        base, more = divmod(self.num_classes, world_size)
        begin = rank * base + min(rank, more)
        return range(begin, begin + base + (rank < more))

    def sharded_rows(self) -> dict[str, tuple[range, int]]:
        """Parameters of which this rank holds a share: their rows here, and the number of all."""
        return {"weight": (self.shard, self.num_classes)} if self.sharded else {}

    def reset_centres(self) -> None:
        """Draw the centres anew from N(0, 0.01), alike whatever the world size."""
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

    def own_centres(self) -> tuple[Tensor, int]:
        """The centres whose part of the work is this rank's, and the class of the first.

        Raises:
            RuntimeError: Sharded for another number of ranks.
        """
        rank, world_size = rank_and_world_size()
        own = self.shard_of(rank, world_size)
        if not self.sharded:
            # DistributedDataParallel averages the gradient of a parameter that all ranks hold.
            weight = scale_gradient(self.weight, world_size)
            # A slice would cost a gradient of its own, as large as the weight.
            return (weight if world_size == 1 else weight[own.start : own.stop]), own.start
        if own != self.shard:
            raise RuntimeError(
                f"this rank's share is that of classes {own.start} to {own.stop}, but the loss was "
                f"built with {self.shard.start} to {self.shard.stop}: start the process group "
                "before the model is built"
            )
        return self.weight, own.start

    def sampled(self, centres: Tensor, own_labels: Tensor) -> tuple[Tensor, Tensor | None]:
        """A sample of a rank's centres, the classes of the batch among them, while training.

        Args:
            centres: Shape (c, D), the rank's own.
            own_labels: Shape (N,), labels of the global batch less the class of the first.

        Returns:
            Centres (k, D) and their places in the share, (k,), ascending; all, and None, where
            nothing is left out.
        """
        if self.sample_rate == 1 or not self.training:
            return centres, None
        order = torch.rand(len(centres), device=centres.device)
        inside = own_labels[(own_labels >= 0) & (own_labels < len(centres))]
        order[inside] = 2.0  # the batch's own classes come first
        count = max(int(self.sample_rate * len(centres)), len(inside.unique()))
        chosen = order.topk(min(count, len(centres)), sorted=False).indices.sort().values
        return centres[chosen], chosen

    def _share_key(self) -> str:
        whole = not self.sharded or len(self.shard) == self.num_classes
        return "weight" if whole else f"weight[{self.shard.start}:{self.shard.stop}]"

    def _save_to_state_dict(self, destination, prefix, keep_vars) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        destination[prefix + self._share_key()] = destination.pop(prefix + "weight")

    def _load_from_state_dict(
        self, state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs
    ) -> None:
        share, whole = prefix + self._share_key(), prefix + "weight"
        shares = [key for key in state_dict if key.startswith(f"{whole}[")]
        if shares and shares != [share]:
            raise CheckpointError(
                f"the state holds {shares[0]!r}, the centres of one rank, where "
                f"{share!r} of {self.num_classes} are needed. Save on all ranks with negvision's "
                "runner, which joins them"
            )
        if shares:
            state_dict[whole] = state_dict.pop(share)
        elif whole in state_dict and len(state_dict[whole]) != self.num_classes:
            # Not raised here: mmengine warns, and trains a backbone on with other identities.
            error_msgs.append(
                f"{whole} has the centres of {len(state_dict.pop(whole))} classes in the "
                f"checkpoint and of {self.num_classes} here; they were not loaded"
            )
            return
        elif whole in state_dict and self.sharded:
            state_dict[whole] = state_dict[whole][self.shard.start : self.shard.stop]
        super()._load_from_state_dict(
            state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs
        )


def _common_seed() -> int:
    """A seed that the ranks share, even where each was seeded for itself."""
    seed = torch.tensor([torch.initial_seed() % 2**62], dtype=torch.int64)
    if rank_and_world_size()[1] > 1:
        device = "cuda" if torch.distributed.get_backend() == "nccl" else "cpu"
        seed = seed.to(device)
        torch.distributed.broadcast(seed, 0)
    return int(seed)
