"""Data that tests of several parts share."""

import functools
import logging
import os
import signal
from pathlib import Path
from types import SimpleNamespace

import pytest
from filelock import FileLock

# Before there are workers: after an installation the first to import it writes a file that another
# may read half-written.
from yapf.yapflib import yapf_api  # noqa: F401

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


@pytest.fixture(autouse=True, scope="session")
def no_repeated_work():
    """What MMEngine does for each runner and each data set, and takes longer than they do here."""
    from mmengine.dataset import base_dataset
    from mmengine.runner import runner

    with pytest.MonkeyPatch.context() as patch:
        # Asks gcc for its version, among others.
        patch.setattr(runner, "collect_env", functools.cache(runner.collect_env))
        patch.setattr(base_dataset, "gc", SimpleNamespace(collect=lambda: 0))
        yield


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


@pytest.fixture
def heeded():
    """Signals that the process would ignore in the background of a shell, or below nohup."""
    handlers = {signal.SIGINT: signal.default_int_handler, signal.SIGHUP: signal.SIG_DFL}
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


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
def common_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of all worker processes of the run."""
    folder = tmp_path_factory.getbasetemp()
    return folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder


@pytest.fixture(scope="session")
def digits(common_folder: Path) -> Path:
    """A small embedded digits set, generated once."""
    from negvision.toy.digits import ensure_digits

    return ensure_digits(common_folder / "digits", train=24, val=12, test=12, test_ood=6)


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
def exported(common_folder: Path):
    """Function from the name of a config of `small_models` to an ONNX file of its model.

    Each is exported once for all worker processes. With ``scopes`` it is as the exporter wrote it,
    with the modules of its nodes.
    """

    def export(name: str, legacy: bool = True, scopes: bool = False) -> Path:
        path = common_folder / f"{name}{'_legacy' if legacy else ''}.onnx"
        with FileLock(f"{path}.lock"):
            if not path.exists():
                import onnx
                from helpers.small_models import build_model, load_named_config

                from negvision.export.formats import save, write_onnx
                from negvision.export.graphs.choice import graph_and_metadata

                cfg = load_named_config(name)
                graph, metadata = graph_and_metadata(cfg, build_model(cfg), {})
                model = write_onnx(graph, metadata, 18, legacy)
                onnx.save(model, path.with_suffix(".scopes"))
                save(model, path)
        return path.with_suffix(".scopes") if scopes else path

    return export
