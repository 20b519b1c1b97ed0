"""A JSON or YAML config runs and imports nothing, whatever it names and wherever."""

import importlib
import json
import sys
from pathlib import Path

import mmengine.registry.registry as mmengine_registry
import pytest
import yaml
from mmengine import fileio
from mmengine.config import Config
from mmengine.fileio.handlers import file_handlers
from mmengine.registry import MODELS, OPTIM_WRAPPER_CONSTRUCTORS

from negvision.engine.config.check import check_config
from negvision.engine.config.reading import load_config
from negvision.engine.file_handlers import install_file_handlers
from negvision.errors import ConfigError, DatasetError

ROOT = Path(__file__).parents[3]
SHIPPED = [p for p in sorted((ROOT / "configs").rglob("*.py")) if "_base_" not in p.parts]
WHOLE = ROOT / "configs/atss_r50.py"


@pytest.fixture(autouse=True)
def _own_registries(monkeypatch):
    """What a config of plain values forbids holds for the rest of the process."""
    for name in ("get_object_from_string", "import_module"):
        monkeypatch.setattr(mmengine_registry, name, getattr(mmengine_registry, name))


@pytest.fixture
def evil(tmp_path, monkeypatch):
    """A module and a package that leave a file where they are imported."""
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


def write(path, content) -> Path:
    text = json.dumps(content) if path.suffix == ".json" else yaml.safe_dump(content)
    path.write_text(text)
    return path


def plain(path) -> dict:
    """A shipped config as JSON would hold it."""
    return json.loads(json.dumps(Config.fromfile(path)._cfg_dict.to_dict()))


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_all_configs_of_the_suite_can_be_written_so(tmp_path, path):
    original = Config.fromfile(path)._cfg_dict.to_dict()
    for name in ("a.json", "a.yaml"):
        cfg = load_config(write(tmp_path / name, plain(path)))
        loaded = cfg._cfg_dict.to_dict()
        assert json.loads(json.dumps(loaded)) == plain(path)
        assert dict(_tuples(loaded)) == dict(_tuples(original))
    check_config(cfg)


def _tuples(node, path=()):
    """The tuples in a config that transforms tell from lists."""
    if isinstance(node, tuple) and path[-1] in ("scale", "crop_size", "size", "img"):
        yield path, node
    if isinstance(node, list | tuple):
        node = dict(enumerate(node))
    for key, value in node.items() if isinstance(node, dict) else ():
        yield from _tuples(value, (*path, key))


def _places(node, path=()):
    """Every place in a config: (path, whether a dict is there that has a type)."""
    yield path, isinstance(node, dict) and "type" in node
    if isinstance(node, list):
        node = dict(enumerate(node))
    for key, value in node.items() if isinstance(node, dict) else ():
        yield from _places(value, (*path, key))


def _put(content, path, value):
    for key in path[:-1]:
        content = content[key]
    content[path[-1]] = value


def _tree(content):
    return json.loads(json.dumps(content))


def test_payloads_at_every_place_are_refused(tmp_path, evil):
    content = plain(WHOLE)
    places = [(path, typed) for path, typed in _places(content) if path]
    assert len(places) > 300 and sum(typed for _, typed in places) > 30
    kinds = ["os.mkdir", "evilmodule.Thing", "evilmodule", "evilpackage.Thing", "builtins.open"]
    for number, (path, typed) in enumerate(places):
        changed = _tree(content)
        kind = kinds[number % len(kinds)]
        _put(changed, path, {"type": kind, "path": str(evil)})
        _refused(tmp_path, changed, kind)
        if typed:
            changed = _tree(content)
            _put(changed, (*path, "type"), kind)
            _refused(tmp_path, changed, kind)
    assert not evil.exists()


def _refused(tmp_path, content, says):
    with pytest.raises(ConfigError, match=r"a\.json") as caught:
        load_config(write(tmp_path / "a.json", content))
    assert says in str(caught.value)


NMS = "__import__('os').mkdir('made')"


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"custom_imports": {"imports": ["evilmodule"]}}, "custom_imports imports Python modules"),
        ({"default_scope": "evilpackage"}, "default_scope is 'evilpackage'"),
        ({"model": {"backbone": {"_scope_": "evilpackage"}}}, "backbone._scope_ is 'evilpackage'"),
        ({"model": {"backbone": {"type": "evilpackage.Thing"}}}, "'evilpackage.Thing' is not"),
        ({"optim_wrapper": {"constructor": "evilmodule.Thing"}}, "optim_wrapper.constructor"),
        ({"runner_type": "evilmodule.Thing"}, "runner_type"),
        ({"strategy": {"type": "evilmodule.Thing"}}, "strategy.type"),
        ({"model_wrapper_cfg": {"type": "evilmodule.Thing"}}, "model_wrapper_cfg.type"),
        ({"custom_hooks": [{"type": "EMAHook", "ema_type": "evilmodule.Thing"}]}, "ema_type"),
        ({"train_dataloader": {"collate_fn": {"type": "os.mkdir"}}}, "collate_fn.type"),
        ({"train_dataloader": {"worker_init_fn": {"type": "os.mkdir"}}}, "worker_init_fn.type"),
        ({"env_cfg": {"mp_cfg": {"a": [[{"type": "os.mkdir"}]]}}}, "env_cfg.mp_cfg.a.0.0.type"),
        ({"nobody_reads": {"this": {"type": "os.mkdir"}}}, "nobody_reads.this.type"),
        ({"model": {"test_cfg": {"nms": {"type": NMS}}}}, "test_cfg.nms.type"),
        ({"model": {"shaping": {"type": NMS}}}, "model.shaping.type"),
        ({"model": {"neck": {"same_up_trans": {"type": "os.mkdir"}}}}, "same_up_trans.type"),
        ({"custom_hooks": [{"type": "RFSearchHook"}]}, "RFSearchHook evaluates texts"),
        ({"custom_hooks": [{"type": "mmdet.CameraMotionCompensation"}]}, "evaluates a text"),
        ({"custom_hooks": [{"type": "Albu", "transforms": [{"type": "os.mkdir"}]}]}, "os.mkdir"),
        ({"model": {"type": 5}}, "model.type is 5"),
        ({"x": {"type": {"type": "os.mkdir"}}}, "it is the name of a registered component"),
        ({"filename": "x"}, "filename"),
    ],
)
@pytest.mark.parametrize("suffix", [".json", ".yaml"])
def test_ways_to_run_code_are_refused(tmp_path, evil, monkeypatch, change, says, suffix):
    monkeypatch.chdir(tmp_path)
    base = write(tmp_path / "base.json", plain(WHOLE))
    change = {"_base_": base.name, **change}
    with pytest.raises(ConfigError) as caught:
        load_config(write(tmp_path / f"a{suffix}", change))
    assert says in str(caught.value) and f"a{suffix}" in str(caught.value)
    assert not evil.exists()


def test_names_that_slip_through_are_not_imported(tmp_path, evil):
    """The check of the config is the first line; registries that import nothing are the second."""
    load_config(write(tmp_path / "a.json", {"default_scope": "negvision"}))
    for kind in ("evilmodule.Thing", "evilmodule", "evilpackage.Thing", "os.mkdir"):
        assert MODELS.get(kind) is None
        with pytest.raises(KeyError):
            OPTIM_WRAPPER_CONSTRUCTORS.build({"type": kind})
    with MODELS.switch_scope_and_registry("evilpackage"):
        pass
    assert not evil.exists()
    assert MODELS.get("mmdet.ResNet") is not None


def test_payload_would_run_without_all_this(evil):
    assert MODELS.get("evilmodule.Thing") is not None
    assert evil.exists()


YAML_PAYLOADS = [
    "a: !!python/object/apply:os.mkdir [made]",
    "a: !!python/object/new:os.mkdir [made]",
    "a: !!python/name:os.mkdir",
    "a: !!python/module:evilmodule",
    "a: !evil made",
]


@pytest.mark.parametrize("text", YAML_PAYLOADS)
def test_yaml_makes_no_objects(tmp_path, evil, monkeypatch, text):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.yaml").write_text(text)
    with pytest.raises(ConfigError, match=r"a\.yaml.*could not determine a constructor"):
        load_config(tmp_path / "a.yaml")
    monkeypatch.setattr("mmengine.fileio.handlers.registry_utils.file_handlers", file_handlers)
    before = dict(file_handlers)
    try:
        install_file_handlers()
        with pytest.raises(DatasetError, match=r"is not YAML of plain values"):
            fileio.load(tmp_path / "a.yaml")
    finally:
        file_handlers.update(before)
    assert not evil.exists()


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("a.json", "{", "Expecting"),
        ("a.json", "", "Expecting value"),
        ("a.json", "[1]", "holds a list"),
        ("a.json", '{"a": 1, "a": 2}', "'a' comes twice"),
        ("a.json", '{"a": ' * 60 + "1" + "}" * 60, "nested more than 50 deep"),
        ("a.json", "[" * 100_000, "nested too deeply"),
        ("a.json", '{"a": ' + "9" * 5000 + "}", "integer"),
        ("a.json", '"' + "a" * 300_000 + '"', "300,002 bytes; a config has 262,144 at most"),
        ("a.yaml", "a: [", "flow"),
        ("a.yaml", "", "holds a NoneType"),
        ("a.yaml", "a: 1\nb: 2\na: 3", "'a' comes twice"),
        ("a.yaml", "a: {b: 1, b: 2}", "'b' comes twice"),
        ("a.yaml", "[" * 100_000, "nested too deeply"),
        ("a.yaml", "a: &a [*a]", "nested more than 50 deep"),
        ("a.yaml", "a: &a {b: 1}\nc: {<<: *a}", "<< is not read here"),
        ("a.yaml", "on: 1", "keys are texts"),
        ("a.yaml", "a: {2: 1}", r"a\.2: keys are texts"),
        ("a.yaml", "a: 2020-01-01", "a is a date"),
        ("a.yaml", "a: !!binary aGk=", "a is a bytes"),
        ("a.yaml", "a: !!set {b}", "a is a set"),
        ("a.yaml", "? [1]\n: 1", "unhashable|keys are texts"),
        ("a.yml", "a: 1\n--- \nb: 2", "single document"),
    ],
)
def test_what_is_not_plain_is_refused(tmp_path, name, text, says):
    (tmp_path / name).write_text(text)
    with pytest.raises(ConfigError, match=f"{name}.*{says}"):
        load_config(tmp_path / name)


def test_not_a_text(tmp_path):
    (tmp_path / "a.json").write_bytes(b'{"a": "\xff"}')
    with pytest.raises(ConfigError, match="not text in UTF-8"):
        load_config(tmp_path / "a.json")


def test_billion_laughs_are_not_laughed(tmp_path):
    lines = ["a0: &a0 [x]"] + [
        f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 10)
    ]
    (tmp_path / "a.yaml").write_text("\n".join(lines))
    with pytest.raises(ConfigError, match="more than 100,000 values"):
        load_config(tmp_path / "a.yaml")


def test_values_mean_what_they_look_like(tmp_path):
    text = "lr: 1e-3\nbig: 1E6\nname: 1e\nlist: [0.9, 0.999]\nsame: &x {a: 1}\nother: *x\nnone:\n"
    (tmp_path / "a.yaml").write_text(text + "pair: !!python/tuple [1, 2]\nwords: '{{ x }}'\n")
    cfg = load_config(tmp_path / "a.yaml")
    assert (cfg.lr, cfg.big, cfg.name) == (1e-3, 1e6, "1e")
    assert cfg.same == cfg.other == {"a": 1} and cfg.none is None
    assert cfg.pair == (1, 2) and cfg.words == "{{ x }}"


def test_sizes_are_tuples(tmp_path):
    content = {
        "one": {"scale": [64, 48]}, "choose": {"scales": [[64, 48], [32, 24]]},
        "pad_val": {"img": [114, 114, 114]}, "anchors": {"scales": [4, 8]},
        "jitter": {"scale": [[64, 48], [32, 24]]}, "channels": [16, 32],
    }  # fmt: skip
    cfg = load_config(write(tmp_path / "a.json", content))
    assert cfg.one.scale == (64, 48) and cfg.choose.scales == [(64, 48), (32, 24)]
    assert cfg.pad_val.img == (114, 114, 114) and cfg.jitter.scale == [(64, 48), (32, 24)]
    assert cfg.anchors.scales == [4, 8] and cfg.channels == [16, 32]


def test_bases_merge_as_in_python(tmp_path):
    (tmp_path / "sub").mkdir()
    write(tmp_path / "sub/one.yaml", {"model": {"type": "ResNet", "depth": 50, "x": {"y": 1}}})
    write(tmp_path / "two.json", {"stages": [1, 2]})
    child = {
        "_base_": ["sub/one.yaml", "two.json"],
        "model": {"depth": 18, "x": {"_delete_": True, "z": 2}},
    }
    cfg = load_config(write(tmp_path / "a.json", child | {"default_scope": "mmdet"}))
    assert cfg.model == {"type": "ResNet", "depth": 18, "x": {"z": 2}} and cfg.stages == [1, 2]
    (tmp_path / "one.py").write_text("model = dict(type='ResNet', depth=50, x=dict(y=1))")
    (tmp_path / "a.py").write_text(
        "_base_ = 'one.py'\nmodel = dict(depth=18, x=dict(_delete_=True, z=2))"
    )
    assert load_config(tmp_path / "a.py").model == cfg.model
    with pytest.raises(ConfigError, match="'model'"):
        load_config(write(tmp_path / "b.json", {"_base_": ["a.json", "sub/one.yaml"]}))


def test_base_of_the_suite(tmp_path):
    child = {"_base_": str(WHOLE), "model": {"bbox_head": {"num_classes": 3}}}
    cfg = load_config(write(tmp_path / "a.yaml", child), {"train_cfg.max_epochs": 2})
    assert cfg.model.bbox_head.num_classes == 3 and cfg.model.bbox_head.type.endswith("ATSSHead")
    assert cfg.train_cfg.max_epochs == 2
    check_config(cfg)
    # What a run stores beside its log can be read again.
    cfg.dump(tmp_path / "stored.yaml")
    assert load_config(tmp_path / "stored.yaml").model.bbox_head.num_classes == 3


@pytest.mark.parametrize(
    ("base", "says"),
    [
        ("evil.py", "is not allowed"),
        ("link.json", "is not allowed"),
        ("../b.json", "is not allowed"),
        ("/etc/passwd", "is not allowed"),
        ("mmdet::_base_/default_runtime.py", "is not allowed"),
        ("https://example.org/a.json", "does not exist"),
        ("b\0.json", "is no path"),
        ("none.json", "does not exist"),
        ("a.json", "leads back to itself"),
        ("loop.json", "leads back to itself"),
        (5, "give a path or several"),
    ],
)
def test_bases_elsewhere_are_refused(tmp_path, base, says):
    folder = tmp_path / "configs"
    folder.mkdir()
    (folder / "evil.py").write_text(f"open({str(tmp_path / 'made')!r}, 'w')")
    write(tmp_path / "b.json", {})
    (folder / "link.json").symlink_to(folder / "evil.py")
    write(folder / "loop.json", {"_base_": "a.json"})
    with pytest.raises(ConfigError, match=says) as caught:
        load_config(write(folder / "a.json", {"_base_": base}))
    assert ".json" in str(caught.value)
    assert not (tmp_path / "made").exists()


def test_python_configs_are_code(tmp_path):
    """As the documentation says."""
    (tmp_path / "a.py").write_text(f"open({str(tmp_path / 'made')!r}, 'w').close()")
    load_config(tmp_path / "a.py")
    assert (tmp_path / "made").exists()
