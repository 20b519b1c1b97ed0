"""The examples in docstrings, which `make test` runs beside the tests."""

import pytest


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(request, tmp_path, monkeypatch):
    """An example writes what it writes, such as a generated data set, where nobody else looks."""
    if isinstance(request.node, pytest.DoctestItem):
        monkeypatch.chdir(tmp_path)
