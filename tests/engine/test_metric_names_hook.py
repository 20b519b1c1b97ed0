"""save_best and monitor must name metrics that the evaluation returns."""

import json
from types import SimpleNamespace

import pytest
import torch
from mmdet.evaluation import CocoMetric as MMDetCocoMetric
from mmdet.evaluation import VOCMetric
from mmengine.evaluator import BaseMetric
from mmengine.hooks import EarlyStoppingHook
from mmengine.optim import ReduceOnPlateauLR
from mmengine.runner import BaseLoop

from negvision import CheckpointHook, CocoMetric, MetricNamesHook, OODImageMetric
from negvision.errors import ConfigError


class Custom(BaseMetric):
    def process(self, data_batch, data_samples): ...

    def compute_metrics(self, results):
        return {}


@pytest.fixture
def own_metric(tmp_path):
    image = {"id": 1, "file_name": "a.png", "width": 9, "height": 9}
    categories = [{"id": 1, "name": "a[1]"}]
    content = {"images": [image], "annotations": [], "categories": categories}
    (tmp_path / "a.json").write_text(json.dumps(content))
    metric = CocoMetric(str(tmp_path / "a.json"))
    metric.dataset_meta = {"classes": ("a[1]",)}
    return metric


class Loop(BaseLoop):
    def __init__(self): ...

    def run(self): ...


def check(metrics, hooks=(), schedules=None):
    evaluator = SimpleNamespace(metrics=metrics)
    runner = SimpleNamespace(
        hooks=list(hooks),
        param_schedulers=schedules,
        val_loop=None if metrics is None else SimpleNamespace(evaluator=evaluator),
        _train_loop=Loop(),
    )
    MetricNamesHook().before_train(runner)
    return runner


def best(name, **options):
    return CheckpointHook(save_best=name, **options)


def plateau(monitor):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
    return ReduceOnPlateauLR(optimizer, monitor=monitor)


def refused(message, *arguments):
    with pytest.raises(ConfigError, match=message):
        check(*arguments)


@pytest.mark.parametrize("name", ["bbox_mAP_50", "coco/bbox_mAP_5O", "Coco/bbox_mAP_50"])
def test_names_that_an_evaluation_does_not_return(own_metric, name):
    message = rf"is '{name}', which .* not return; nearest: .*'coco/bbox_mAP_50'"
    for metric in (own_metric, MMDetCocoMetric()):
        refused(f"default_hooks.checkpoint.save_best {message}", [metric], [best(name)])
        refused(f"save_best {message}", [metric], [best(["coco/bbox_mAP", name])])
        refused(f"EarlyStoppingHook {message}", [metric], [EarlyStoppingHook(monitor=name)])
        message_of_schedule = f"ReduceOnPlateauLR in param_scheduler {message}"
        refused(message_of_schedule, [metric], [], [plateau(name)])
        refused(message_of_schedule, [metric], [], {"generator": [plateau(name)]})


def test_names_that_an_evaluation_returns(own_metric):
    for name in ("coco/bbox_mAP", "coco/bbox_mAP_50", "coco/bbox_AR@100", "coco/bbox_mAP/a[1]"):
        check([own_metric], [best(name)], [plateau(name)])
    for metric, name in (
        (MMDetCocoMetric(metric=["bbox", "segm"]), "coco/segm_mAP_75"),
        (MMDetCocoMetric(classwise=True), "coco/a_precision"),
        (MMDetCocoMetric(metric="proposal", prefix="rpn"), "rpn/AR@1000"),
        (MMDetCocoMetric(metric="proposal_fast", proposal_nums=(7,)), "coco/AR@7"),
        (VOCMetric(iou_thrs=[0.5, 0.75]), "pascal_voc/AP75"),
        (OODImageMetric(), "ood/auroc"),
        (OODImageMetric(), "ood/svhn/fpr95_id"),
        (Custom(prefix="mine"), "mine/anything"),
        (Custom(), "anything"),
    ):
        check([metric, own_metric], [best(name, rule="greater")])
    check([own_metric], [best("auto"), best(None), EarlyStoppingHook(monitor="coco/bbox_mAP")])
    check(None, [best(None)])


def test_metrics_that_are_missing():
    for metric, name in (
        (MMDetCocoMetric(), "coco/segm_mAP"),
        (MMDetCocoMetric(metric_items=["mAP"]), "coco/bbox_mAP_50"),
        (MMDetCocoMetric(), "coco/a_precision"),
        (MMDetCocoMetric(format_only=True, outfile_prefix="a"), "coco/bbox_mAP"),
        (VOCMetric(), "pascal_voc/AP75"),
        (Custom(prefix="mine"), "coco/bbox_mAP"),
    ):
        refused("which the evaluation does not return", [metric], [best(name, rule="greater")])


def test_nothing_is_followed_without_an_evaluation():
    refused("save_best is 'coco/bbox_mAP', but the config has no", None, [best("coco/bbox_mAP")])
    refused("save_best is 'auto', but the config has no evaluation", None, [best("auto")])
    refused("monitor of ReduceOnPlateauLR", None, [], [plateau("loss")])


def test_direction_of_auto():
    refused(r"'auto', which is the first metric, 'ood/auroc'", [OODImageMetric()], [best("auto")])
    check([OODImageMetric()], [best("auto", rule="greater")])


def test_unknown_names_are_refused_at_the_first_evaluation():
    runner = check([Custom(prefix="mine")], [EarlyStoppingHook(monitor="mine/acc")])
    MetricNamesHook().after_val_epoch(runner, {"mine/acc": 0.5})
    with pytest.raises(ConfigError, match=r"'mine/acc'.*nearest: 'mine/accuracy'"):
        MetricNamesHook().after_val_epoch(runner, {"mine/accuracy": 0.5})
    runner._train_loop = {}  # an evaluation alone
    MetricNamesHook().after_val_epoch(runner, {"mine/accuracy": 0.5})
