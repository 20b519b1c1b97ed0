"""Classes of data and model that differ end a run before it begins."""

from types import SimpleNamespace

import pytest
from torch import nn

from negvision.engine.class_check_hook import ClassCheckHook
from negvision.errors import ConfigError

CELLS = ("red", "white", "platelet")


class Head(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.num_classes = num_classes


def model(**heads):
    """A model of heads; a list stands for those of a cascade."""
    built = nn.Module()
    for name, count in heads.items():
        several = isinstance(count, list)
        setattr(built, name, nn.ModuleList(map(Head, count)) if several else Head(count))
    return built


def loop(classes):
    metainfo = {} if classes is None else {"classes": classes}
    return SimpleNamespace(dataloader=SimpleNamespace(dataset=SimpleNamespace(metainfo=metainfo)))


def train(train=CELLS, val=CELLS, **heads):
    loops = {"train_loop": loop(train), "val_loop": loop(val) if val != "none" else None}
    ClassCheckHook().before_train(SimpleNamespace(model=model(**heads), **loops))


def test_equal_classes_are_accepted():
    train(bbox_head=3)
    train(bbox_head=3, rpn_head=1, semantic_head=183)
    train(bbox_head=[3, 3, 3], val=list(CELLS))
    train(decode_head=3, auxiliary_head=3, val="none")
    train(train=None, val=CELLS, bbox_head=5)
    train(val=None, bbox_head=3)


@pytest.mark.parametrize(
    ("heads", "named"),
    [
        ({"bbox_head": 2}, "model.bbox_head.num_classes is 2"),
        ({"bbox_head": [3, 80]}, "model.bbox_head.1.num_classes is 80"),
        ({"decode_head": 3, "auxiliary_head": 19}, "model.auxiliary_head.num_classes is 19"),
    ],
)
def test_wrong_number_of_classes_of_a_head(heads, named):
    with pytest.raises(ConfigError, match=r"red, white, platelet\. Set num_classes=3") as error:
        train(**heads)
    assert named in str(error.value)


@pytest.mark.parametrize("val", [("red", "platelet"), ("white", "red", "platelet")])
def test_other_classes_of_val_are_shown(val):
    with pytest.raises(ConfigError, match="the classes of val differ from those of the training"):
        train(val=val, bbox_head=3)


def test_other_classes_of_the_checkpoint():
    def test(trained, classes):
        meta = {"dataset_meta": {"classes": trained}} if trained else {}
        runner = SimpleNamespace(
            _loaded_meta=meta, test_loop=loop(classes), model=model(bbox_head=3)
        )
        ClassCheckHook().before_test(runner)

    test(CELLS, CELLS)
    test(None, CELLS)  # weights of elsewhere do not say
    with pytest.raises(ConfigError, match="those of the checkpoint, or are in another order"):
        test(CELLS, CELLS[::-1])
    with pytest.raises(ConfigError, match=r"num_classes is 3, but the test set has 2 classes"):
        test(None, CELLS[:2])


def test_parts_of_a_concatenated_set_that_differ():
    """mmdet's ConcatDataset has a list of metainfo then."""
    unlike = loop(None)
    unlike.dataloader.dataset.metainfo = [{"classes": CELLS}, {"classes": CELLS[::-1]}]
    runner = SimpleNamespace(model=model(bbox_head=3), train_loop=unlike, val_loop=None)
    with pytest.raises(ConfigError, match=r"datasets\.0: red.*\n  train, datasets\.1: platelet"):
        ClassCheckHook().before_train(runner)
    runner.train_loop.dataloader.dataset.metainfo = [{"classes": CELLS, "split": i} for i in (1, 2)]
    ClassCheckHook().before_train(runner)
    runner.model = model(bbox_head=80)
    with pytest.raises(ConfigError, match="num_classes is 80"):
        ClassCheckHook().before_train(runner)


def test_classifier_has_the_number_itself():
    runner = SimpleNamespace(model=Head(3), train_loop=loop(CELLS), val_loop=None)
    ClassCheckHook().before_train(runner)
    runner.model = Head(10)
    with pytest.raises(ConfigError, match=r"^model\.num_classes is 10, but the training set has 3"):
        ClassCheckHook().before_train(runner)


def test_heads_without_a_layer_for_each_class():
    one_mask, words = model(mask_head=80), model(bbox_head=256)
    one_mask.mask_head.class_agnostic = True
    words.bbox_head.contrastive_cfg = {}
    panoptic = model(bbox_head=2, panoptic_fusion_head=3)
    for built in (one_mask, words, panoptic):
        runner = SimpleNamespace(model=built, train_loop=loop(CELLS), val_loop=None)
        ClassCheckHook().before_train(runner)
    panoptic.panoptic_fusion_head.num_classes = 133
    with pytest.raises(ConfigError, match=r"panoptic_fusion_head\.num_classes is 133"):
        ClassCheckHook().before_train(runner)


def test_long_lists_are_shortened():
    with pytest.raises(ConfigError, match=r"19, \.\.\. \(80\)"):
        train(train=tuple(map(str, range(80))), val="none", bbox_head=3)


def test_the_parent_category_of_an_export_is_named_rather_than_its_number():
    wrapped = SimpleNamespace(metainfo={}, parents_left_out=lambda: "'cells' is a parent")
    dataset = SimpleNamespace(metainfo={"classes": CELLS}, dataset=wrapped)
    loops = SimpleNamespace(dataloader=SimpleNamespace(dataset=dataset))
    runner = SimpleNamespace(model=model(bbox_head=2), train_loop=loops, val_loop=None)
    with pytest.raises(ConfigError, match=r"platelet\. 'cells' is a parent$"):
        ClassCheckHook().before_train(runner)
