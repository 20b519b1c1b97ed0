"""mmengine's runner with exact resume, sharded parameters and several processes on a CPU."""

import contextlib
import copy
import logging
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

import torch
from mmengine.dist import all_gather_object, broadcast, get_rank, get_world_size, is_main_process
from mmengine.hooks import CheckpointHook, EMAHook, Hook
from mmengine.logging import MMLogger
from mmengine.model import is_model_wrapper
from mmengine.optim import OptimWrapper
from mmengine.runner import Runner as MMEngineRunner
from mmengine.runner.base_loop import BaseLoop
from torch.optim import Optimizer
from torch.utils.data import DataLoader

from negvision.compat.quiet import quiet_imports
from negvision.data.score_calibration import ScoreCalibration
from negvision.data.score_threshold import ScoreThreshold
from negvision.engine.calibration import calibrate_predictions
from negvision.engine.checkpoints.channels import KEY, apply_channels
from negvision.engine.checkpoints.component_state import ComponentState
from negvision.engine.checkpoints.loading import read_source
from negvision.engine.checkpoints.provenance import provenance
from negvision.engine.checkpoints.resuming import state_to_resume
from negvision.engine.checkpoints.saving import (
    INTERRUPTED,
    raise_on_all_ranks,
    write_checkpoint,
)
from negvision.engine.checkpoints.taking import initialization_observed, load_weights
from negvision.engine.checkpoints.training_state import (
    pending_gradients,
    random_state,
    random_state_kept,
    restore_gradients,
    set_random_state,
)
from negvision.engine.checkpoints.work_dir import claimed
from negvision.engine.class_balance import set_auto_weights, without_auto_weights
from negvision.engine.compiling import compile_parts
from negvision.engine.config.model_parts import unwrapped
from negvision.engine.data_order import SeededBatches, seed_batches
from negvision.engine.image_check import check_images
from negvision.engine.interruption import InterruptionHook, TrainingInterrupted
from negvision.engine.metrics import require_truth
from negvision.engine.optim import scale_learning_rate
from negvision.engine.parallel.launch import init_cpu_processes, with_group_timeout
from negvision.engine.parallel.model_wrappers import FullyShardedModel, wrap_for_ranks
from negvision.engine.parallel.sharded import (
    clip_over_ranks,
    find_row_shards,
    full_state,
    optim_wrappers_of,
    own_state,
    without_row_shards,
)
from negvision.engine.quiet import replace_console_handler
from negvision.engine.recompute import activation_checkpointing_replaced
from negvision.engine.trackers import guard_trackers
from negvision.engine.training_check import announced, check_evaluated_labels, check_length
from negvision.errors import CheckpointError
from negvision.ood.threshold import OODThreshold, set_threshold
from negvision.visualization import shown_path

# negvision's replacements of mmengine's components, for configs that name the latter.
_REPLACEMENTS = {
    "EpochBasedTrainLoop": "negvision.EpochTrainLoop",
    "IterBasedTrainLoop": "negvision.IterTrainLoop",
    "CheckpointHook": "negvision.CheckpointHook",
}
# After these points all hooks run, also if one fails: then the state is that of a whole step.
_WHOLE = ("after_train_iter", "after_train_epoch", "before_val_epoch", "after_val_epoch")
_ADDED_HOOKS = {
    "loss_guard": "negvision.LossGuardHook",
    "interruption": "negvision.InterruptionHook",
    "classes": "negvision.ClassCheckHook",
    "metric_names": "negvision.MetricNamesHook",
    "score_threshold": "negvision.ScoreThresholdHook",
    "assignments": "negvision.AssignmentCountHook",
}
# Arguments of a data loader that torch refuses without worker processes.
_OF_WORKERS = ("persistent_workers", "prefetch_factor", "multiprocessing_context")


class Runner(MMEngineRunner):
    """A runner that resumes exactly, trains sharded parameters and keeps the console short.

    Checkpoints are written atomically, and a resumed run continues as if it had never stopped, also
    in the middle of an epoch: in any config :mod:`negvision.engine.loops` and
    :class:`negvision.engine.checkpoints.saving.CheckpointHook` replace mmengine's loops and
    ``CheckpointHook``. The hooks of ``_ADDED_HOOKS`` are added, unless the
    config has ``default_hooks = dict(NAME=None)``. However a training ends, its state is saved if
    that is possible, and the log says why it ended. A folder of checkpoints belongs to one run
    (:mod:`negvision.engine.checkpoints.work_dir`).

    Parameters that are sharded over ranks (:mod:`negvision.engine.parallel.sharded`) are clipped,
    saved in full and resumed at any world size. Loading a checkpoint sets the model's OOD threshold
    and ``score_threshold`` if the checkpoint has them. The console shows warnings, progress and
    results; the log file has everything.

    Use it as :class:`mmengine.runner.Runner`: ``Runner.from_cfg(cfg).train()``.
    """

    _loaded_meta: dict = {}
    # What the next file is loaded for: an evaluation, a new training, or to resume one.
    _weights_for: Literal["evaluation", "training", "resume"] = "evaluation"
    _resumed_states: list[dict] = []
    _state_before_evaluation: dict | None = None
    # Whether a work dir of nothing but unusable checkpoints is trained in from the start.
    may_start_anew = False
    _components: ComponentState | None = None
    _in_val_epoch = False
    _stopped_by = ""
    # Iterations and epochs after which all hooks have run.
    _done = _epochs_done = 0
    _auto_weights: list[tuple] = []
    saved_iteration = 0  # of the newest checkpoint with a training state
    # Of the newest validation, or of the checkpoint that was loaded.
    score_threshold: ScoreThreshold | None = None

    def setup_env(self, env_cfg: dict) -> None:
        env_cfg = with_group_timeout(env_cfg)
        if self.distributed and not torch.cuda.is_available():
            init_cpu_processes(self.launcher, env_cfg["dist_cfg"])
        super().setup_env(env_cfg)

    @property
    def _own_name(self) -> str:
        """Of this runner alone: two that begin in one second have the same experiment name."""
        return f"{self.experiment_name}_{id(self):x}"

    # By name, MMEngine hands out the logger, message hub and visualizer that the process has,
    # which write into the folder of an earlier run.

    def build_logger(self, *args, **kwargs) -> MMLogger:
        logger = super().build_logger(*args, **{"name": self._own_name, **kwargs})
        replace_console_handler(logger)
        # Of what needs no OpenMMLab, such as decoding.
        logging.getLogger("negvision").handlers = logger.handlers
        return logger

    def build_message_hub(self, message_hub=None):
        return super().build_message_hub(message_hub or {"name": self._own_name})

    def build_visualizer(self, visualizer=None):
        if isinstance(visualizer, dict):
            visualizer = {**visualizer, "name": self._own_name}
        built = super().build_visualizer(visualizer)
        guard_trackers(built, self.logger)
        return built

    def load_checkpoint(
        self, filename: str, map_location: str | Callable = "cpu", strict: bool = False
    ) -> dict:
        """Load weights: all of them, but for ``load_from`` of a training what fits.

        Raises:
            CheckpointError: Weights are missing. In a training: nothing fits; if it is resumed:
                the checkpoint is of another training.
        """
        checkpoint = read_source(filename, map_location)
        model = unwrapped(self.model)
        with own_state(self.model, []):
            if self._weights_for == "resume":
                checkpoint = state_to_resume(
                    checkpoint,
                    filename,
                    model,
                    self._optimizers(),
                    getattr(self.train_loop.dataloader.dataset, "metainfo", None),
                    any(isinstance(hook, EMAHook) for hook in self.hooks),
                )
                # EMAHook exchanges averages and weights before the latter are loaded.
                self.call_hook("after_load_checkpoint", checkpoint=checkpoint)
            classes = ()
            if self._weights_for == "training":
                metainfo = getattr(self.train_loop.dataloader.dataset, "metainfo", None)
                classes = metainfo.get("classes") if isinstance(metainfo, dict) else None
            loaded = load_weights(model, checkpoint, filename, classes or ())
            if strict or self._weights_for != "training":
                loaded.require_all()
            loaded.require_any()
            if self._weights_for == "training" or not loaded.is_plain:
                loaded.report()
            if self._weights_for != "resume":
                # Averages start from what the model has, which is all that it needs.
                checkpoint["state_dict"] = model.state_dict()
                self.call_hook("after_load_checkpoint", checkpoint=checkpoint)
        self._has_loaded = True
        self._loaded_meta = checkpoint.get("meta") or {}
        if self._weights_for != "training":
            self.score_threshold = ScoreThreshold.of_meta(self._loaded_meta, filename)
        calibration = ScoreCalibration.of_meta(self._loaded_meta, filename)
        if calibration is not None and self._weights_for == "evaluation":
            calibrate_predictions(self.model, calibration)
        if "ood" in self._loaded_meta:
            set_threshold(self.model, OODThreshold.of_checkpoint(checkpoint, filename))
        return checkpoint

    def build_optim_wrapper(self, optim_wrapper):
        if isinstance(self.model, FullyShardedModel):
            # Optimizers hold shards, and weights are drawn before they are sharded.
            with initialization_observed(unwrapped(self.model)):
                self.model.initialize()
        built = super().build_optim_wrapper(optim_wrapper)
        clip_over_ranks(self.model, built)
        return built

    def save_checkpoint(
        self,
        out_dir: str,
        filename: str,
        file_client_args: dict | None = None,
        save_optimizer: bool = True,
        save_param_scheduler: bool = True,
        meta: dict | None = None,
        by_epoch: bool = True,
        backend_args: dict | None = None,
    ) -> None:
        # All ranks come here. The first one saves; gathering shards needs them all.
        models = [self.model]
        models += [hook.ema_model for hook in self.hooks if isinstance(hook, EMAHook)]
        optimizers = self._optimizers() if save_optimizer else []
        meta = {**(meta or {}), **provenance(), "saved": time.time()}
        if self.score_threshold is not None:
            meta |= self.score_threshold.as_meta()
        if save_optimizer:
            meta |= self._training_state()
        rest = (file_client_args, save_optimizer, save_param_scheduler, meta, by_epoch)
        with full_state(models, optimizers):
            error = None
            if "://" in str(out_dir) or file_client_args or backend_args:
                super().save_checkpoint(out_dir, filename, *rest, backend_args)
            elif is_main_process():
                try:
                    with write_checkpoint(Path(out_dir) / filename) as partial:
                        super().save_checkpoint(out_dir, partial.name, *rest)
                except CheckpointError as failure:
                    error = failure
        raise_on_all_ranks(error)
        if save_optimizer:
            self.saved_iteration = meta.get("iter", self.iter)

    @property
    def resumed_after_evaluation(self) -> bool:
        """Whether the state to resume includes the evaluation that is due there."""
        return bool(self._loaded_meta.get("evaluated"))

    def save_interrupted(self, epoch: int, iteration: int, evaluated: bool = False) -> Path:
        """Save the state after so many epochs and iterations for ``--resume``; the file.

        Args:
            epoch, iteration: Done.
            evaluated: An evaluation that is due there is done too.
        """
        meta = {"epoch": epoch, "iter": iteration, "evaluated": evaluated}
        self.save_checkpoint(self.work_dir, INTERRUPTED, meta=meta, by_epoch=False)
        return Path(self.work_dir) / INTERRUPTED

    def _training_state(self) -> dict:
        """What a resumed run needs besides what mmengine saves. All ranks must call this."""
        held = self._state_before_evaluation
        loader = self.train_loop.dataloader
        return {
            "random_states": all_gather_object(random_state() if held is None else held),
            "components": all_gather_object(self._components.changed() if self._components else {}),
            "hooks": all_gather_object(
                {
                    type(hook).__name__: hook.rank_state()
                    for hook in self.hooks
                    if hasattr(hook, "rank_state")
                }
            ),
            "gradients": pending_gradients(self.model, self.optim_wrapper),
            "batches_per_epoch": len(loader),
            "samples": len(loader.dataset),
            "data_start": getattr(self.train_loop, "data_start", (0, 0)),
            "global_batch_size": (loader.batch_size or 1) * get_world_size(),
        }

    def resume(
        self,
        filename: str,
        resume_optimizer: bool = True,
        resume_param_scheduler: bool = True,
        map_location: str | Callable = "default",
    ) -> None:
        if resume_optimizer:
            self.optim_wrapper = self.build_optim_wrapper(self.optim_wrapper)
        is_sharded = isinstance(self.model, FullyShardedModel) or find_row_shards(self.model)
        if map_location == "default" and is_sharded:
            # A GPU may not hold the full parameters.
            map_location = "cpu"
        self._weights_for = "resume"
        with own_state(self.model, self._optimizers()):
            super().resume(filename, resume_optimizer, resume_param_scheduler, map_location)
        meta = self._loaded_meta
        restore_gradients(self.model, meta.get("gradients"))
        self._resumed_states = meta.get("random_states", [])
        self._find_place_in_data(meta)

    def _optimizers(self) -> list[Optimizer]:
        return [wrapper.optimizer for wrapper in optim_wrappers_of(self.optim_wrapper)]

    def _find_place_in_data(self, meta: dict) -> None:
        """Find the next batch if the data set or the size of its batches has changed."""
        loop = self.train_loop
        if not hasattr(loop, "restart_epoch"):
            return
        loop.data_start = tuple(meta.get("data_start", (0, 0)))
        size = (loop.dataloader.batch_size or 1) * get_world_size()
        images, saved = len(loop.dataloader.dataset), meta.get("global_batch_size", size)
        before = meta.get("samples", images)
        unchanged = "The learning rate and the schedule's count of steps come from the checkpoint"
        if before != images or (size == saved and loop.is_lost()):
            place = loop.restart_epoch(meta)
            known = f"{before:,}" if before != images else "another number"
            self.logger.warning(
                f"the training set has {images:,} images, the checkpoint was written with {known}: "
                f"resumed at {place}. {unchanged}"
            )
        elif size != saved:
            self.logger.warning(
                f"resumed with {size} images per step; the checkpoint was written with {saved}. "
                f"{unchanged}"
            )
            if loop.max_epochs > 1:
                seen = (meta["iter"] - meta["epoch"] * meta["batches_per_epoch"]) * saved
                loop._iter = meta["epoch"] * len(loop.dataloader) + seen // size

    def restore_components(self) -> None:
        """Restore what parts of the model and hooks keep in attributes, if a run is resumed."""
        self._components = ComponentState(unwrapped(self.model), self.hooks)
        states = self._loaded_meta.get("components") if self._resume else None
        if states:
            # Of another number of ranks: what all have in common, such as the size of images.
            self._components.restore(states[get_rank() if len(states) == get_world_size() else 0])

    def restore_random_state(self) -> None:
        """Restore the random state of the checkpoint, once, if the world size is the same."""
        states, self._resumed_states = self._resumed_states, []
        if len(states) == get_world_size():
            set_random_state(states[get_rank()])

    @contextlib.contextmanager
    def evaluation_in_training(self) -> Iterator[None]:
        """Around an evaluation between two iterations: keeps the random state of the training.

        All ranks evaluate what a checkpoint would hold: running statistics of the first rank.
        """
        if get_world_size() > 1:
            for buffer in self.model.buffers():
                broadcast(buffer)
        with random_state_kept() as self._state_before_evaluation:
            try:
                yield
            finally:
                self.leave_evaluation()
                self._state_before_evaluation = None

    @property
    def evaluating_in_training(self) -> bool:
        """Whether an evaluation runs between two iterations of a training."""
        return self._state_before_evaluation is not None

    @staticmethod
    def build_dataloader(
        dataloader: DataLoader | dict, seed: int | None = None, diff_rank_seed: bool = False
    ) -> DataLoader:
        if isinstance(dataloader, dict) and not dataloader.get("num_workers"):
            dataloader = {k: v for k, v in dataloader.items() if k not in _OF_WORKERS}
        with quiet_imports():  # of the modules of data sets and transforms
            built = MMEngineRunner.build_dataloader(dataloader, seed, diff_rank_seed)
        if built.batch_sampler is not None and not isinstance(built.batch_sampler, SeededBatches):
            seed_batches(built, seed or 0)
        return built

    def build_train_loop(self, loop: BaseLoop | dict) -> BaseLoop:
        if not isinstance(loop, BaseLoop):
            loop = copy.deepcopy(loop)
            if "type" not in loop and "by_epoch" in loop:
                kind = "EpochBasedTrainLoop" if loop.pop("by_epoch") else "IterBasedTrainLoop"
                loop["type"] = kind
            loop = super().build_train_loop(_with_replacement(loop))
        check_length(loop)
        return loop

    def build_val_loop(self, loop: BaseLoop | dict) -> BaseLoop:
        built = self._with_checked_images(super().build_val_loop(loop), "val")
        if hasattr(built, "evaluator"):
            require_truth(built.evaluator)
        return built

    def build_test_loop(self, loop: BaseLoop | dict) -> BaseLoop:
        return self._with_checked_images(super().build_test_loop(loop), "test")

    @staticmethod
    def _with_checked_images(loop: BaseLoop, split: str) -> BaseLoop:
        evaluator = getattr(loop, "evaluator", None)
        if evaluator is not None:
            check_images(loop.dataloader.dataset, evaluator, split)
            check_evaluated_labels(loop.dataloader.dataset, evaluator, split)
        return loop

    def register_default_hooks(self, hooks: dict[str, Hook | dict | None] | None = None) -> None:
        hooks = {"checkpoint": {"type": "CheckpointHook", "interval": 1}, **(hooks or {})}
        for name, kind in _ADDED_HOOKS.items():
            if hooks.setdefault(name, {"type": kind}) is None:
                del hooks[name]
        super().register_default_hooks(
            {name: _with_replacement(hook) for name, hook in hooks.items()}
        )

    def train(self) -> torch.nn.Module:
        """Train; see the class for what it does besides mmengine's.

        Raises:
            CheckpointError: The work dir belongs to another run, or a checkpoint cannot be written.
            TrainingInterrupted: A signal ended the run.
        """
        start = self._load_from or "" if self._resume else None
        resumed = "" if self.may_start_anew else start
        with claimed(self._folders(), resumed), activation_checkpointing_replaced():
            super().dump_config()
            self._weights_for = "training"
            try:
                model = super().train()
            except TrainingInterrupted:
                raise
            except (Exception, SystemExit) as error:
                self._save_before(error)
                raise
            finally:
                self._weights_for = "evaluation"
                for hook in self.hooks:
                    if isinstance(hook, InterruptionHook):
                        hook.restore_handlers()
        self.logger.info(self._end())
        return model

    def dump_config(self) -> None:
        """Write the config, but only :meth:`train` replaces that of a training."""
        name = Path(self.cfg.filename or "").name
        if not name or not (Path(self.work_dir) / name).exists():
            super().dump_config()

    def _folders(self) -> list[Path]:
        """The work dir, and local folders to which checkpoint hooks write."""
        folders = [Path(self.work_dir)]
        for hook in self.hooks:
            out_dir = hook.out_dir if isinstance(hook, CheckpointHook) else None
            if out_dir is not None and "://" not in str(out_dir):
                folders.append(Path(out_dir) / folders[0].name)
                folders[-1].mkdir(parents=True, exist_ok=True)
        return folders

    def _end(self) -> str:
        total, done, key = announced(self.train_loop)
        last, best = map(self.message_hub.get_info, ("last_ckpt", "best_ckpt"))
        text = f"trained for {done} of {total} {key.removeprefix('max_')}"
        if done < total and self._stopped_by:
            text = f"stopped by {self._stopped_by}: {text}"
        saved = f"the last checkpoint is {shown_path(last)}" if last else "nothing was saved"
        saved += f", the best {Path(best).name}" if best and Path(best).is_file() else ""
        return f"{text}; {saved}\n"

    def _save_before(self, error: BaseException) -> None:
        """Save the last whole iteration, which ``error`` ended, if no checkpoint has it."""
        alone = get_world_size() == 1 or getattr(error, "on_all_ranks", False)
        if not alone or self._done == self.saved_iteration:
            return
        try:
            file = self.save_interrupted(self._epochs_done, self._done)
        except Exception as failure:
            if not isinstance(error, CheckpointError):  # which says the same
                self.logger.warning(f"the state could not be saved: {failure}")
        else:
            self.logger.warning(
                f"an error ended the training after {self._done} iterations; their state is in "
                f"{file}, from which --resume continues"
            )

    def call_hook(self, fn_name: str, **kwargs) -> None:
        """Call all hooks; after an iteration, epoch or evaluation also those after one that fails.

        Raises:
            Exception: The first error of a hook.
        """
        failure = None
        for hook in self.hooks:
            method = getattr(hook, fn_name, None)
            if method is None:
                continue
            stops = self._stops()
            try:
                method(self, **kwargs)
            except (Exception, SystemExit) as error:
                failure = failure or error
                if fn_name not in _WHOLE:
                    break
            if self._stops() and not stops:
                self._stopped_by = type(hook).__name__
        if fn_name == "before_train":
            self._done = self.saved_iteration = self.iter
            self._epochs_done = self.epoch
        elif fn_name == "after_train_iter":
            self._done = self.iter + 1
        elif fn_name == "after_train_epoch":
            self._epochs_done = self.epoch + 1
        elif fn_name in ("before_val_epoch", "after_val_epoch"):
            self._in_val_epoch = fn_name == "before_val_epoch"
        if failure is not None:
            raise failure

    def _stops(self) -> bool:
        return getattr(self._train_loop, "stop_training", False)

    def leave_evaluation(self) -> None:
        """Give the model the weights of the training back if an evaluation is cut short."""
        for hook in self.hooks:
            if self._in_val_epoch and isinstance(hook, EMAHook):
                hook.after_val_epoch(self)
        self._in_val_epoch = False

    def _maybe_compile(self, target: str) -> None:
        # mmengine compiles the full step, which fails on lists of boxes.
        options = self.cfg.get("compile")
        if options:
            model = unwrapped(self.model)
            names = compile_parts(model, {} if options is True else options)
            self.logger.info(f"compile: {', '.join(names)}; the first iterations are slow")

    def build_model(self, model):
        """Build the model; ``class_weight="auto"`` is set when a training begins."""
        if isinstance(model, dict):
            model, self._auto_weights = without_auto_weights(model)
            return apply_channels(super().build_model(model), self.cfg.get(KEY))
        return super().build_model(model)

    def weigh_classes(self) -> None:
        """Set ``class_weight="auto"`` by the training set."""
        if not self._auto_weights:
            return
        dataset = self.train_loop.dataloader.dataset
        weights = set_auto_weights(unwrapped(self.model), self._auto_weights, dataset)
        self.logger.info(f"class_weight: {', '.join(f'{weight:.3g}' for weight in weights)}")

    def scale_lr(self, optim_wrapper: OptimWrapper, auto_scale_lr: dict | None = None) -> None:
        if auto_scale_lr and auto_scale_lr.get("enable"):
            loader = self._train_dataloader
            size = loader.batch_size if isinstance(loader, DataLoader) else loader["batch_size"]
            scale_learning_rate(
                optim_wrapper, auto_scale_lr["base_batch_size"], size, self.world_size, self.logger
            )

    def _init_model_weights(self) -> None:
        if isinstance(self.model, FullyShardedModel):
            return  # done when the optimizer was built
        # mmengine broadcasts the weights of the first rank; each rank has its own row shards.
        model = unwrapped(self.model)
        with without_row_shards(model), initialization_observed(model):
            super()._init_model_weights()

    def wrap_model(self, model_wrapper_cfg: dict | None, model: torch.nn.Module):
        if not self.distributed or is_model_wrapper(model):
            return super().wrap_model(model_wrapper_cfg, model)
        return wrap_for_ranks(model, model_wrapper_cfg, self.cfg)


def _with_replacement(component: object) -> object:
    """The config of a component with negvision's type instead of mmengine's of the same name."""
    if not isinstance(component, dict):
        return component
    kind = component.get("type")
    name = (
        kind.removeprefix("mmengine.") if isinstance(kind, str) else getattr(kind, "__name__", "")
    )
    return {**component, "type": _REPLACEMENTS.get(name, kind)}
