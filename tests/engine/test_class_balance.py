"""Class-balanced sampling against the rule, over epochs, ranks and tasks."""

import itertools
from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest
from helpers import ROOT, toy_data
from helpers.tiny_training import Noisy, assert_same, loader, make_runner, outcome
from helpers.toy_data import Toy
from mmengine.config import Config
from mmengine.registry import DATASETS, init_default_scope
from torch.utils.data import ConcatDataset

from negvision.engine import class_balance
from negvision.engine.class_balance import ClassBalancedSampler, sample_classes
from negvision.engine.runner import Runner
from negvision.errors import ConfigError
from negvision.inference.weights import build_model
from negvision.registry import MODELS


class Boxes:
    """One record for each tuple of classes; -c - 1 is an object of class c to be ignored."""

    metainfo = {}

    def __init__(self, *images):
        self.images = images

    def __len__(self):
        return len(self.images)

    def full_init(self):
        pass

    def get_data_info(self, index):
        return {
            "instances": [
                {"bbox_label": max(c, -c - 1), "ignore_flag": int(c < 0)}
                for c in self.images[index]
            ]
        }


SETS = [
    Boxes(*[(0,)] * 60, *[(0, 1, 1)] * 12, *[(1, 2)] * 3, *[()] * 5, (3,), (-5, 0)),
    Boxes((0,), (1,), (2,)),
    Boxes((7, 7, 7)),
    ConcatDataset([Boxes((0,), (0,), (0, 5)), Boxes((5,), ())]),
]


def images_of(dataset):
    return [set(map(int, found)) for found in sample_classes(dataset)]


@pytest.mark.parametrize("dataset", SETS)
@pytest.mark.parametrize("threshold", [None, 0.1, 1.0])
def test_images_repeat_by_the_square_root_rule(dataset, threshold):
    images = images_of(dataset)
    share = {c: sum(c in one for one in images) / len(images) for c in set().union(*images)}
    limit = max(share.values()) if threshold is None else threshold
    wanted = [max([1.0, *((limit / share[c]) ** 0.5 for c in one)]) for one in images]
    sampler = ClassBalancedSampler(dataset, threshold, seed=3)
    assert sampler.repeats == pytest.approx(wanted)
    assert len(sampler) == pytest.approx(sum(wanted), abs=1)
    scale = len(sampler) / sum(wanted)
    counts = Counter()
    for epoch in range(200):
        sampler.set_epoch(epoch)
        drawn = Counter(sampler)
        assert sum(drawn.values()) == len(sampler)
        for index, factor in enumerate(wanted):
            assert abs(drawn[index] - factor * scale) < 1 + 1e-6
        counts += drawn
    for index, factor in enumerate(wanted):
        assert counts[index] / 200 == pytest.approx(factor * scale, abs=0.15)


def test_ranks_share_one_order_and_epochs_repeat(monkeypatch):
    whole = ClassBalancedSampler(SETS[0], seed=1)
    whole.set_epoch(4)
    parts = []
    for rank in range(3):
        monkeypatch.setattr(class_balance, "get_dist_info", lambda rank=rank: (rank, 3))
        own = ClassBalancedSampler(SETS[0], seed=1)
        own.set_epoch(4)
        parts.append(list(own))
        assert parts[-1] == list(own) and len(own) == len(parts[-1])
    monkeypatch.undo()
    joined = [index for together in zip(*parts, strict=True) for index in together]
    assert len(whole) <= len(joined) <= len(whole) + 2
    if len(whole) == len(joined):
        assert joined == list(whole)
    other = ClassBalancedSampler(SETS[0], seed=1)
    assert list(other) != list(whole)


auto = {"class_weight": "auto"}
KINDS = [("CrossEntropy", False), ("CrossEntropy", True)]


def toy_config(name, toy):
    """A config of the quick start, with data for it on the disk."""
    cfg = Config.fromfile(ROOT / "configs" / "quickstart" / f"{name}.py")
    toy_data.in_files(cfg)
    toy_data.set_classes(cfg, toy.classes)
    toy_data.write(cfg, toy)
    return cfg


def test_a_resumed_run_sees_the_same_images(tmp_path):
    def run(folder, **options):
        data = Noisy()
        data.labels = np.arange(len(data)) % 5 // 4
        sampler = {"type": "negvision.ClassBalancedSampler"}
        data_loader = {**loader(data), "sampler": sampler}
        runner = make_runner(folder, by_epoch=False, train_dataloader=data_loader, **options)
        runner.train()
        return outcome(runner)

    whole = run(tmp_path / "a")
    # In the second pass of seven batches.
    checkpoint = str(tmp_path / "a" / "iter_12.pth")
    assert_same(run(tmp_path / "b", resume=True, load_from=checkpoint), whole)


@pytest.mark.parametrize(
    "name", ["atss_digits", "abet_pixels", "abet_images", "unpg_glyphs"], ids=lambda name: name
)
def test_sets_of_every_task_have_classes(name, tmp_path, monkeypatch):
    monkeypatch.setenv("NEGVISION_DATA", str(tmp_path))
    cfg = toy_config(name, Toy(("a", "b", "c", "d"), images=6, shown=2))
    init_default_scope(cfg.get("default_scope", "mmengine"))
    dataset = DATASETS.build(cfg.train_dataloader.dataset)
    found = images_of(dataset)
    expected = [{0, 1}] * 6 if name == "abet_pixels" else [{k % 2} for k in range(6)]
    assert found == expected


def test_a_training_takes_weights_and_images_by_class(tmp_path, monkeypatch):
    monkeypatch.setenv("NEGVISION_DATA", str(tmp_path / "data"))
    monkeypatch.setattr(Config, "pretty_text", property(lambda cfg: ""))
    cfg = toy_config("abet_pixels", Toy(("a", "b", "c", "d"), images=6, shown=3))
    toy_data.shrink_model(cfg)
    loss = {"type": "mmseg.CrossEntropyLoss", "class_weight": "auto"}
    cfg.model.decode_head.loss_decode = [loss, {"type": "negvision.SelfAdjustingDiceLoss", **auto}]
    cfg.model.decode_head.num_classes = 4
    cfg.train_dataloader.sampler = {"type": "negvision.ClassBalancedSampler"}
    cfg.train_cfg = {"by_epoch": True, "max_epochs": 1}
    for split, part in itertools.product(("val", "test"), ("cfg", "dataloader", "evaluator")):
        cfg[f"{split}_{part}"] = None
    cfg.custom_hooks, cfg.param_scheduler = [], None
    cfg.work_dir, cfg.experiment_name = str(tmp_path / "work"), f"balanced_{tmp_path.name}"
    cfg.visualizer = {"type": "Visualizer", "name": cfg.experiment_name}
    assert build_model(cfg).decode_head.loss_decode[0].class_weight is None
    runner = Runner.from_cfg(cfg)
    runner.train()
    # Three stripes: of the 64 columns 22, 21 and 21 pixels wide.
    widths = np.array([22, 21, 21])
    wanted = [*(64 / (3 * widths)), 1.0]
    for part in runner.model.decode_head.loss_decode:
        assert part.class_weight == pytest.approx(wanted)


def test_weights_of_boxes_have_one_for_the_background():
    losses = [MODELS.build({"type": f"mmdet.{kind}Loss", "use_sigmoid": s}) for kind, s in KINDS]
    head = SimpleNamespace(a=losses[0], b=SimpleNamespace(loss=losses[1]))
    data = Boxes((0, 0, 0), (1,), (-1, 0, 0))
    data.metainfo = {"classes": ("x", "y", "z")}
    weights = class_balance.set_auto_weights(head, [("a",), ("b",)], data)
    assert weights == pytest.approx([6 / 10, 6 / 2, 1])
    assert losses[0].class_weight == pytest.approx([*weights, 1])
    assert losses[1].class_weight == pytest.approx(weights)
    other = SimpleNamespace(a=MODELS.build({"type": "mmdet.FocalLoss"}))
    with pytest.raises(
        ConfigError, match=r"model\.a\.class_weight is 'auto', but FocalLoss takes no"
    ):
        class_balance.set_auto_weights(other, [("a",)], data)
    with pytest.raises(ConfigError, match="nothing is labeled"):
        class_balance.set_auto_weights(head, [("a",)], Boxes(()))


def test_what_cannot_be_balanced_is_refused():
    for threshold in (0, -1, 2, float("nan")):
        with pytest.raises(ConfigError, match="threshold"):
            ClassBalancedSampler(SETS[0], threshold)
    with pytest.raises(ConfigError, match="no image of the training set shows a class"):
        ClassBalancedSampler(Boxes((), (-1,)))

    class Nothing(Boxes):
        def get_data_info(self, index):
            return {}

    with pytest.raises(ConfigError, match="no classes to balance"):
        ClassBalancedSampler(Nothing(()))
