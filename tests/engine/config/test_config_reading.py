import pytest

from negvision.engine.config.reading import load_config, set_work_dir
from negvision.errors import ConfigError

TEXT = """
model = dict(type="A", backbone=dict(type="B", depth=50), neck=None)
stages = [dict(width=1), dict(width=2)]
optim_wrapper = dict(type="OptimWrapper")
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
    with pytest.raises(ConfigError, match="SyntaxError"):
        load_config(path)


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
            "stages.1.width": 5,
            "model.backbone.init_cfg": None,
            "randomness.seed": 3,
        },
    )
    assert (cfg.model.backbone.depth, cfg.stages[1].width) == (18, 5)
    assert cfg.randomness.seed == 3 and cfg.model.backbone.init_cfg is None


@pytest.mark.parametrize(
    ("option", "expected"),
    [
        ("model.bakbone.depth", "no 'bakbone' in 'model'; nearest: 'backbone'"),
        ("model.backbone.deptth", "nearest: 'depth'"),
        ("modle.backbone.depth", "no 'modle' at the top level; nearest: 'model'"),
        ("model.xyz.depth", "it has backbone, neck, type"),
        ("stages.2.width", "from 0 to 1"),
        ("model.neck.width", "'model.neck' is None, which has nothing inside"),
        ("model.type.name", "'model.type' is 'A', which has nothing inside"),
        ("optim_wraper.optimizer", "nearest: 'optim_wrapper'"),
    ],
)
def test_option_without_a_target(path, option, expected):
    with pytest.raises(ConfigError) as caught:
        load_config(path, {option: 1})
    assert expected in str(caught.value) and option in str(caught.value)


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
