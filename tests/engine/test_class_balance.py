"""Class-balanced sampling against the rule, over epochs, ranks and tasks."""

from collections import Counter

import pytest
from helpers import toy_data
from mmengine.config import Config
from mmengine.registry import DATASETS, init_default_scope
from torch.utils.data import ConcatDataset

from negvision.engine import class_balance
from negvision.engine.class_balance import ClassBalancedSampler, sample_classes
from negvision.errors import ConfigError


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


@pytest.mark.parametrize(
    "name", ["atss_digits", "abet_pixels", "abet_images", "unpg_glyphs"], ids=lambda name: name
)
def test_sets_of_every_task_have_classes(name, tmp_path, monkeypatch):
    monkeypatch.setenv("NEGVISION_DATA", str(tmp_path))
    cfg = Config.fromfile(
        f"{toy_data.__file__.partition('/tests/')[0]}/configs/quickstart/{name}.py"
    )
    toy_data.in_files(cfg)
    classes = toy_data.class_names(cfg)[:4]
    toy_data.set_classes(cfg, classes)
    toy = toy_data.Toy(classes, images=6, shown=2)
    toy_data.write(cfg, toy)
    init_default_scope(cfg.get("default_scope", "mmengine"))
    dataset = DATASETS.build(cfg.train_dataloader.dataset)
    found = images_of(dataset)
    expected = [{0, 1}] * 6 if name == "abet_pixels" else [{k % 2} for k in range(6)]
    assert found == expected


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
