"""Data files that MMEngine reads build no objects."""

import pytest
from mmengine import fileio
from mmengine.fileio.handlers import file_handlers

from negvision.engine.file_handlers import install_file_handlers
from negvision.errors import DatasetError


@pytest.mark.parametrize(
    "text",
    [
        "a: !!python/object/apply:os.mkdir [made]",
        "a: !!python/name:os.mkdir",
        "a: !!python/module:os",
        "a: !evil made",
    ],
)
def test_yaml_builds_no_objects(tmp_path, monkeypatch, text):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.yaml").write_text(text)
    before = dict(file_handlers)
    try:
        install_file_handlers()
        with pytest.raises(DatasetError, match=r"is not YAML with plain values only"):
            fileio.load(tmp_path / "a.yaml")
    finally:
        file_handlers.update(before)
    assert not (tmp_path / "made").exists()
