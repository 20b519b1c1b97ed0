import pickle

import numpy as np
import pytest
import torch
from helpers.tiny_training import Noisy
from torch.utils.data import BatchSampler, DataLoader, RandomSampler, SequentialSampler

from negvision.engine.data_order import SeededBatches, SeededIndex, seed_batches


def loader(workers=0, size=22, seed=3):
    built = DataLoader(
        Noisy(size), batch_size=4, sampler=SequentialSampler(range(size)), num_workers=workers
    )
    seed_batches(built, seed)
    return built


def values(loader):
    return torch.cat([batch["inputs"] for batch in loader])


def test_samples_do_not_depend_on_workers():
    alone = values(loader())
    assert torch.equal(alone, values(loader(workers=1)))
    assert torch.equal(alone, values(loader(workers=3)))
    assert not torch.equal(alone, values(loader(seed=4)))


def test_every_epoch_and_batch_has_its_own_seeds():
    built = loader()
    first = values(built)
    built.batch_sampler.begin(epoch=1)
    second = values(built)
    built.batch_sampler.begin(epoch=1)
    assert torch.equal(second, values(built))
    assert not torch.equal(first, second)
    noise = first - (torch.arange(22) / 22)[:, None, None, None]
    assert len({row.sum().item() for row in noise}) == 22


def test_start_in_the_middle_loads_no_earlier_batch():
    whole, later = loader(), loader()
    later.batch_sampler.begin(epoch=0, batch=4)
    assert torch.equal(values(later), values(whole)[16:])
    assert later.dataset.asked == list(range(16, 22))
    # Only once: the next epoch begins at its beginning.
    assert len(values(later)) == 22


def test_random_state_of_the_process_is_kept():
    built = loader()
    torch.manual_seed(0)
    np.random.seed(0)  # noqa: NPY002
    expected = torch.rand(2), np.random.rand(2)  # noqa: NPY002
    torch.manual_seed(0)
    np.random.seed(0)  # noqa: NPY002
    values(built)
    assert torch.equal(torch.rand(2), expected[0])
    assert np.array_equal(np.random.rand(2), expected[1])  # noqa: NPY002


@pytest.mark.parametrize("world_size", [2, 4])
def test_several_ranks_draw_the_samples_of_one(world_size):
    """Ranks that share a global batch have other positions in it, and the same samples."""
    built = DataLoader(Noisy(24), batch_size=8, sampler=SequentialSampler(range(24)))
    seed_batches(built, 3)
    by_index = dict(zip(range(24), values(built), strict=True))
    for rank in range(world_size):
        own = DataLoader(Noisy(24), batch_size=8 // world_size, sampler=range(rank, 24, world_size))
        seed_batches(own, 3)
        drawn = zip(range(rank, 24, world_size), values(own), strict=True)
        assert all(torch.equal(by_index[index], value) for index, value in drawn)


def test_repeated_index_in_a_batch_gets_two_seeds():
    built = DataLoader(Noisy(4), batch_size=4, sampler=[1, 1, 2, 1])
    seed_batches(built, 0)
    first, second, _, fourth = values(built)
    assert not torch.equal(first, second) and not torch.equal(first, fourth)


def test_indices_survive_pickling_and_are_integers():
    index = SeededIndex(7, 12345)
    again = pickle.loads(pickle.dumps(index))
    assert (again, again.seed) == (7, 12345)
    assert [10, 11, 12, 13, 14, 15, 16, 17][index] == 17


def test_other_attributes_come_from_the_batch_sampler():
    inner = BatchSampler(RandomSampler(range(9)), 2, drop_last=True)
    batches = SeededBatches(inner, 0)
    assert (len(batches), batches.batch_size, batches.sampler) == (4, 2, inner.sampler)
    with pytest.raises(AttributeError):
        _ = batches.nothing
