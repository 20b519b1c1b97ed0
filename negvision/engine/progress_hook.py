"""The console output of a run: a header, a line per interval, a bar on terminals."""

import contextlib
import datetime
import sys
from collections.abc import Callable, Mapping

import torch
from mmengine.dist import is_main_process
from mmengine.hooks import LoggerHook
from tqdm import tqdm

from negvision.engine.config.model_parts import unwrapped
from negvision.engine.image_check import leaf_datasets
from negvision.engine.quiet import muted_console
from negvision.errors import counted
from negvision.registry import HOOKS
from negvision.visualization import shown_path

resource = None
with contextlib.suppress(ModuleNotFoundError):  # Windows
    import resource


@HOOKS.register_module()
class ProgressHook(LoggerHook):
    """mmengine's LoggerHook with a header at the start and one short line per interval.

    The scalars go to the visualizer backends (TensorBoard, ``scalars.json``) as with LoggerHook,
    with the memory in use also without a GPU. Terminals also show a progress bar.

    Args:
        interval: Iterations between two lines.
        bar: Whether to draw the bar; by default if stdout is a terminal.
        **kwargs: As in :class:`mmengine.hooks.LoggerHook`.

    Example:
        >>> default_hooks = dict(logger=dict(type="negvision.ProgressHook", interval=50))
    """

    def __init__(self, interval: int = 50, bar: bool | None = None, **kwargs):
        super().__init__(interval=interval, **kwargs)
        self._wants_bar = sys.stdout.isatty() if bar is None else bar
        self._bar: tqdm | None = None

    def before_run(self, runner) -> None:
        super().before_run(runner)
        runner.logger.info(run_summary(runner))

    def _advance(self, label: str, done: int, total: int) -> None:
        """Draw the bar at ``done`` of ``total``; a full bar is removed."""
        if not (self._wants_bar and is_main_process()):
            return
        if self._bar is None:
            options = {"leave": False, "dynamic_ncols": True, "file": sys.stdout}
            self._bar = tqdm(initial=done - 1, total=total, desc=label, **options)
        self._bar.update(done - self._bar.n)
        if done >= total:
            self._close_bar()

    def _close_bar(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        if runner.log_processor.by_epoch:
            label = f"epoch {runner.epoch + 1}/{runner.max_epochs}"
            self._advance(label, batch_idx + 1, len(runner.train_dataloader))
        else:
            self._advance("train", runner.iter + 1, runner.max_iters)
        last = self.end_of_epoch(runner.train_dataloader, batch_idx)
        short_epoch = last and len(runner.train_dataloader) <= self.interval
        if not (
            self.every_n_inner_iters(batch_idx, self.interval)
            or short_epoch
            or (last and not self.ignore_last)
        ):
            return
        tag, _ = runner.log_processor.get_log_after_iter(runner, batch_idx, "train")
        tag["memory"] = memory_in_use(runner)
        runner.logger.info(training_line(runner, tag, batch_idx))
        runner.visualizer.add_scalars(tag, step=runner.iter + 1, file_path=self.json_log_path)

    def after_train(self, runner) -> None:
        self._close_bar()

    def before_val_epoch(self, runner) -> None:
        self._close_bar()

    def after_val_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        self._advance("val", batch_idx + 1, len(runner.val_dataloader))

    def after_val_epoch(self, runner, metrics=None) -> None:
        self._log_evaluation(super().after_val_epoch, runner, "val", metrics)

    def after_test_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        self._advance("test", batch_idx + 1, len(runner.test_dataloader))

    def after_test_epoch(self, runner, metrics=None) -> None:
        self._log_evaluation(super().after_test_epoch, runner, "test", metrics)

    def _log_evaluation(self, log: Callable, runner, split: str, metrics: dict | None) -> None:
        # mmengine's line has all metrics of all classes.
        with muted_console(runner.logger):
            log(runner, metrics)
        runner.logger.info(evaluation_line(runner, split, metrics or {}))


def memory_in_use(runner) -> int:
    """Peak memory in MB: of tensors on the GPU, or of this process on a CPU; 0 if unknown."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() // 2**20
    if resource is None:
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # Linux counts in kB, macOS in bytes.
    return peak // 2**20 if sys.platform == "darwin" else peak // 2**10


def training_line(runner, tag: dict, batch_idx: int) -> str:
    """One line of training progress from the scalars of the log processor.

    Columns keep their width from line to line.
    """
    if runner.log_processor.by_epoch:
        epochs, iters = str(runner.max_epochs), str(len(runner.train_dataloader))
        place = f"epoch {runner.epoch + 1:>{len(epochs)}}/{epochs}"
        place += f"  iter {batch_idx + 1:>{len(iters)}}/{iters}"
    else:
        iters = str(runner.max_iters)
        place = f"iter {runner.iter + 1:>{len(iters)}}/{iters}"
    parts = [place]
    if "loss" in tag:
        parts.append(f"loss {tag['loss']:.4f}")
    known = {"loss", "lr", "base_lr", "time", "data_time", "epoch", "iter", "memory"}
    losses = [
        f"{key.removeprefix('loss_')} {value:.4f}"
        for key, value in tag.items()
        # Grouped scalars, such as pairs/gap, are for the curves.
        if key not in known and "/" not in key.removeprefix("train/") and isinstance(value, float)
    ]
    if losses:
        parts.append(f"({', '.join(losses)})")
    if "lr" in tag:
        parts.append(f"lr {tag['lr']:.2e}")
    if "time" in tag:
        parts.append(f"{tag['time']:.3f} s/iter")
    eta = runner.message_hub.runtime_info.get("eta")
    if eta is not None:
        parts.append(f"eta {datetime.timedelta(seconds=int(eta))}")
    if tag.get("skipped_images"):
        parts.append(f"skipped {tag['skipped_images']}")
    if tag["memory"]:
        parts.append(f"mem {tag['memory']} MB")
    return "  ".join(parts)


def evaluation_line(runner, split: str, metrics: dict, count: int = 3) -> str:
    """The first ``count`` metrics of an evaluation; its table and the log have the others."""
    parts = [f"{name.rpartition('/')[2]} {value:.4f}" for name, value in metrics.items()][:count]
    if split == "val" and not isinstance(runner._train_loop, dict | None):
        epochs = f"{runner.epoch} epochs, " if runner.log_processor.by_epoch else ""
        parts.insert(0, f"after {epochs}{runner.iter} iterations")
    return "  ".join([split, *parts]) + "\n"


def run_summary(runner) -> str:
    """Config, work dir, devices, model size, dataset sizes and length of a run, one line each.

    Loops that are not built yet are omitted.
    """
    model = unwrapped(runner.model)
    total = sum(p.numel() for p in model.parameters())
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    rows = {
        "config": "(not from a file)",
        "work dir": shown_path(runner.work_dir),
        "device": _devices(runner),
        "model": type(model).__name__,
    }
    if total:  # an exported model has none
        rows["model"] += f", {total / 1e6:.2f} M parameters, {trained / 1e6:.2f} M trained"
    loops = {name: getattr(runner, f"_{name}_loop") for name in ("train", "val", "test")}
    built = {name: loop for name, loop in loops.items() if not isinstance(loop, Mapping | None)}
    if runner.cfg.filename:
        rows["config"] = shown_path(runner.cfg.filename)
    elif "train" not in built and runner._load_from:
        rows["config"] = f"in {shown_path(runner._load_from)}"
    for name, loop in built.items():
        batch = loop.dataloader.batch_size or runner.cfg.get(f"{name}_dataloader", {}).get(
            "batch_size"
        )
        row = f"{len(loop.dataloader.dataset)} images"
        sets = [one for one in leaf_datasets(loop.dataloader.dataset) if hasattr(one, "objects")]
        if name == "train" and sets:
            row += f", {sum(one.objects for one in sets)} objects"
            empty = sum(one.backgrounds for one in sets)
            row += f", {empty} images without an object" if empty else ""
        row += f", {batch} per batch" if batch else ""
        row += f" on each of {runner.world_size} processes" if runner.world_size > 1 else ""
        rows[name] = row
    if "train" in built:
        loop = built["train"]
        rows["length"] = f"{loop.max_iters} iterations"
        if runner.log_processor.by_epoch:
            rows["length"] = f"{loop.max_epochs} epochs of {len(loop.dataloader)} iterations"
    width = max(map(len, rows))
    return "\n".join(f"{name:<{width}}  {value}" for name, value in rows.items()) + "\n"


def _devices(runner) -> str:
    if torch.cuda.is_available():
        name = torch.cuda.get_device_name()
    else:
        name = f"CPU, {counted(torch.get_num_threads(), 'thread')}"
    if runner.world_size == 1:
        return name
    return f"{runner.world_size} x {name}"
