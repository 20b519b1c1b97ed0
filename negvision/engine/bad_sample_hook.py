"""Log what the datasets of a training run skipped."""

from collections.abc import Iterator

import torch
from mmengine.dist import all_gather_object, all_reduce
from mmengine.hooks import Hook, LoggerHook

from negvision.engine.image_check import leaf_datasets
from negvision.registry import HOOKS

_EXAMPLES = 5


@HOOKS.register_module()
class BadSampleHook(Hook):
    """Log how often ``on_bad_sample="skip"`` replaced an unusable training image by another.

    The scalar ``skipped_images`` counts since the start of the process, over all data loader
    workers and ranks; workers prepare batches ahead, so it may be ahead of the iteration. At the
    end of training one line has the total and names images. Nothing is logged if no dataset skips.

    Example:
        >>> default_hooks = dict(bad_samples=dict(type="negvision.BadSampleHook"))
    """

    # After the iteration's timer, before the logger.
    priority = "NORMAL"

    def before_train(self, runner) -> None:
        self._datasets = list(skipping_datasets(runner.train_dataloader.dataset))
        loggers = [hook.interval for hook in runner.hooks if isinstance(hook, LoggerHook)]
        self._interval = min(loggers, default=50)

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        # All ranks have the same config, so all or none have a dataset that skips.
        if self._datasets and (
            self.every_n_inner_iters(batch_idx, self._interval)
            or self.end_of_epoch(runner.train_dataloader, batch_idx)
        ):
            runner.message_hub.update_scalar("train/skipped_images", self._total())

    def after_train(self, runner) -> None:
        if not self._datasets:
            return
        total = self._total()
        if total:
            # Several ranks may have drawn the same image.
            names = set().union(*all_gather_object(_names(self._datasets)))
            runner.logger.warning(_summary(total, sorted(names)))
        else:
            runner.logger.info("on_bad_sample: no training image was skipped")

    def _total(self) -> int:
        times = torch.tensor(sum(dataset.skip_counts.times for dataset in self._datasets))
        all_reduce(times)
        return int(times)


def skipping_datasets(dataset) -> Iterator:
    """The datasets in ``dataset``, wrapped or not, that skip unusable samples."""
    for part in leaf_datasets(dataset):
        if getattr(part, "skip_counts", None) is not None:
            yield part


def _names(datasets: list) -> list[str]:
    return [
        dataset._sample_name(index)
        for dataset in datasets
        for index in dataset.skip_counts.samples()
        if index < len(dataset)
    ]


def _summary(total: int, names: list[str]) -> str:
    shown = "".join(f"\n  {name}" for name in names[:_EXAMPLES])
    more = f"\n  ... and {len(names) - _EXAMPLES:,} more" if len(names) > _EXAMPLES else ""
    return (
        f"on_bad_sample: unusable images were replaced {total:,} times; {len(names):,} images are "
        f"unusable:{shown}{more}"
    )
