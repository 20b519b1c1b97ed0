"""P x K batches: identities once per epoch, different on each rank, equal for any world size."""

from collections import Counter

import numpy as np
import pytest
from torch.utils.data import ConcatDataset

from negvision.errors import DatasetError
from negvision.face.datasets import IdentityBalancedSampler


class Labeled:
    """Nothing but labels."""

    def __init__(self, labels):
        self.labels = np.asarray(labels)

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, index):
        return int(self.labels[index])


# Identity i has i + 1 images, in mixed order.
COUNTS = np.arange(1, 11)
LABELS = np.random.default_rng(0).permutation(np.repeat(np.arange(10), COUNTS))


def samplers(monkeypatch, world_size, labels=LABELS, **kwargs):
    made = []
    for rank in range(world_size):
        monkeypatch.setattr(
            "negvision.face.datasets.sampler.get_dist_info", lambda rank=rank: (rank, world_size)
        )
        made.append(IdentityBalancedSampler(Labeled(labels), seed=5, **kwargs))
    return made


def batches(sampler):
    size = sampler.identities_per_batch * sampler.images_per_identity
    indices = list(sampler)
    assert len(indices) == len(sampler) and len(indices) % size == 0
    return [indices[i : i + size] for i in range(0, len(indices), size)]


@pytest.mark.parametrize("images", [1, 4])
@pytest.mark.parametrize(
    ("world_size", "identities"), [(1, 1), (1, 10), (2, 3), (2, 5), (3, 1), (3, 3)]
)
def test_batches(monkeypatch, world_size, identities, images):
    made = samplers(
        monkeypatch, world_size, identities_per_batch=identities, images_per_identity=images
    )
    per_rank = [batches(sampler) for sampler in made]
    (number,) = {len(found) for found in per_rank}
    assert number == int(np.ceil(10 / (identities * world_size)))
    seen = Counter()
    for together in zip(*per_rank, strict=True):
        drawn = [LABELS[batch].reshape(identities, images) for batch in together]
        for block in drawn:
            assert (block == block[:, :1]).all()  # K images of one identity in a row
        everyone = np.concatenate([block[:, 0] for block in drawn])
        assert len(set(everyone)) == identities * world_size  # in one global batch none twice
        seen.update(everyone.tolist())
    assert set(seen) == set(range(10))
    # Only what fills up the last batch comes twice.
    assert sum(seen.values()) == number * identities * world_size
    assert max(seen.values()) <= 2


def test_images_repeat_only_where_there_are_too_few(monkeypatch):
    (sampler,) = samplers(monkeypatch, 1, identities_per_batch=2, images_per_identity=4)
    seen = set()
    for epoch in range(40):
        sampler.set_epoch(epoch)
        seen.update(sampler)
        for batch in batches(sampler):
            for block in np.reshape(batch, (2, 4)):
                images = LABELS[block[0]] + 1
                repeats = Counter(block.tolist())
                assert len(repeats) == min(images, 4)
                assert max(repeats.values()) - min(repeats.values()) <= 1
    assert seen == set(range(len(LABELS)))


def test_seed_and_epoch_decide(monkeypatch):
    arguments = {"identities_per_batch": 5, "images_per_identity": 2}
    one, other = (samplers(monkeypatch, 1, **arguments)[0] for _ in range(2))
    assert list(one) == list(one) == list(other)
    other.set_epoch(1)
    assert list(one) != list(other)
    different = IdentityBalancedSampler(Labeled(LABELS), seed=6, **arguments)
    assert list(one) != list(different)


def test_global_batch_is_the_same_on_one_rank_and_on_many(monkeypatch):
    (one,) = samplers(monkeypatch, 1, identities_per_batch=4, images_per_identity=3)
    two = samplers(monkeypatch, 2, identities_per_batch=2, images_per_identity=3)
    together = [a + b for a, b in zip(*map(batches, two), strict=True)]
    assert batches(one) == together


@pytest.mark.parametrize(
    ("labels", "identities", "drawn"), [([90, 3, 90, 3], 2, [0, 1, 2, 3]), ([0], 1, [0, 0])]
)
def test_labels_with_gaps_and_one_image(monkeypatch, labels, identities, drawn):
    sizes = {"identities_per_batch": identities, "images_per_identity": 2}
    (sampler,) = samplers(monkeypatch, 1, labels, **sizes)
    assert sorted(sampler) == drawn


@pytest.mark.parametrize("labels", [LABELS, []])
def test_too_few_identities(monkeypatch, labels):
    has = len(set(labels))
    with pytest.raises(
        DatasetError, match=rf"has {has} identities, .* 2 ranks needs 12. Lower .*\(6\)"
    ):
        samplers(monkeypatch, 2, labels, identities_per_batch=6, images_per_identity=2)


def test_samples_without_an_identity(monkeypatch):
    with pytest.raises(DatasetError, match="2 of 4 samples have no identity"):
        samplers(monkeypatch, 1, [0, -1, 1, -1], identities_per_batch=1, images_per_identity=2)


@pytest.mark.parametrize("value", [0, -1, 1.5, None])
@pytest.mark.parametrize("name", ["identities_per_batch", "images_per_identity"])
def test_arguments(name, value):
    arguments = {"identities_per_batch": 2, "images_per_identity": 2, name: value}
    with pytest.raises(ValueError, match=f"must be integers of at least 1, got .*{value}"):
        IdentityBalancedSampler(Labeled(LABELS), seed=0, **arguments)


def test_labels_of_wrapped_and_other_datasets():
    class Described(list):
        def get_data_info(self, index):
            return {"label": self[index]}

    both = ConcatDataset([Labeled([0, 1, 1]), Described([0, 1, 1])])
    sampler = IdentityBalancedSampler(both, 2, 3, seed=0)
    assert set(sampler) <= set(range(6)) and len(sampler) == 6
