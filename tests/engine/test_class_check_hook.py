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
        ClassCheckHook().before_test(SimpleNamespace(_loaded_meta=meta, test_loop=loop(classes)))

    test(CELLS, CELLS)
    test(None, CELLS)  # weights of elsewhere do not say
    with pytest.raises(ConfigError, match="those of the checkpoint, or are in another order"):
        test(CELLS, CELLS[::-1])


def test_long_lists_are_shortened():
    with pytest.raises(ConfigError, match=r"19, \.\.\. \(80\)"):
        train(train=tuple(map(str, range(80))), val="none", bbox_head=3)
