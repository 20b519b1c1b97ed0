"""Every batch on every rank holds the share of images without an object."""

from collections import Counter

import numpy as np
import pytest

from negvision.detection import negative_sampler
from negvision.detection.negative_sampler import NegativeRatioSampler
from negvision.errors import ConfigError


class Data:
    """Images of which the last have no object."""

    def __init__(self, objects: int, empty: int) -> None:
        self.sizes = [1 + n % 3 for n in range(objects)] + [0] * empty

    def __len__(self) -> int:
        return len(self.sizes)

    def get_data_info(self, index: int) -> dict:
        return {"instances": [{"ignore_flag": 1}] * self.sizes[index]}


def samplers(monkeypatch, world: int, objects: int, empty: int, share: float):
    for rank in range(world):
        monkeypatch.setattr(negative_sampler, "get_dist_info", lambda rank=rank: (rank, world))
        yield NegativeRatioSampler(Data(objects, empty), share, seed=3)


@pytest.mark.parametrize("world", [1, 3])
@pytest.mark.parametrize("share", [0.1, 0.25, 0.5, 0.9])
def test_every_window_holds_the_share_and_an_epoch_every_object(monkeypatch, world, share):
    objects, empty = 20, 7
    shown: Counter = Counter()
    made = list(samplers(monkeypatch, world, objects, empty, share))
    rows: list[list[int]] = [[] for _ in made]
    for epoch in range(4):
        orders = []
        for one in made:
            one.set_epoch(epoch)
            orders.append(list(one))
            assert orders[-1] == list(one) and len(orders[-1]) == len(one)  # as in a resumed run
        assert len({len(order) for order in orders}) == 1
        counts = Counter(index for order in orders for index in order)
        assert {index for index in counts if index < objects} == set(range(objects))
        shown.update({index: n for index, n in counts.items() if index >= objects})
        assert max(counts[index] for index in range(objects)) <= 2
        for row, order in zip(rows, orders, strict=True):
            row += order
    for row in rows:
        for batch in (1, 4, 8):
            for start in range(len(row) - batch + 1):
                count = sum(index >= objects for index in row[start : start + batch])
                assert np.floor(share * batch) <= count <= np.ceil(share * batch)
    # All have their turn, equally often.
    assert max(shown.values()) - min(shown.get(n, 0) for n in range(objects, objects + empty)) <= 1


@pytest.mark.parametrize(
    "objects,empty,share,message",
    [
        (4, 0, 0.5, "none of the 4 images is without an object"),
        (0, 4, 0.5, "none of the 4 images is with an object"),
        (4, 4, 0, "must be above 0 and below 1"),
        (4, 4, 1.0, "must be above 0 and below 1"),
    ],
)
def test_a_share_that_is_impossible_is_refused(objects, empty, share, message):
    with pytest.raises(ConfigError, match=message):
        NegativeRatioSampler(Data(objects, empty), share, seed=0)
