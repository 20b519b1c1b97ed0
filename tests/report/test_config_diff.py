"""Differences between configs."""

import pytest
from mmengine.config import Config

from negvision.engine.config.shipped import shipped_configs
from negvision.report.config_diff import changes_of, config_change, config_lines

QUICK = shipped_configs() / "quickstart" / "atss_digits.py"


@pytest.fixture
def copy_of(tmp_path):
    """The config that a run writes into its work dir, with command line options."""

    def make(path=QUICK, name=None, **options):
        cfg = Config.fromfile(path)
        cfg.merge_from_dict(options)
        target = tmp_path / (name or path.name)
        cfg.dump(target)
        return target, Config.fromfile(target)

    return make


def test_leaf_is_compared_with_its_bases(copy_of):
    base, started = changes_of(*copy_of())
    assert "atss_r18_slim" in base.lines[0] and base.lines[1].endswith("atss_digits.py")
    assert "-model.bbox_head.num_classes = 80" in base.lines
    assert "+model.bbox_head.num_classes = 10" in base.lines
    assert "+custom_hooks[] = dict(type='negvision.PredictionSheetHook')" in base.lines
    # Equal lines are left out.
    assert not any("ChannelsLastHook" in line or "backbone" in line for line in base.lines)
    # The copy is sorted and without a base, and yet nothing differs.
    assert started.lines == [] and not started.missing


def test_options_of_the_command_line_are_separate(copy_of):
    options = {"model.bbox_head.num_classes": 7, "work_dir": "elsewhere"}
    base, started = changes_of(*copy_of(**options))
    assert "+model.bbox_head.num_classes = 10" in base.lines
    assert started.lines[2:] == [
        "-model.bbox_head.num_classes = 10",
        "+model.bbox_head.num_classes = 7",
    ]


def test_own_config_below_the_current_folder_is_found(copy_of, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "configs"
    folder.mkdir()
    (folder / "base.py").write_text("a = 1\nb = dict(c=2)\n")
    (folder / "own.py").write_text("_base_ = './base.py'\nb = dict(c=3)\n")
    base, started = changes_of(*copy_of(folder / "own.py"))
    assert base.lines[2:] == ["-b.c = 2", "+b.c = 3"] and not started.lines
    [change, _] = changes_of(*copy_of(folder / "base.py"))
    assert "has no _base_" in change.missing


def test_unreadable_and_missing_origins_are_reported(copy_of, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    copy, cfg = copy_of(name="own.py")
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "own.py").write_text("a = (\n")
    [change] = changes_of(copy, cfg)
    assert "cannot be compared" in change.missing and "SyntaxError" in change.missing
    [change] = changes_of(*copy_of(name="nobody_has_this.py"))
    assert "No config nobody_has_this.py below configs" in change.missing


def test_an_inserted_step_of_a_pipeline_is_one_line():
    steps = [{"type": "Load"}, {"type": "Resize", "scale": (3, 4)}, {"type": "Pack"}]
    more = [*steps[:1], {"type": "Flip", "prob": 0.5}, *steps[1:]]
    change = config_change("t", config_lines({"p": steps}), config_lines({"p": more}), ("a", "b"))
    assert change.lines == ["--- a", "+++ b", "+p[] = dict(type='Flip', prob=0.5)"]
