import pytest
from mmengine.config import Config

from negvision.engine.config.batches import check_batches
from negvision.errors import ConfigError


def config(batch_size, sampler):
    return Config({"train_dataloader": {"batch_size": batch_size, "sampler": sampler}})


BALANCED = {
    "type": "negvision.IdentityBalancedSampler",
    "identities_per_batch": 8,
    "images_per_identity": 4,
}


@pytest.mark.parametrize("size", [1, 31, 64])
def test_batch_size_has_to_be_p_times_k(size):
    with pytest.raises(ConfigError, match=rf"batch_size is {size}, .* 8 x 4; set batch_size to 32"):
        check_batches(config(size, BALANCED))


def test_right_size_and_other_samplers_pass():
    check_batches(config(32, BALANCED))
    check_batches(config(7, {"type": "DefaultSampler", "shuffle": True}))
    check_batches(Config({"train_dataloader": None, "val_dataloader": {"batch_size": 3}}))
