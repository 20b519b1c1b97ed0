"""Data that tests of several parts share."""

import logging
import os
from pathlib import Path

import pytest

import negvision  # noqa: F401  (serves mmcv._ext to tests that import mmdet first)

# Imported by tests; --doctest-modules would import each of them as a module of its own.
collect_ignore = ["helpers", "oracles", "ops/cuda_stand_in"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    marked = [item for item in items if item.get_closest_marker("gpu")]
    if not marked:
        return
    import torch

    if not torch.cuda.is_available():
        for item in marked:
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))


@pytest.fixture(autouse=True)
def mmengine_globals():
    """A runner leaves its logger, scope and visualizer as the current ones; not so here.

    A default logger that an import created would write past what ``capsys`` reads.
    """
    from mmengine.logging import MessageHub, MMLogger
    from mmengine.registry import DefaultScope
    from mmengine.visualization import Visualizer

    managers = (MMLogger, MessageHub, DefaultScope, Visualizer)
    before = [manager._instance_dict.copy() for manager in managers]
    MMLogger._instance_dict.pop("mmengine", None)
    # A fixture of a whole module may have run a training before this one began.
    DefaultScope._instance_dict.clear()
    yield
    logging.getLogger("negvision").handlers = []
    for manager, instances in zip(managers, before, strict=True):
        manager._instance_dict.clear()
        manager._instance_dict.update(instances)


_SIBLING = Path(__file__).parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of the data pack (bccd, coco128, ...)."""
    folder = Path(os.environ.get("NEGVISION_DATA", _SIBLING))
    # A NEGVISION_DATA that holds only data sets of the user's own is not the pack.
    if not (folder / "bccd").is_dir():
        pytest.skip("NEGVISION_DATA does not point to the data pack")
    return folder


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small embedded digits set, generated once for all worker processes of the run."""
    from negvision.toy.digits import ensure_digits

    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent
    return ensure_digits(folder / "digits", train=24, val=12, test=12, test_ood=6)


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory: pytest.TempPathFactory):
    """Function from the name of a config of `small_models` to the file of a checkpoint for it."""
    folder = tmp_path_factory.mktemp("checkpoints")

    def checkpoint(name: str) -> Path:
        path = folder / f"{name}.pth"
        if not path.exists():
            import torch
            from helpers.small_models import build_model, load_named_config

            state = build_model(load_named_config(name)).state_dict()
            torch.save({"state_dict": state, "meta": {}}, path)
        return path

    return checkpoint


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory):
    """Function from the name of a config of `small_models` to an ONNX file of its model."""
    folder = tmp_path_factory.mktemp("exported")

    def export(name: str, legacy: bool = True) -> Path:
        path = folder / f"{name}{'_legacy' if legacy else ''}.onnx"
        if not path.exists():
            from helpers.small_models import build_model, load_named_config

            from negvision.export.formats import save, write_onnx
            from negvision.export.graphs.choice import graph_and_metadata

            cfg = load_named_config(name)
            graph, metadata = graph_and_metadata(cfg, build_model(cfg), {})
            save(write_onnx(graph, metadata, 18, legacy), path)
        return path

    return export
