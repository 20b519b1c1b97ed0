"""Models of every kind."""

import logging

import pytest
from helpers.small_models import build_model, load_named_config


@pytest.fixture(autouse=True, scope="session")
def without_torch_traces():
    """torch logs each step of an export; capturing that doubles the time."""
    logger = logging.getLogger("torch.__trace")
    before, logger.propagate = logger.propagate, False
    yield
    logger.propagate = before


@pytest.fixture
def built():
    """Function from the name of a config to it and its model."""

    def build(name: str, **options):
        cfg = load_named_config(name)
        cfg.merge_from_dict({key.replace("__", "."): value for key, value in options.items()})
        return cfg, build_model(cfg)

    return build
