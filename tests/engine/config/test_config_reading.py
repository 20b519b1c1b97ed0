import pytest

from negvision.engine.config.reading import load_config, parse_options, set_work_dir
from negvision.errors import ConfigError

TEXT = """
model = dict(type="A", backbone=dict(type="B", depth=50), neck=None)
param_scheduler = [dict(begin=1), dict(begin=2)]
optim_wrapper = dict(type="OptimWrapper")
size = (64, 48)
train_dataloader = dict(dataset=dict(scale=size, classes="a.txt"), persistent_workers=True)
val_dataloader = train_dataloader
train_cfg = dict(max_iters=10)
"""


@pytest.fixture
def path(tmp_path):
    file = tmp_path / "atss_r50.py"
    file.write_text(TEXT)
    return file


def test_missing_and_broken_configs(path):
    with pytest.raises(ConfigError, match=r"nearest: 'atss_r50\.py'"):
        load_config(path.with_name("atss_r5O.py"))
    with pytest.raises(ConfigError, match="no folder"):
        load_config(path.parent / "none" / "a.py")
    path.write_text("model = dict(")
    with pytest.raises(ConfigError, match=r"atss_r50\.py', line 1: SyntaxError: .* never closed"):
        load_config(path)


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        ("depth = {}['depth']", "line 2 of '.*base.py': KeyError: 'depth'"),
        ("depth = 1 / 0", "line 2 of '.*base.py': ZeroDivisionError"),
        ("depth = int('two')", "line 2 of '.*base.py': ValueError"),
        ("model = dict(5)", "line 2 of '.*base.py': TypeError"),
        ("_base_ = 'none.py'", "none.py"),
    ],
)
def test_errors_of_the_program_name_its_line(path, statement, message):
    path.with_name("base.py").write_text(f"# a base\n{statement}\n")
    path.write_text('_base_ = "base.py"')
    with pytest.raises(ConfigError, match=message):
        load_config(path)


@pytest.mark.parametrize("in_base", [False, True])
def test_encodings(path, in_base):
    file = path.with_name("base.py")
    if in_base:
        path.write_text('_base_ = "base.py"')
    else:
        file = path
    text = "# \u8bad\u7ec3\nwork_dir = 'w'\n"
    for data in (
        text.encode("utf-8-sig"),
        ("# coding: gbk\n" + text).encode("gbk"),
        text.replace("\n", "\r\n").encode(),
    ):
        file.write_bytes(data)
        assert load_config(path).work_dir == "w"
    for encoding, message in (
        ("utf-16", r"is UTF-16: .*\. Save it as UTF-8"),
        ("gbk", r"is not UTF-8: .*\. Save it as UTF-8, or declare"),
        ("utf-16-le", "null bytes|is not UTF-8"),
    ):
        file.write_bytes(text[5:].encode(encoding) if "le" in encoding else text.encode(encoding))
        with pytest.raises(ConfigError, match=message) as caught:
            load_config(path)
        assert repr(str(file)) in str(caught.value)


@pytest.mark.parametrize("name", ["a.json", "a.yaml", "a.txt"])
def test_configs_are_python_files(path, name):
    path.with_name(name).write_text("{}")
    with pytest.raises(ConfigError, match=r"configs are Python files \(\.py\)"):
        load_config(path.with_name(name))


def test_options_are_applied(path):
    cfg = load_config(
        path,
        {
            "model.backbone.depth": 18,
            "param_scheduler.1.begin": 5,
            "model.backbone.init_cfg": None,
            "randomness.seed": 3,
        },
    )
    assert (cfg.model.backbone.depth, cfg.param_scheduler[1].begin) == (18, 5)
    assert cfg.randomness.seed == 3 and cfg.model.backbone.init_cfg is None


@pytest.mark.parametrize(
    ("option", "expected"),
    [
        ("model.bakbone.depth", "no 'bakbone' in 'model'; nearest: 'backbone'"),
        ("model.backbone.deptth", "nearest: 'depth'"),
        ("modle.backbone.depth", "no 'modle' at the top level; nearest: 'model'"),
        ("model.xyz.depth", "it has backbone, neck, type"),
        ("param_scheduler.2.begin", "from 0 to 1"),
        ("", "no '' at the top level"),
        ("model..depth", "no '' in 'model'"),
        ("model.neck.width", "'model.neck' is None, which has nothing inside"),
        ("model.type.name", "'model.type' is 'A', which has nothing inside"),
        ("optim_wraper.optimizer", "nearest: 'optim_wrapper'"),
    ],
)
def test_option_without_a_target(path, option, expected):
    with pytest.raises(ConfigError) as caught:
        load_config(path, {option: 1})
    assert expected in str(caught.value) and option in str(caught.value)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3", 3),
        ("1e-3", 0.001),
        ("None", None),
        ("false", False),
        ("/my data/a(1.json", "/my data/a(1.json"),
        ("'2'", "2"),
        ("a,b", ["a", "b"]),
        ("a,", ["a"]),
        ("[red cell,white]", ["red cell", "white"]),
        ("[(1,2),['a,b',c]]", [(1, 2), ["a,b", "c"]]),
        ("('disc',)", ("disc",)),
        ("{'type': 'A', 'sizes': (1, 2)}", {"type": "A", "sizes": (1, 2)}),
        ("[dict(type='A', on=True)]", [{"type": "A", "on": True}]),
        ("", ""),
    ],
)
def test_values_of_options(text, value):
    assert parse_options([f"a={text}"]) == {"a": value}


@pytest.mark.parametrize("text", ["[1,2", "(1,[2)", "{'a': b}", "dict(5)", "{", "'a,b"])
def test_values_that_cannot_be_read(text):
    with pytest.raises(ConfigError, match=r"--cfg-options a=.* cannot be read"):
        parse_options([f"a={text}"])


def test_options_take_the_kind_of_what_they_replace(path):
    options = {
        "train_dataloader.dataset.scale": [32, 24],
        "train_cfg.max_iters": 2e1,
        "model.backbone": {"depth": 18},
        "model.neck": {"type": "FPN"},
        "model.neck.num_outs": 5,
        "param_scheduler.0": None,
    }
    cfg = load_config(path, options)
    assert cfg.train_dataloader.dataset.scale == (32, 24)
    assert cfg.val_dataloader.dataset.scale == (64, 48)  # the same object in the file
    assert cfg.train_cfg.max_iters == 20 and type(cfg.train_cfg.max_iters) is int
    assert cfg.model.backbone == {"type": "B", "depth": 18}
    assert cfg.model.neck == {"type": "FPN", "num_outs": 5}
    assert cfg.param_scheduler == [None, {"begin": 2}]


@pytest.mark.parametrize(
    ("option", "value", "expected"),
    [
        ("train_dataloader.persistent_workers", "no", "in place of True; write True, False"),
        ("model.neck", "null", "in place of None"),
        ("model.backbone", "ResNet", r"this is the dict of 'B'; set model\.backbone\.type="),
        ("optim_wrapper", 0.1, "this is the dict of 'OptimWrapper'"),
    ],
)
def test_values_of_another_kind(path, option, value, expected):
    with pytest.raises(ConfigError, match=expected):
        load_config(path, {option: value})


def test_work_dir(path):
    cfg = load_config(path)
    set_work_dir(cfg, None)
    assert cfg.work_dir == "work_dirs/atss_r50"
    set_work_dir(cfg, "elsewhere")
    assert cfg.work_dir == "elsewhere"


def test_reading_a_config_logs_nothing(tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("NEGVISION_DATA", "/somewhere")
    file = tmp_path / "a.py"
    file.write_text('root = "{{$NEGVISION_DATA:data}}/x"\n')
    assert load_config(file).root == "/somewhere/x"
    shown = capfd.readouterr()
    assert "env variable" not in shown.out + shown.err
