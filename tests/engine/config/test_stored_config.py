"""Reading a config stored in a checkpoint runs and imports nothing."""

import importlib
import sys
from pathlib import Path

import pytest
from mmengine.config import Config
from mmengine.registry import MODELS
from yapf.yapflib import yapf_api

from negvision.compat.patches import format_each_config_once
from negvision.engine.config.check import check_config
from negvision.engine.config.stored import config_from_text
from negvision.errors import ConfigError

ROOT = Path(__file__).parents[3]
SHIPPED = [p for p in sorted((ROOT / "configs").rglob("*.py")) if "_base_" not in p.parts]


@pytest.fixture
def evil(tmp_path, monkeypatch):
    """A module and a package that leave a file behind when they are imported."""
    made = tmp_path / "made"
    code = f"open({str(made)!r}, 'w').close()\ndef Thing(*args, **kwargs): pass\n"
    (tmp_path / "evilmodule.py").write_text(code)
    (tmp_path / "evilpackage").mkdir()
    for name in ("__init__", "registry", "utils"):
        (tmp_path / f"evilpackage/{name}.py").write_text(code)
    monkeypatch.syspath_prepend(str(tmp_path))
    importlib.invalidate_caches()
    yield made
    for name in [name for name in sys.modules if name.startswith("evil")]:
        del sys.modules[name]


def read(content: dict) -> Config:
    return config_from_text(Config(content).pretty_text, "a.pth")


@pytest.fixture
def unformatted(monkeypatch):
    """Formatting takes longer than all else, and means nothing to who reads the text."""
    monkeypatch.setattr(yapf_api, "FormatCode", lambda text, **_: (text, True))


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_every_shipped_config_survives_storage(path, unformatted):
    original = Config.fromfile(path)
    stored = config_from_text(original.pretty_text, "a.pth")
    assert stored._cfg_dict.to_dict() == original._cfg_dict.to_dict()
    check_config(stored)


def _places(node, path=()):
    """Every place in a config: (path, whether a dict with a type is there)."""
    yield path, isinstance(node, dict) and "type" in node
    if isinstance(node, list):
        node = dict(enumerate(node))
    for key, value in node.items() if isinstance(node, dict) else ():
        yield from _places(value, (*path, key))


def _put(content, path, value):
    for key in path[:-1]:
        content = content[key]
    content[path[-1]] = value


def test_payloads_at_every_place_are_refused(evil):
    fresh = lambda: Config.fromfile(ROOT / "configs/atss_r50.py")._cfg_dict.to_dict()  # noqa: E731
    places = [(path, typed) for path, typed in _places(fresh()) if path]
    assert len(places) > 200 and sum(typed for _, typed in places) > 30
    kinds = ["os.mkdir", "evilmodule.Thing", "evilmodule", "evilpackage.Thing", "builtins.open"]
    for number, (path, typed) in enumerate(places[::5]):
        kind = kinds[number % len(kinds)]
        payloads = [(path, {"type": kind, "path": str(evil)})]
        payloads += [((*path, "type"), kind)] if typed else []
        for place, value in payloads:
            changed = fresh()
            _put(changed, place, value)
            with pytest.raises(ConfigError, match=r"a\.pth.*") as caught:
                config_from_text("\n".join(f"{k} = {v!r}" for k, v in changed.items()), "a.pth")
            assert kind in str(caught.value)
    assert not evil.exists()
    # Without the check, MMEngine would have run it.
    assert MODELS.get("evilmodule.Thing") is not None and evil.exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"custom_imports": {"imports": ["evilmodule"]}}, "custom_imports would import"),
        ({"default_scope": "evilpackage"}, "default_scope is 'evilpackage'"),
        ({"model": {"backbone": {"_scope_": "evilpackage"}}}, "backbone._scope_ is 'evilpackage'"),
        ({"optim_wrapper": {"constructor": "evilmodule.Thing"}}, "optim_wrapper.constructor"),
        ({"runner_type": "evilmodule.Thing"}, "runner_type"),
        ({"custom_hooks": [{"type": "EMAHook", "ema_type": "evilmodule.Thing"}]}, "ema_type"),
        ({"env_cfg": {"mp_cfg": {"a": [[{"type": "os.mkdir"}]]}}}, "env_cfg.mp_cfg.a.0.0.type"),
        ({"model": {"test_cfg": {"nms": {"type": "open('made')"}}}}, "test_cfg.nms.type"),
        ({"model": {"shaping": {"type": "open('made')"}}}, "model.shaping.type"),
        ({"custom_hooks": [{"type": "RFSearchHook"}]}, "RFSearchHook evaluates text"),
        ({"model": {"type": 5}}, "model.type is 5"),
        ({"model": {"loss": "evilmodule.Thing"}}, "'evilmodule.Thing' names an object"),
        ({"model": {"type": "mmdet.ResNt"}}, "nearest: 'ResNet'"),
    ],
)
def test_ways_to_run_code_are_refused(evil, content, message):
    with pytest.raises(ConfigError, match=message):
        read(content)
    assert not evil.exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("import os", "line 1 is not an assignment"),
        ("a = 1\nb = open('x')", "line 2: .* is no literal"),
        ("a = dict(**{'b': 1})", "is no literal"),
        ("a = __import__('os').mkdir('x')", "is no literal"),
        ("a.b = 1", "not an assignment"),
        ("a = f'{1}'", "is no literal"),
        ("a = (", "never closed"),
        ("a = " + "[" * 5000 + "]" * 5000, "nested|recursion|Memory|too many"),
        ("a = '" + "x" * 300_000 + "'", "at most 262,144"),
        ("filename = 'x'", "filename"),
    ],
)
def test_text_that_is_no_config(text, message):
    with pytest.raises(ConfigError, match=message):
        config_from_text(text, "a.pth")


def test_a_config_is_formatted_once(monkeypatch):
    texts = []
    monkeypatch.setattr(
        yapf_api, "FormatCode", lambda text, **_: texts.append(text) or (text.upper(), True)
    )
    for _ in range(2):  # as every command does
        format_each_config_once()
    formatted = [Config({"a": value}).pretty_text for value in (1, 1, 2)]
    assert formatted[0] == formatted[1] == texts[0].upper()
    assert formatted[2:] == [text.upper() for text in texts[1:]] and len(texts) == 2
