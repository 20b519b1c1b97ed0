"""Runs through every config's data pipeline: each has a result, or says what is wrong."""

import itertools
import json
import math
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from helpers import toy_data
from helpers.commands import command
from helpers.tiny_training import make_runner
from helpers.toy_data import Toy
from mmengine.config import Config

from negvision.engine.config.reading import load_config

CONFIGS = Path(__file__).parents[2] / "configs"
# One of all that have the same data, hooks and metrics.
DATA = [
    "atss_r50.py",
    "atss/atss_x101_64x4d_dcn.py",
    "atss/bccd_atss.py",
    "atss/cards_atss_lite0.py",
    "atss/coco128_atss.py",
    "quickstart/atss_digits.py",
    "quickstart/atss_lite0_digits.py",
    "quickstart/abet_boxes.py",
    "abet_faster_rcnn_r50.py",
    "abet/cards_abet.py",
    "abet_deeplabv3plus_r50.py",
    "abet/camvid_abet.py",
    "quickstart/abet_pixels.py",
    "abet/cifar10_abet.py",
    "abet/cifar10_abet_lite0.py",
    "quickstart/abet_images.py",
    "unpg_r50.py",
    "unpg/kface_r34_arcface.py",
    "unpg/lfw112_arcface.py",
    "unpg/lfw112_arcface_lite0.py",
    "quickstart/unpg_glyphs.py",
]
_DATA_KEYS = [
    *(f"{split}_{part}" for split in toy_data.SPLITS for part in ("dataloader", "evaluator")),
    *("default_hooks", "custom_hooks", "visualizer", "log_processor", "default_scope"),
]
ITERATIONS, EPOCHS = 3, 2
run_train, run_test = command("train"), command("test")
_numbers = itertools.count()


def data_of(name: str) -> str:
    """All that a config says about data, but for the folder and the number of identities."""
    cfg = load_config(CONFIGS / name).to_dict()
    text = json.dumps([cfg.get(key) for key in _DATA_KEYS], default=str)
    return re.sub(r'"(data_root": "[^"]*"|num_classes": \d+)', "", text)


def test_no_config_is_left_out():
    names = {str(path.relative_to(CONFIGS)) for path in CONFIGS.rglob("*.py")}
    known = {data_of(name) for name in DATA}
    assert len(known) == len(DATA)
    assert [n for n in sorted(names) if "_base_" not in n and data_of(n) not in known] == []


def _plain_text(cfg: Config) -> str:
    """Config.pretty_text formats it, which takes longer than the training, several times a run."""
    return "".join(f"{key} = {value!r}\n" for key, value in cfg.to_dict().items())


class Runs:
    """Commands on one config and toy data, in this process."""

    def __init__(self, name: str, folder: Path, capsys) -> None:
        self.folder, self._capsys = folder, capsys
        self.cfg = cfg = load_config(CONFIGS / name)
        toy_data.in_files(cfg)
        toy_data.shrink_model(cfg)
        loop = cfg.train_cfg
        self.length = {"epoch": EPOCHS} if "max_epochs" in loop else {"iter": ITERATIONS}
        ((unit, number),) = self.length.items()
        loop.update({f"max_{unit}s": number, "val_interval": number})
        self.faces = toy_data.is_faces(cfg)
        self.classes = toy_data.class_names(cfg)[: 4 if self.faces else None]
        toy_data.set_classes(cfg, self.classes)
        # Images of boxes or pixels; those of faces and of classified images have one label.
        self.boxes = "bbox_head" in cfg.model or "roi_head" in cfg.model
        self.pixels = "decode_head" in cfg.model

    def _run(self, toy: Toy, argv: tuple, cfg: Config | None, run: Callable[..., int]):
        """Status, the two outputs, and the work dir."""
        cfg = toy_data.copied(cfg or self.cfg)
        toy_data.write(cfg, toy)
        number = next(_numbers)
        cfg.visualizer["name"] = f"run {number}"  # found by its name ever after
        path, work = self.folder / f"run_{number}.py", self.folder / f"run_{number}"
        path.write_text(_plain_text(cfg))
        self._capsys.readouterr()
        status = run(path, *argv, "--work-dir", work)
        out, err = self._capsys.readouterr()
        assert "Traceback" not in out + err, out + err
        return status, out, err, work

    def trains(self, toy: Toy) -> Path:
        """The checkpoint, of the announced length, after metrics that are numbers."""
        status, _, err, work = self._run(toy, (), None, run_train)
        assert status == 0, err
        path = Path((work / "last_checkpoint").read_text())
        meta = torch.load(path, weights_only=False)["meta"]
        assert self.length.items() <= meta.items()
        (log,) = work.glob("*/vis_data/scalars.json")
        metrics = json.loads(log.read_text().splitlines()[-1])
        # Some have no number, such as the AP of large objects where there are none.
        assert math.isfinite(next(iter(metrics.values()))), metrics
        return path

    def is_refused(self, says: str, toy: Toy, *argv, cfg=None, run=run_train) -> None:
        """One block, which matches ``says``, and status 2."""
        status, out, err, _ = self._run(toy, argv, cfg, run)
        assert status == 2, out
        assert re.match(rf"\w+Error: .*({says})", err.strip(), re.DOTALL), err


@pytest.fixture(scope="module")
def other_checkpoint(tmp_path_factory) -> Path:
    """All that a training saves, of another network."""
    folder = tmp_path_factory.mktemp("other")
    make_runner(folder, by_epoch=False).train()
    return Path((folder / "last_checkpoint").read_text())


@pytest.fixture
def runs(request, tmp_path, monkeypatch, capsys) -> Runs:
    monkeypatch.setenv("NEGVISION_DATA", str(tmp_path / "data"))
    monkeypatch.setattr(Config, "pretty_text", property(_plain_text))
    return Runs(request.param, tmp_path, capsys)


@pytest.mark.parametrize("runs", DATA, indirect=True)
def test_runs_have_a_result_or_say_what_is_wrong(runs, other_checkpoint):
    classes = runs.classes
    toy = Toy(classes)
    checkpoint = runs.trains(toy)
    runs.is_refused("is empty|no image", Toy(classes, images=0))

    one_image, one_class = Toy(classes, images=1), Toy(classes, shown=1)
    if runs.boxes:
        runs.trains(one_image)
        runs.trains(one_class)
    elif runs.pixels:
        runs.trains(one_image)
        runs.is_refused("nothing to tell apart: .* class 0 alone", one_class)
    else:
        runs.is_refused("nothing to tell apart|0 iterations: 1 image", one_image)
        runs.is_refused("nothing to tell apart", one_class)

    # Identities have no names, but a number.
    others = (*classes, "one more") if runs.faces else tuple(f"new {name}" for name in classes)
    changed = toy_data.copied(runs.cfg)
    if "classes_file" not in changed.train_dataloader.dataset and runs.pixels:
        # The names of the labels are in the config alone.
        changed.val_dataloader.dataset.metainfo.classes = classes[::-1]
    runs.is_refused("class|label|identit", Toy(classes, own_classes=others), cfg=changed)
    changed = toy_data.copied(runs.cfg)
    toy_data.set_classes(changed, others)
    says = rf"classes of the data now: +{others[0]}[^()]*\({len(others)}\)\n"
    says += "|identities of the data now: +5"
    runs.is_refused(says, Toy(others), "--resume", checkpoint, cfg=changed)

    says = "none of its weights fit the model"
    runs.is_refused(says, toy, "--cfg-options", f"load_from={other_checkpoint}")
    runs.is_refused(says, toy, other_checkpoint, run=run_test)
