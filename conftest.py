"""For the tests and for the examples in docstrings, which `make test` runs beside them."""

import gc
import random

import numpy as np
import pytest
import torch


def seed_all() -> None:
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002
    torch.manual_seed(0)


def pytest_collection_finish() -> None:
    # What was imported is no garbage, and looking through it takes longer than most tests.
    gc.collect()
    gc.freeze()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    seed_all()


@pytest.fixture(autouse=True)
def the_same_random_numbers_in_any_order():
    """What ran before, such as a fixture of the whole module, decides nothing."""
    seed_all()


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(request):
    """An example writes what it writes, such as a generated data set, where nobody else looks."""
    if isinstance(request.node, pytest.DoctestItem):
        request.getfixturevalue("monkeypatch").chdir(request.getfixturevalue("tmp_path"))
