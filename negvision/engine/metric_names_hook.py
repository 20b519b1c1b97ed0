"""The metrics that hooks and schedules follow by name must be those that the evaluation returns."""

from collections.abc import Iterator
from fnmatch import fnmatchcase
from glob import escape

from mmengine.hooks import Hook
from mmengine.runner import BaseLoop

from negvision.engine.metrics import CollectedMetric
from negvision.errors import ConfigError, did_you_mean
from negvision.registry import HOOKS

_AUTO = "auto"
_SHOWN = 12


@HOOKS.register_module()
class MetricNamesHook(Hook):
    """Refuse to train if ``save_best`` or ``monitor`` names a metric that there will not be.

    These are ``save_best`` of ``CheckpointHook``, and ``monitor`` of ``EarlyStoppingHook`` and of
    schedules such as ``ReduceOnPlateauLR``. Without this, the first evaluation ends the run, or
    they never act. Of metrics that cannot tell their names, only the prefix is checked, and the
    rest at the first evaluation.

    The runner adds it to every config; ``default_hooks = dict(metric_names=None)`` removes it.

    Raises:
        ConfigError: A name is not among those of the evaluation, or there is no evaluation.

    Example:
        >>> default_hooks = dict(metric_names=dict(type="negvision.MetricNamesHook"))
    """

    def before_train(self, runner) -> None:
        followed = list(_followed(runner))
        if not followed:
            return
        evaluator = getattr(runner.val_loop, "evaluator", None)
        if evaluator is None:
            key, name = followed[0]
            raise ConfigError(
                f"{key} is {name!r}, but the config has no evaluation (val_dataloader is None), so "
                "it would never act. Set it to None, or remove it"
            )
        patterns = [pattern for metric in evaluator.metrics for pattern in name_patterns(metric)]
        for key, name in followed:
            require_name(key, name, patterns)
        for hook in runner.hooks:
            if _AUTO in (getattr(hook, "save_best", None) or []):
                _check_auto(hook, patterns)

    def after_val_epoch(self, runner, metrics: dict | None = None) -> None:
        # The property would build the loop in an evaluation alone.
        if isinstance(runner._train_loop, BaseLoop) and metrics:
            for key, name in _followed(runner):
                require_name(key, name, [escape(known) for known in metrics])


def _followed(runner) -> Iterator[tuple[str, str]]:
    """The key of the config, and the name of the metric."""
    for hook in runner.hooks:
        # A list in any case, or None.
        for name in getattr(hook, "save_best", None) or []:
            yield "default_hooks.checkpoint.save_best", name
        if isinstance(getattr(hook, "monitor", None), str):
            yield f"monitor of {type(hook).__name__}", hook.monitor
    schedules = runner.param_schedulers or []
    groups = schedules.values() if isinstance(schedules, dict) else [schedules]
    for schedule in (schedule for group in groups for schedule in group):
        if getattr(schedule, "need_val_args", False):
            yield f"monitor of {type(schedule).__name__} in param_scheduler", schedule.monitor


def _check_auto(hook, patterns: list[str]) -> None:
    """``auto`` is the first metric; mmengine infers from its name whether more is better."""
    first = patterns[0] if patterns else ""
    words = [*hook.greater_keys, *hook.less_keys]
    if hook.rules == [None] and not any(word.lower() in first.lower() for word in ["*", *words]):
        raise ConfigError(
            f"default_hooks.checkpoint.save_best is 'auto', which is the first metric, {first!r}: "
            "MMEngine cannot tell whether more is better. Set rule='greater' or 'less' too, or "
            "name another metric"
        )


def name_patterns(metric) -> list[str]:
    """Patterns (fnmatch) of the keys that ``metric.evaluate`` returns.

    Example:
        >>> from mmdet.evaluation import CocoMetric
        >>> name_patterns(CocoMetric(metric="segm"))[:2]
        ['coco/segm_mAP', 'coco/segm_mAP_50']
    """
    prefix = f"{escape(metric.prefix)}/" if metric.prefix else ""
    return [prefix + name for name in _names(metric)]


def _names(metric) -> list[str]:
    """Patterns of the keys without the prefix."""
    if isinstance(metric, CollectedMetric):
        return metric.names()
    # negvision's own ones derive from those of OpenMMLab.
    kinds = type(metric).__mro__
    kind = next((one for one in kinds if one.__module__.startswith(("mmdet", "mmseg"))), kinds[0])
    match kind.__module__.partition(".")[0], kind.__name__:
        case "mmdet", "CocoMetric":
            return _names_of_coco(metric)
        case "mmdet", "VOCMetric":
            limits = [f"AP{int(limit * 100):02d}" for limit in metric.iou_thrs]
            return ["mAP", *limits] if metric.metric == "mAP" else ["recall@*", "AR@*"]
        case "mmseg", "IoUMetric":
            more = {"mIoU": ["mAcc"], "mDice": ["mAcc"], "mFscore": ["mPrecision", "mRecall"]}
            chosen = [metric.metrics] if isinstance(metric.metrics, str) else metric.metrics
            names = ["aAcc", *chosen, *(name for key in chosen for name in more.get(key, []))]
            ends = ("_low", "_high") if getattr(metric, "resamples", None) else ()
            names += ["ece"] if getattr(metric, "errors", None) else []
            return [*names, *(name + end for name in names for end in ends)]
    return ["*"]


def _names_of_coco(metric) -> list[str]:
    if metric.format_only:
        return []
    names = ["*_precision"] if metric.classwise else []
    for kind in metric.metrics:
        if kind == "proposal_fast":
            names += [f"AR@{limit}" for limit in metric.proposal_nums]
        elif kind == "proposal":
            names += metric.metric_items or [
                "AR@100", "AR@300", "AR@1000", "AR_s@1000", "AR_m@1000", "AR_l@1000",
            ]  # fmt: skip
        else:
            items = metric.metric_items or ["mAP", "mAP_50", "mAP_75", "mAP_s", "mAP_m", "mAP_l"]
            names += [f"{kind}_{item}" for item in items]
    return names


def require_name(key: str, name: str, patterns: list[str]) -> None:
    """Check that ``name``, which ``key`` gives, is among the figures of an evaluation.

    Raises:
        ConfigError: It is not.
    """
    if name == _AUTO or any(fnmatchcase(name, pattern) for pattern in patterns):
        return
    known = ", ".join(patterns[:_SHOWN]) + (", ..." if len(patterns) > _SHOWN else "")
    raise ConfigError(
        f"{key} is {name!r}, which the evaluation does not return"
        f"{did_you_mean(name, patterns) or _with_ending(name, patterns)}. It returns: "
        f"{known or 'nothing'}"
    )


def _with_ending(name: str, patterns: list[str]) -> str:
    """A hint for a forgotten or other prefix."""
    ending = name.rpartition("/")[2]
    found = [pattern for pattern in patterns if pattern.rpartition("/")[2] == ending]
    return f"; nearest: {found[0]!r}" if found else ""
