"""A hook that shows how training moves positive and negative pairs apart."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from torch import Tensor

from negvision.errors import ConfigError
from negvision.face.pair_plot import draw_pair_scores
from negvision.face.pair_scores import PairScores, pair_scores
from negvision.registry import HOOKS
from negvision.visualization import shown_path

# Embeddings of different people that are more alike than this have collapsed into a cone; a tenth
# of the training is left to networks that begin there.
_COLLAPSED, _BEGINNING = 0.5, 0.1
# Whiskers to show if the loss has none.
_SHOWN_WHISKER = 1.5
_PREFIX = "train/pairs/"


@HOOKS.register_module()
class PairScoreHook(Hook):
    """Log and plot the similarities of positive and negative pairs while a recognizer trains.

    In some batches, the hook measures the cosines that the loss uses: those of samples with their
    own and with other class centers, and of pairs of samples of one identity and of two. They are
    logged as ``pairs/...`` with the loss (``scalars.json``, TensorBoard), under the names of
    :meth:`negvision.face.pair_scores.PairScores.scalars`. ``pair_scores.png`` in the work dir shows
    the distributions at several moments of the training, including those before a resume.

    A warning says if the embeddings collapse: the mean cosine of pairs of two identities is above
    0.5 after the first tenth of the training.

    The training is not affected: the hook reads the embeddings passed to the head, runs no
    additional forward pass and draws no random number. In a distributed run it measures only rank
    0: its batch and, with sharded centers, its classes. So its whiskers differ slightly from those
    of the loss, which cover the global batch. At most 2,048 samples and 2,048 centers are compared.

    Args:
        interval: Iterations between measurements, counted per epoch like the logger does. The
            first iteration and the last of each epoch are measured too.
        plot_interval: Iterations between updates of the plot; None plots only at the end.
        moments: Rows of the plot, at least 2.

    Raises:
        ConfigError: When training begins, if the model has no head with class centers ``weight``.

    Example:
        >>> custom_hooks = [dict(type="negvision.PairScoreHook", interval=50)]
    """

    # Before the logger, so that the metrics are in the record of the same iteration.
    priority = "NORMAL"
    name = "pair_scores.png"

    def __init__(
        self,
        interval: int = 50,
        plot_interval: int | None = 1000,
        moments: int = 5,
    ) -> None:
        if min(interval, 1 if plot_interval is None else plot_interval) < 1 or moments < 2:
            raise ValueError(
                "interval and plot_interval must be at least 1 and moments at least 2, got "
                f"{interval}, {plot_interval} and {moments}"
            )
        self.interval, self.plot_interval, self.moments = interval, plot_interval, moments
        self._handle = None
        self._due = False
        self._scores: PairScores | None = None
        self._latest: dict | None = None
        self._kept: list[dict] = []
        self._warned = False

    def before_train(self, runner) -> None:
        head = _head_with_centers(runner.model)
        if not is_main_process():
            return
        self._due, self._scores, self._latest, self._warned = False, None, None, False
        # From the checkpoint of a resumed run; a new run in the same process starts without any.
        saved = runner.message_hub.get_info("pair_scores", [])
        self._kept = [moment for moment in saved if moment["iteration"] <= runner.iter]
        self._handle = head.register_forward_pre_hook(self._measure, with_kwargs=True)

    def before_train_iter(self, runner, batch_idx, data_batch=None) -> None:
        self._due = self._handle is not None and (
            self._latest is None
            or self.every_n_inner_iters(batch_idx, self.interval)
            or self.end_of_epoch(runner.train_dataloader, batch_idx)
            or runner.iter + 1 == runner.max_iters
        )

    def _measure(self, head: Any, args: tuple, kwargs: dict) -> None:
        if not self._due:
            return
        given = dict(zip(("embeddings", "labels"), args, strict=False)) | kwargs
        self._scores = pair_scores(
            given["embeddings"],
            given["labels"],
            head.weight,
            head.shard.start if getattr(head, "sharded", False) else 0,
            self._whisker(head)[0],
        )

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        self._due = False
        if self._scores is not None:
            self._publish(runner, self._scores)
            self._scores = None
        if self.plot_interval and self.every_n_train_iters(runner, self.plot_interval):
            self._draw(runner)

    def _publish(self, runner, scores: PairScores) -> None:
        hub, scalars = runner.message_hub, scores.scalars()
        # Otherwise a metric of an earlier batch would be logged as one of this batch.
        for key in [key for key in hub.log_scalars if key.startswith(_PREFIX)]:
            del hub.log_scalars[key]
        for key, value in scalars.items():
            hub.update_scalar(_PREFIX + key, value)
        self._latest = {
            "iteration": runner.iter + 1,
            "epoch": runner.epoch + 1 if runner.log_processor.by_epoch else None,
            "histograms": scores.histograms(),
            "scalars": scalars,
        }
        if not self._kept or self._slot(runner, self._latest) > self._slot(runner, self._kept[-1]):
            self._kept.append(self._latest)
        negative = scalars.get("metric_negative_mean", 0.0)
        if negative > _COLLAPSED and runner.iter >= _BEGINNING * runner.max_iters:
            self._warn(runner, negative)
        # Lists of plain numbers, which checkpoints may hold.
        hub.update_info("pair_scores", self._kept)

    def _warn(self, runner, negative: float) -> None:
        if self._warned:
            return
        self._warned = True
        head = _head_with_centers(runner.model)
        remedy = (
            "its metric pairs may drown the class centers: lower the head's pair_weight, or turn "
            "off metric_pairs"
            if getattr(head, "metric_pairs", False)
            else "lower the learning rate, or check that labels and images belong together"
        )
        runner.logger.warning(
            f"the embeddings of different people have a mean cosine of {negative:.2f} after "
            f"{runner.iter + 1:,} iterations: they have collapsed into one direction, which leaves "
            f"little to tell people apart; {remedy}"
        )

    def _slot(self, runner, moment: dict) -> int:
        """The row of the plot for a moment; rows share the training evenly."""
        return (self.moments - 1) * moment["iteration"] // runner.max_iters

    def after_train(self, runner) -> None:
        if self._handle is not None:
            self._handle.remove()
            self._handle = None
        if self._latest is not None:
            self._draw(runner)
            runner.logger.info(f"pair scores  {shown_path(Path(runner.work_dir) / self.name)}")

    def _draw(self, runner) -> None:
        if self._latest is None:
            return
        whisker, applied = self._whisker(_head_with_centers(runner.model))
        earlier = [one for one in self._kept if one["iteration"] < self._latest["iteration"]]
        # A run that was resumed with more iterations may have kept more moments than rows.
        count = min(len(earlier), self.moments - 1)
        rows = [earlier[index * len(earlier) // count] for index in range(count)]
        path = Path(runner.work_dir) / self.name
        draw_pair_scores([*rows, self._latest], path, whisker, applied)

    @staticmethod
    def _whisker(head: Any) -> tuple[float, bool]:
        """Length of the whiskers to show, and whether the loss leaves out the pairs beyond."""
        whisker = getattr(head, "whisker", None)
        if whisker is None or not getattr(head, "metric_pairs", True):
            return _SHOWN_WHISKER, False
        return whisker, True


def _head_with_centers(model: Any) -> Any:
    while is_model_wrapper(model):
        model = model.module
    head = getattr(model, "head", None)
    weight = getattr(head, "weight", None)
    if not isinstance(weight, Tensor) or weight.dim() != 2:
        found = "no head" if head is None else f"the head {type(head).__name__} without them"
        raise ConfigError(
            "PairScoreHook needs a model whose head has class centers, `weight` of shape "
            f"(classes, embedding size); {type(model).__name__} has {found}. Use "
            "head=dict(type='negvision.UNPGLoss', ...), or remove PairScoreHook from custom_hooks"
        )
    return head
