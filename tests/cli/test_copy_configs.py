"""``negvision copy-configs``: the files and messages."""

from pathlib import Path

from helpers.commands import command

from negvision.engine.config import shipped

run = command("copy-configs")

ROOT = Path(__file__).parents[2]


def test_all_configs_are_copied(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert run([]) == 0
    found = {p.relative_to("configs") for p in Path("configs").rglob("*.py")}
    assert found == {p.relative_to(ROOT / "configs") for p in (ROOT / "configs").rglob("*.py")}
    assert f"{len(found)} configs written to configs" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == [tmp_path / "configs"]


def test_configs_replace_nothing(tmp_path, capsys):
    (tmp_path / "mine").mkdir()
    assert run(["--out", str(tmp_path / "mine")]) == 2
    assert "already exists" in capsys.readouterr().err
    (tmp_path / "file").write_text("")
    assert run(["--out", str(tmp_path / "file" / "configs")]) == 2
    assert "cannot be written" in capsys.readouterr().err


def test_configs_of_a_wheel_come_first(tmp_path, monkeypatch):
    package = tmp_path / "negvision"
    package.mkdir()
    monkeypatch.setattr(shipped.negvision, "__file__", str(package / "__init__.py"))
    assert shipped.shipped_configs() == tmp_path / "configs"
    (package / ".configs").mkdir()
    assert shipped.shipped_configs() == package / ".configs"
