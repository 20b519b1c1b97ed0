"""How many images fit into the memory, from steps with a few."""

import pytest
from mmengine.config import Config

from negvision.engine.recipes import trial
from negvision.errors import ConfigError

GB = 1e9


@pytest.fixture
def chosen(monkeypatch):
    """Function from a batch, the free memory and what steps need to the choice."""

    def choose(batch, free, peaks, used=1.0):
        monkeypatch.setattr(trial, "_free_memory", lambda: free * GB)
        monkeypatch.setattr(trial, "_memory", lambda: used * GB)
        needs = {images: need and need * GB for images, need in peaks.items()}
        monkeypatch.setattr(trial, "_peak", lambda cfg, images: needs[images])
        return trial.fitting_batch(Config({"train_dataloader": {"batch_size": batch}}))

    return choose


def test_a_batch_that_fits_stays(chosen):
    # 0.5 GB for the model, 0.25 GB for each image.
    assert chosen(8, 4, {2: 2.0, 4: 2.5}) == (8, "it needs 2.5 GB, 4.0 GB are free")
    assert chosen(1, 4, {2: 2.0, 4: 2.5})[0] == 1


def test_a_batch_is_halved_until_a_fifth_of_the_memory_stays_free(chosen):
    assert chosen(8, 3, {2: 2.0, 4: 2.5}) == (4, "8 images need 2.5 GB, 3.0 GB are free")
    assert chosen(7, 3, {2: 2.0, 4: 2.5})[0] == 7
    assert chosen(64, 3, {2: 2.0, 4: 2.5})[0] == 4
    # Two images were tried, so they fit.
    assert chosen(8, 0.5, {2: 2.0, 4: 2.5})[0] == 2


def test_images_that_do_not_fit_at_all_are_said(chosen):
    assert chosen(8, 9, {2: 2.0, 4: None}) == (2, "4 images do not fit, 9.0 GB are free")
    with pytest.raises(ConfigError, match=r"not even 2 images fit into the 9.0 GB"):
        chosen(8, 9, {2: None})


def test_systems_that_do_not_tell_keep_the_batch_of_the_model(chosen):
    assert chosen(8, 0, {})[0] == 8
    assert "cannot be told" in chosen(8, 3, {}, used=0)[1]
