"""Choose what to train with on a folder of data, and say why."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from numbers import Integral, Real
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from mmengine.config import Config

from negvision.data.formats.contents import FolderData
from negvision.engine.checkpoints.face_layouts import PublishedFace
from negvision.engine.checkpoints.finding import find_model
from negvision.engine.checkpoints.fitting import face_in
from negvision.engine.checkpoints.loading import load_checkpoint_file
from negvision.engine.config.options import ignore_regions
from negvision.engine.config.shipped import shipped_configs
from negvision.engine.recipes import loaders
from negvision.engine.recipes.models import MODELS, ModelRecipe, choose_model
from negvision.errors import ConfigError, counted
from negvision.registry import MODELS as REGISTRY
from negvision.visualization import shown_path

EVALUATIONS = 10
# Of them, without a better score, before a training ends. Half of the run, since scores still rise
# when the learning rate falls at its end.
_PATIENCE = 5
# As many passes as a small set needs, within what a CPU does in an hour and a GPU in a night.
_EPOCHS, _FEWEST_ITERS, _MOST_ITERS = 60, 600, 20_000
# The shorter side, in pixels of the network's input, that objects need. The class with the smallest
# objects decides, unless it is rare. The platelets of blood images have 18 at 320 px, which was
# better than 256 px in the same time (tried with one seed).
_SMALL, _COMMON = 18, 0.05
# The largest images, in sides of the model's usual ones.
_LARGEST = 2.5
# A published face recognizer that gets fewer images than this of each person learns them by heart:
# its backbone stays as it is. Measured by benchmarks/face_finetune.py with four images of each.
_FEW, _FEW_BATCH, _FEW_EPOCHS, _FEW_LR = 10, 32, 8, 5e-3
# Characters of a value in the table.
_WIDEST = 26
TRACKERS = {
    "tensorboard": ("TensorboardVisBackend", "tensorboard"),
    "wandb": ("WandbVisBackend", "wandb"),
    "mlflow": ("MLflowVisBackend", "mlflow"),
}


@dataclass(frozen=True)
class TrainOptions:
    """What a user may set; None leaves the choice to :func:`plan`.

    Attributes:
        model: One of :data:`negvision.engine.recipes.models.MODELS`.
        weights: Checkpoint, work dir, URL of weights or ``torchvision://NAME`` to start from;
            classes are matched by name.
        epochs: Length of the training, in passes over the data.
        iters: Length of the training, in batches.
        minutes: Length of the training, evaluations included, in minutes of this machine.
        patience: Evaluations without a better score after which the training ends; 0 for never.
        batch: Images in a batch; "auto" for as many as the memory holds, up to the model's batch.
        lr: Learning rate.
        imgsz: Longer side of the images in pixels.
        freeze: Stages of the backbone that do not train.
        flip: "horizontal", "any" or "none".
        negatives: Folder of images without an object, to train on too.
        negative_share: Share of images without an object in each batch.
        seed: Of the weights and the order of the data.
        track: "tensorboard", "wandb" or "mlflow".
    """

    model: str | None = None
    weights: str | None = None
    epochs: int | None = None
    iters: int | None = None
    minutes: float | None = None
    patience: int | None = None
    batch: int | str | None = None
    lr: float | None = None
    imgsz: int | None = None
    freeze: int | None = None
    flip: str | None = None
    negatives: str | None = None
    negative_share: float | None = None
    seed: int | None = None
    track: str | None = None

    def __post_init__(self) -> None:
        """Check the values before anything is read.

        Raises:
            UserError: A value is out of range, or there is no such checkpoint.
        """
        names = ("epochs", "iters", "minutes")
        lengths = [name for name in names if getattr(self, name) is not None]
        if len(lengths) > 1:
            raise ConfigError(
                f"--{lengths[0]} and --{lengths[1]} both set the length; leave one out"
            )
        for name, (wanted, kinds, fits) in _VALUES.items():
            value = getattr(self, name)
            if value is not None and not (
                isinstance(value, kinds) and not isinstance(value, bool) and fits(value)
            ):
                raise ConfigError(f"--{name.replace('_', '-')} {value}: give {wanted}")
        if self.negatives is not None:
            object.__setattr__(self, "negatives", os.path.abspath(self.negatives))
        if self.weights is not None and "://" not in str(self.weights):
            file = find_model(Path(self.weights).expanduser())
            object.__setattr__(self, "weights", os.path.abspath(file))


def _above_0(value: float) -> bool:
    return 0 < value < math.inf


def _is_batch(value: int | str) -> bool:
    return value == "auto" if isinstance(value, str) else value > 0


# Option -> what it takes.
_VALUES: dict[str, tuple[str, type | tuple[type, ...], Callable[[Any], bool]]] = {
    "epochs": ("an integer above 0", Integral, _above_0),
    "iters": ("an integer above 0", Integral, _above_0),
    "minutes": ("a number above 0", Real, _above_0),
    "patience": ("0 or a positive integer", Integral, lambda n: n >= 0),
    "batch": ('an integer above 0, or "auto"', (Integral, str), _is_batch),
    "lr": ("a number above 0", Real, _above_0),
    "imgsz": ("a multiple of 32", Integral, lambda n: n > 0 and n % 32 == 0),
    "freeze": ("0 or a positive integer", Integral, lambda n: n >= 0),
    "flip": (" or ".join(loaders.FLIPS), str, loaders.FLIPS.__contains__),
    "negative_share": ("a number above 0 and below 1", Real, lambda share: 0 < share < 1),
    "seed": ("an integer from 0 to 2**32 - 1", Integral, range(1 << 32).__contains__),
    "track": (" or ".join(TRACKERS), str, TRACKERS.__contains__),
}


class Choice(NamedTuple):
    """One line of the table: what was chosen, why, and the option that changes it."""

    name: str
    value: str
    reason: str
    option: str


@dataclass
class Plan:
    """A config, and how it came about.

    Attributes:
        cfg: Complete, but for ``work_dir``.
        choices: In the order of the table.
        hold: As of :class:`~negvision.engine.recipes.models.ModelRecipe`.
    """

    cfg: Config
    choices: list[Choice] = field(default_factory=list)
    hold: float = 0.0

    def explain(self, name: str, reason: str) -> None:
        """Give the choice ``name`` another reason."""
        self.choices = [
            one._replace(reason=reason) if one.name == name else one for one in self.choices
        ]

    def table(self) -> str:
        """The choices, one per line."""
        rows = [choice[:3] for choice in self.choices]
        # A path or URL of weights may be longer than the column.
        widths = [max(min(len(row[column]), _WIDEST) for row in rows) for column in (0, 1)]
        return "\n".join(
            f"  {choice.name:<{widths[0]}}  {choice.value:<{widths[1]}}  {choice.reason}"
            + f" ({choice.option})" * bool(choice.option)
            for choice in self.choices
        )


def plan(data: FolderData, folder: Path, options: TrainOptions) -> Plan:
    """The config with which to train on ``data``.

    Args:
        data: With the splits "train" and "val".
        folder: Where the lists of images and annotations are written.
        options: What is given.

    Raises:
        ConfigError: A model of another task, or an option that it does not have.
    """
    face = _published(options) if data.task == "faces" else None
    name, reason = choose_model(data.task, "face-lite0" if face else options.model)
    recipe = MODELS[name]
    cfg = _base(recipe)
    made = Plan(cfg, hold=recipe.hold)
    if face is not None:
        name, reason = face.origin, "the network of the weights"
        for part in ("data_preprocessor", "backbone", "neck"):
            cfg.model[part] = face.model[part]
        cfg.model.head.embedding_size = face.model["neck"]["embedding_size"]

    def note(name: str, value: object, reason: str, option: str = "") -> None:
        made.choices.append(Choice(name, str(value), reason, option))

    note("task", data.task, f"the annotations are {data.format}")
    note("model", name, reason, "--model")
    if face is None:
        side, why = _choose_side(data, recipe, options.imgsz)
    else:
        side, why = 16 * cfg.model.neck.get("spatial_size", 7), "which its weights need"
        if options.imgsz not in (None, side):
            raise ConfigError(f"--imgsz {options.imgsz}: {options.weights} takes {side} pixels")
    note("image size", f"{side} px", why, "--imgsz")
    images = len(data.splits["train"])
    people = len({image.labels[0] for image in data.split("train")}) if face else 0
    few = f"{images / people:.1f} images of a person" if images < _FEW * people else ""
    given = options.batch if isinstance(options.batch, int) else None
    batch = given or min(_FEW_BATCH if few else recipe.batch, images)
    note("batch", batch, "as given" if given else few or f"{images:,} images", "--batch")
    iters, why = _choose_length(images, batch, options, few)
    note("length", f"{iters:,} iterations", why, "--epochs, --iters, --minutes")
    lr = options.lr or (_FEW_LR if few else recipe.lr)
    note("learning rate", f"{lr:g}", "as given" if options.lr else few or f"of {name}", "--lr")
    if few and options.freeze is None:
        options = replace(options, freeze=_stages(cfg.model.backbone))
        note("frozen stages", options.freeze, few, "--freeze")
    flip = options.flip or "horizontal"
    why = "as given" if options.flip else "photos stay upright; any turns them over too"
    if data.task == "faces" and not options.flip:
        why = "a mirrored face is the same person"
    note("flips", flip, why, "--flip")

    empty = [not image.shown() for image in data.split("train")]
    share = options.negative_share
    if share is not None:
        if data.task != "detection":
            raise ConfigError(
                f"--negative-share {share:g}: images for {data.task} have no objects; it is for "
                "detection"
            )
        if not any(empty):
            raise ConfigError(
                f"--negative-share {share:g}: all {images:,} images have objects. Add images "
                "without one to the folder, or name a folder of them with --negatives"
            )
    if any(empty) and data.task == "detection":
        shown = f"{sum(empty) / images:.0%}" if share is None else f"{share:g} of each batch"
        note(
            "negatives",
            shown,
            f"{counted(sum(empty), 'image')} without an object",
            "--negative-share",
        )

    _set_model(cfg, recipe, data, side, options, note)
    loaders.set_data(cfg, data, folder, side, batch, flip)
    if share is not None:
        sampler = {"type": "negvision.NegativeRatioSampler", "share": share}
        cfg.train_dataloader.sampler = sampler
        cfg.train_dataloader.batch_sampler = None
    score = _score(cfg, data)
    _set_schedule(cfg, score, iters, lr, recipe.backbone_lr)
    _set_patience(cfg, score, options.patience, note)
    set_length(cfg, iters, hold=made.hold)
    cfg.randomness = {"seed": options.seed or 0}
    if options.weights is not None:
        cfg.load_from = options.weights
        if data.task == "faces":
            hook = {"type": "negvision.MeanCenterHook"}
            cfg.custom_hooks = [*cfg.get("custom_hooks", []), hook]
        note("weights", shown_path(options.weights), "as given", "--weights")
    else:
        start = recipe.weights or "random: this network has no pretrained ones"
        note("weights", start.partition(",")[0], "what training starts from", "--weights")
    if options.track is not None:
        _set_tracker(cfg, options.track)
    return made


def _published(options: TrainOptions) -> PublishedFace | None:
    """The published face recognizer that ``--weights`` names, if no model is given."""
    if options.weights is None or options.model is not None or "://" in options.weights:
        return None
    content = load_checkpoint_file(options.weights, "cpu", mapped=True)
    # A training of one's own holds its config, and its model is chosen as before.
    return None if (content.get("meta") or {}).get("cfg") else face_in(content)


def _base(recipe: ModelRecipe) -> Config:
    """The model and the runtime of the shipped configs, without data and schedule."""
    base = shipped_configs() / "_base_"
    runtime = {
        "detection": "iteration_runtime.py",
        "segmentation": "segmentation_slim_runtime.py",
        "classification": "classification_runtime.py",
        "faces": "face_slim_runtime.py",
    }[recipe.task]
    content = {"model": Config.fromfile(base / "models" / recipe.base).model.to_dict()}
    content |= Config.fromfile(base / runtime).to_dict()
    # Bare config files have no folder that names them.
    return Config(content)


def _choose_side(data: FolderData, recipe: ModelRecipe, given: int | None) -> tuple[int, str]:
    if given is not None:
        return given, "as given"
    images = [data.images[index] for index in data.splits["train"]]
    longer = float(np.median([max(image.width, image.height) for image in images]))
    if data.task in ("classification", "faces"):
        side = min(recipe.side, max(32, _multiple(longer)))
        return side, f"of the model; images have {longer:.0f} px"
    sizes: dict[int, list[float]] = {}
    for image in images:
        for item in image.instances:
            if not item.ignore:
                share = min(item.box[2:]) / max(image.width, image.height)
                sizes.setdefault(item.label, []).append(share)
    side = min(recipe.side, _multiple(longer))
    total = sum(map(len, sizes.values()))
    common = [found for found in sizes.values() if len(found) >= _COMMON * total]
    if not common:
        return side, f"of the model; images have {longer:.0f} px"
    smallest = min(float(np.median(found)) for found in common)
    if smallest > 0:
        largest = min(_multiple(longer), int(_LARGEST * recipe.side))
        side = max(side, min(_multiple(_SMALL / smallest), largest))
    return side, f"objects of the smallest class have {smallest * side:.0f} px"


def _multiple(pixels: float) -> int:
    return max(32, math.ceil(pixels / 32) * 32)


def _choose_length(images: int, batch: int, options: TrainOptions, few: str) -> tuple[int, str]:
    per_epoch = max(1, images // batch)
    if options.iters is not None:
        return options.iters, f"as given, {options.iters / per_epoch:.1f} epochs"
    if options.epochs is not None:
        return options.epochs * per_epoch, f"{options.epochs} epochs of {per_epoch:,}"
    iters = min(max(_EPOCHS * per_epoch, _FEWEST_ITERS), _MOST_ITERS)
    if few:
        iters = _FEW_EPOCHS * per_epoch
    if options.minutes is not None:
        return iters, "is measured now"
    return iters, f"{iters / per_epoch:.0f} epochs of {per_epoch:,}" + f": {few}" * bool(few)


def _stages(backbone: Any) -> int:
    """How many stages of a backbone can be frozen."""
    if "out_indices" in backbone:
        # The sixth output of EfficientNetLite is no stage.
        return min(max(backbone.out_indices) + 1, 5)
    return getattr(REGISTRY.get(backbone.type), "stages", 0)


def _set_model(cfg, recipe: ModelRecipe, data: FolderData, side: int, options, note) -> None:
    # Faces are split by person.
    trained = {image.labels[0] for image in data.split("train")} if data.task == "faces" else ()
    count = len(trained) or len(data.classes)
    for key in recipe.classes:
        node = cfg.model
        *path, last = key.split(".")
        for part in path:
            node = node[part]
        node[last] = count
    backbone = cfg.model.backbone
    if options.freeze is not None:
        last = _stages(backbone)
        if not last:
            raise ConfigError(f"--freeze: {backbone.type} has no stages that can be frozen")
        if options.freeze > last:
            raise ConfigError(f"--freeze {options.freeze}: {backbone.type} has {last} stages here")
        # To backbones, 0 means the layers before the first stage.
        backbone.frozen_stages = options.freeze or -1
    if options.weights is not None and backbone.get("init_cfg"):
        # The checkpoint has the weights of the backbone too.
        backbone.init_cfg = None
    if data.task == "detection":
        _set_anchors(cfg.model, data, side, note)
        # What data sets mark to be ignored, and what RandomZoom cuts, is no background.
        ignore_regions(cfg.model)
        # A fifth of a second each time.
        sheet = {"type": "negvision.PredictionSheetHook", "num_images": 8, "tile_size": 320}
        cfg.custom_hooks = [*cfg.get("custom_hooks", []), sheet]
    elif data.task == "faces" and "spatial_size" in cfg.model.neck:
        cfg.model.neck.spatial_size = max(1, side // 16)
    elif data.task == "classification":
        cfg.model.type = "negvision.OODClassifier"
    elif data.task == "segmentation":
        # Its largest logit tells what was never seen, at no cost.
        cfg.model.type, cfg.model.score = "negvision.OODEncoderDecoder", "max_logit"


def _set_anchors(model: Any, data: FolderData, side: int, note) -> None:
    """Anchors whose middle level has the size of the median object."""
    sizes = [
        math.sqrt(item.box[2] * item.box[3]) * side / max(image.width, image.height)
        for image in data.split("train")
        for item in image.instances
        if not item.ignore
    ]
    if not sizes:
        return
    head = model.get("rpn_head") or model.bbox_head
    generator = head.anchor_generator
    middle = generator.strides[len(generator.strides) // 2]
    scale = min(max(round(float(np.median(sizes)) / middle), 2), 12)
    if "octave_base_scale" in generator:
        generator.octave_base_scale = scale
    else:
        generator.scales = [scale]
    levels = ", ".join(str(scale * stride) for stride in generator.strides)
    note("anchors", f"{levels} px", f"objects have {np.median(sizes):.0f} px (median)")


def _score(cfg: Config, data: FolderData) -> str:
    """The metric by which the best checkpoint is chosen."""
    if data.task == "faces":
        lines = Path(cfg.val_dataloader.dataset.ann_file).read_text(encoding="utf-8").splitlines()
        same = sum(line.endswith(" 1") for line in lines)
        # The accuracy of ten folds needs a pair of each kind in each.
        return f"verification/{'accuracy' if min(same, len(lines) - same) >= 10 else 'auc'}"
    return {
        "detection": "coco/bbox_mAP",
        "segmentation": "segmentation/mIoU",
        "classification": "classification/accuracy",
    }[data.task]


def _set_schedule(cfg: Config, score: str, iters: int, lr: float, backbone_lr: float) -> None:
    cfg.optim_wrapper = {
        "type": "OptimWrapper",
        "optimizer": {"type": "AdamW", "lr": lr, "weight_decay": 0.05},
        "paramwise_cfg": {
            "norm_decay_mult": 0.0,
            "bias_decay_mult": 0.0,
            "custom_keys": {"backbone": {"lr_mult": backbone_lr}},
        },
        "clip_grad": {"max_norm": 10.0},
    }
    cfg.default_hooks.checkpoint = {
        "type": "negvision.CheckpointHook",
        "by_epoch": False,
        "interval": iters,
        "max_keep_ckpts": 1,
        "save_best": score,
        "rule": "greater",
    }
    cfg.log_processor.by_epoch = False
    cfg.default_hooks.logger.log_metric_by_epoch = False


def _set_patience(cfg: Config, score: str, given: int | None, note) -> None:
    """End a training whose score has stopped to rise."""
    patience = _PATIENCE if given is None else given
    why = f"ends early after so many without a better {score}"
    if not patience:
        why = "never ends early"
    note("patience", f"{patience} evaluations", why, "--patience")
    if patience:
        stop = {"type": "EarlyStoppingHook", "monitor": score, "rule": "greater", "min_delta": 0.0}
        cfg.custom_hooks = [*cfg.get("custom_hooks", []), {**stop, "patience": patience}]


def set_length(cfg: Config, iters: int, evaluations: int = EVALUATIONS, hold: float = 0.0) -> None:
    """Set everything that counts in iterations; ``hold`` as of ``ModelRecipe``."""
    warmup = min(50, iters // 10)
    # In longer trainings, evaluations before the fall could exhaust the patience.
    held = int(hold * iters) if iters < _FEWEST_ITERS else 0
    # A run of a minute is evaluated once.
    interval = max(math.ceil(iters / evaluations), min(iters, 50))
    cfg.train_cfg = {"type": "IterBasedTrainLoop", "max_iters": iters, "val_interval": interval}
    rising = {"type": "LinearLR", "start_factor": 0.01, "by_epoch": False, "begin": 0}
    cfg.param_scheduler = [
        *([{**rising, "end": warmup}] if warmup else []),
        {
            "type": "CosineAnnealingLR",
            "eta_min": 1e-5,
            "by_epoch": False,
            "begin": max(warmup, held),
            "end": iters,
        },
    ]
    cfg.default_hooks.checkpoint.interval = interval


def _set_tracker(cfg: Config, name: str) -> None:
    from importlib.util import find_spec

    kind, package = TRACKERS[name]
    if find_spec(package) is None:
        raise ConfigError(f"--track {name}: pip install {package}")
    backends = [{"type": "LocalVisBackend"}, {"type": kind}]
    cfg.vis_backends = cfg.visualizer.vis_backends = backends
