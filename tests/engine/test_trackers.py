"""A tracker that fails is switched off, and the run goes on."""

import pytest
from helpers.tiny_training import assert_same, make_runner, outcome
from mmengine.registry import VISBACKENDS
from mmengine.visualization.vis_backend import BaseVisBackend, force_init_env

CALLS = []


@VISBACKENDS.register_module()
class FailingTracker(BaseVisBackend):
    """Fails at ``fails_at``, a method, or the third call of ``add_scalars``."""

    def __init__(self, save_dir, fails_at):
        self.fails_at = fails_at
        super().__init__(save_dir)

    def _called(self, name):
        CALLS.append(name)
        if name == self.fails_at or (self.fails_at == 3 and CALLS.count("add_scalars") == 3):
            raise ConnectionError("api.example.com does not answer\nand more")

    def _init_env(self):
        self._called("_init_env")

    @property
    @force_init_env
    def experiment(self):
        return self

    @force_init_env
    def add_config(self, config, **kwargs):
        self._called("add_config")

    @force_init_env
    def add_scalars(self, scalar_dict, step=0, file_path=None, **kwargs):
        self._called("add_scalars")

    def add_scalar(self, name, value, step=0, **kwargs):
        self._called("add_scalar")

    def close(self):
        self._called("close")


@pytest.mark.parametrize(
    ("fails_at", "called"),
    [
        ("_init_env", ["_init_env"]),
        ("add_scalars", ["_init_env", "add_scalars"]),
        (3, ["_init_env", *["add_scalars"] * 3]),
    ],
)
def test_a_failing_tracker_costs_one_warning(fails_at, called, tmp_path):
    CALLS.clear()
    tracker = {"type": "FailingTracker", "fails_at": fails_at}
    backends = [{"type": "LocalVisBackend"}, tracker]
    logger = {"type": "LoggerHook", "interval": 1}
    options = {"default_hooks": {"logger": logger}, "log_level": "WARNING"}
    visualizer = {"type": "Visualizer", "vis_backends": backends}
    runner = make_runner(tmp_path / "run", visualizer=visualizer, **options)
    runner.train()
    found = outcome(runner)
    assert called == CALLS
    logged = next(tmp_path.rglob("*.log")).read_text()
    said = "FailingTracker failed and is switched off; the run goes on without it: api.example.com"
    assert logged.count(said) == 1 and "and more" not in logged
    # The files beside it have everything.
    scalars = next((tmp_path / "run").rglob("scalars.json")).read_text()
    assert len(scalars.splitlines()) == 3 * 6 + 3
    without = make_runner(tmp_path / "without", **options)
    without.train()
    assert_same(found, outcome(without))


def test_a_tracker_that_fails_at_the_end_does_not_fail_the_run(tmp_path):
    CALLS.clear()
    tracker = {"type": "FailingTracker", "fails_at": "close"}
    runner = make_runner(tmp_path, visualizer={"type": "Visualizer", "vis_backends": [tracker]})
    runner.train()
    assert CALLS[-1] == "close" and CALLS.count("close") == 1
