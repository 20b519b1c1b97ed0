"""Check that a dataloader's batches are as long as its sampler fills them."""

from collections.abc import Mapping

from mmengine.config import Config

from negvision.errors import ConfigError


def check_batches(cfg: Config) -> None:
    """Compare ``batch_size`` with P x K of a sampler of P identities with K images each.

    MMEngine does not tell a sampler the batch size, and with another one the batches would hold
    parts of identities.

    Raises:
        ConfigError: they differ; the message says what to set.
    """
    for split in ("train", "val", "test"):
        loader = cfg.get(f"{split}_dataloader") or {}
        sampler = loader.get("sampler")
        if not isinstance(sampler, Mapping):
            continue
        identities = sampler.get("identities_per_batch")
        images = sampler.get("images_per_identity")
        size = loader.get("batch_size", 1)
        if isinstance(identities, int) and isinstance(images, int) and size != identities * images:
            raise ConfigError(
                f"{split}_dataloader.batch_size is {size}, but its sampler fills batches with "
                f"identities_per_batch x images_per_identity = {identities} x {images}; set "
                f"batch_size to {identities * images}."
            )
