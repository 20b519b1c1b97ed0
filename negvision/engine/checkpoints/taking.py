"""Load what fits of a file into a model, and say which weights were taken, missing and left."""

import contextlib
import re
import traceback
import weakref
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mmengine.logging import MMLogger
from mmengine.model import BaseTTAModel, is_model_wrapper
from torch import Tensor, nn

from negvision.engine.checkpoints.channels import require_channels
from negvision.engine.checkpoints.fitting import (
    TAKERS,
    Fit,
    by_class,
    fit,
    is_of_classes,
    shapes_of,
    weights_in,
)
from negvision.errors import CheckpointError, is_user_error, listed, text_table
from negvision.ood.statistics import parts_to_fit
from negvision.visualization import shown_path

# Parts that only training uses, by the class of the model. The class centers of a face recognizer
# are most of its checkpoint.
_TRAINING_ONLY = {"FaceRecognizer": ("head",), "EncoderDecoder": ("auxiliary_head",)}
_MOST_ROWS = 12

_observed_now: weakref.WeakSet[nn.Module] = weakref.WeakSet()


def training_only(kind: type) -> tuple[str, ...]:
    """The parts of a model of this class that only training uses."""
    names = [base.__name__ for base in kind.__mro__]
    return next((_TRAINING_ONLY[name] for name in names if name in _TRAINING_ONLY), ())


@dataclass(frozen=True)
class Loaded:
    """Which weights of a file a model has taken.

    Attributes:
        source: Name of the file.
        target: Name of the model or the part.
        note: Where in the file, and what of the names was left out.
        names: All weights of the model; statistics of normalization count, constants do not.
        missing: Those of ``names`` that were not in the file.
        other_shape: Those of ``names`` that have another shape in the file, with both shapes.
        left: Weights of the file that the model has no use for.
        foreign: Those of ``left`` that tell that the file is of another network.
        spared: Parts of the model that evaluation does not need.
    """

    source: str
    target: str
    note: str
    names: tuple[str, ...]
    missing: tuple[str, ...]
    other_shape: dict[str, str]
    left: tuple[str, ...]
    foreign: tuple[str, ...] = ()
    spared: tuple[str, ...] = ()

    @property
    def taken(self) -> int:
        return len(self.names) - len(self.missing) - len(self.other_shape)

    @property
    def lacking(self) -> list[str]:
        """Weights that evaluation needs and the file does not give."""
        return [n for n in (*self.missing, *self.other_shape) if not n.startswith(self.spared)]

    @property
    def is_plain(self) -> bool:
        """Whether the file holds the weights of this model, and nothing else."""
        return not (self.missing or self.other_shape or self.left or self.note)

    def require_any(self) -> None:
        """Raise unless the model took a weight.

        Raises:
            CheckpointError: Nothing fits.
        """
        if self.names and not self.taken:
            raise CheckpointError(
                f"{self.source!r}: none of its weights fit {self.target}, so nothing was loaded.\n"
                f"  the file has   {listed(self.left or list(self.other_shape), 4) or 'none'}\n"
                f"  the model has  {listed(self.names, 4)}\n"
                "Take a file for this network, or the config that the file was trained with"
            )

    def require_all(self) -> None:
        """Raise unless the model took every weight that evaluation needs.

        Raises:
            CheckpointError: The results would be those of random weights, or of a part of the
                network that was trained.
        """
        self.require_any()
        if self.lacking:
            raise CheckpointError(
                f"checkpoint {self.source!r} lacks {len(self.lacking)} of {len(self.names)} "
                f"weights of {self.target}, whose results would be random.\n{self.table()}\n"
                "Use the config that it was trained with"
            )
        if self.foreign:
            raise CheckpointError(
                f"checkpoint {self.source!r} is of another network: {len(self.foreign)} weights "
                f"have no place in {self.target}, whose results would be others.\n{self.table()}\n"
                "Use the config that it was trained with"
            )

    def require_parts(self) -> None:
        """Raise unless the model took its backbone, and each other part that the file has.

        Only layers of classes may be missing or have other shapes.

        Raises:
            CheckpointError: The file is of another network.
        """
        self.require_any()
        totals, lacking, other = (
            Counter(n.partition(".")[0] for n in names if not is_of_classes(n))
            for names in (self.names, self.lacking, self.other_shape)
        )
        broken = [
            f"{count} of {totals[part]} weights of {part} are missing or have another shape"
            for part, count in lacking.items()
            if part == "backbone" or count < totals[part] or other[part]
        ]
        broken += [f"{len(self.foreign)} weights have no place in it"] * bool(self.foreign)
        if broken:
            raise CheckpointError(
                f"weights {self.source!r} are of another network than {self.target}: "
                f"{'; '.join(broken)}.\n{self.table()}\n"
                "Only the layers of the classes may differ. Take a file for this network, or "
                "another --model"
            )

    def report(self) -> None:
        """Log what was loaded: one line if all fits, otherwise a table."""
        logger = MMLogger.get_current_instance()
        fits = not (self.missing or self.other_shape or self.left)
        log = logger.info if 2 * self.taken >= len(self.names) else logger.warning
        log(self._title() + (f": all {len(self.names)}" if fits else f"\n{self.table()}\n"))

    def _title(self) -> str:
        note = f" ({self.note})" * bool(self.note)
        return f"weights of {self.target} from {shown_path(self.source)}{note}"

    def table(self) -> str:
        """Counts for each part of the model, and examples of what does not fit."""
        head = ["part", "taken", "missing", "other shape", "left"]
        counts: dict[str, list[int]] = {}
        groups = (self.names, self.missing, list(self.other_shape), self.left)
        for column, names in enumerate(groups):
            for name in names:
                counts.setdefault(name.partition(".")[0], [0] * 4)[column] += 1
        rows: list[list[Any]] = [
            [part, total - missing - other, missing, other, left]
            for part, (total, missing, other, left) in counts.items()
        ]
        rows.sort(key=lambda row: not any(row[2:]))  # incomplete ones first
        if len(rows) > _MOST_ROWS:
            rest = [sum(row[column] for row in rows[_MOST_ROWS - 1 :]) for column in range(1, 5)]
            rows = [*rows[: _MOST_ROWS - 1], ["others", *rest]]
        lines = [text_table(head, rows)]
        shapes = [f"{name} {shape}" for name, shape in self.other_shape.items()]
        for word, examples in zip(head[2:], (self.missing, shapes, self.left), strict=True):
            lines += [f"{word}: {listed(examples, 3)}"] * bool(examples)
        absent = (*self.missing, *self.other_shape)
        spared = [part for part in self.spared if any(n.startswith(part) for n in absent)]
        lines += [f"not needed for an evaluation: {', '.join(spared)}"] * bool(spared)
        return "\n".join(f"  {line}" for line in "\n".join(lines).splitlines())


def load_weights(
    model: nn.Module, content: Mapping[str, Any], source: str, classes: Sequence[str] = ()
) -> Loaded:
    """Load what fits of a file into a model; the caller decides whether that is enough.

    Args:
        model: Also in a wrapper.
        content: Of the file.
        source: Name of the file.
        classes: Of the model, if those of the file are matched by name.

    Raises:
        CheckpointError: The file holds no weights.
    """
    while is_model_wrapper(model) or isinstance(model, BaseTTAModel):
        model = model.get_submodule("module")
    require_channels(model, content.get("meta"), source)
    fitted = fit(model, content, source)
    if classes:
        fitted = by_class(fitted, model, content, classes)
    with _observed(model, source, "the model", fitted) as found:
        model.load_state_dict(fitted.state, strict=False)
    return found[-1]


def load_part(model: nn.Module, content: Mapping[str, Any], source: str) -> None:
    """Load what fits into a part of a model that loads its own file, such as a teacher.

    Raises:
        CheckpointError: Nothing fits.
    """
    if model in _observed_now:  # who observes it reports it
        model.load_state_dict(weights_in(content, source), strict=False)
        return
    loaded = load_weights(model, content, source)
    loaded.require_any()
    loaded.report()


@contextlib.contextmanager
def _observed(
    model: nn.Module, source: str, target: str, fitted: Fit | None = None
) -> Iterator[list[Loaded]]:
    """Inside the block, whatever loads weights into ``model`` loads what fits.

    Modules of OpenMMLab load in several ways: by MMEngine's function, by torch's, strictly or not.
    All of them call the hooks of torch. Each load is added to the yielded list.

    Args:
        model: Not wrapped.
        source: Name of the file.
        target: Name of the model.
        fitted: What is loaded; None: it is fitted when it is loaded.
    """
    found: list[Loaded] = []
    current: list[tuple[Fit, dict, list, list, list]] = []

    def before(module, state, prefix, metadata, strict, missing, unexpected, errors) -> None:
        if prefix:
            return  # a load of a module around this one
        result = fitted
        if result is None:
            result = fit(module, state, source)
            state.clear()
            state.update(result.state)
        current.append((result, dict(state), missing, unexpected, errors))

    def after(module, incompatible) -> None:
        if not current:
            return
        result, state, missing, unexpected, errors = current.pop()
        found.append(_loaded(module, result, state, missing, unexpected, errors, source, target))
        # Reported by the caller; MMEngine would print all names.
        for names in (missing, unexpected, errors):
            names.clear()

    hooks = (
        model.register_load_state_dict_pre_hook(before),
        model.register_load_state_dict_post_hook(after),
    )
    _observed_now.add(model)
    try:
        yield found
    finally:
        _observed_now.discard(model)
        for hook in hooks:
            hook.remove()


def _loaded(
    model: nn.Module, result: Fit, state: dict, missing: list, unexpected: list, errors: list,
    source: str, target: str,
) -> Loaded:  # fmt: skip
    shapes = shapes_of(model)
    modules, to_fit = dict(model.named_modules()), parts_to_fit(model)
    # Statistics of another score than the model computes do not matter to it.
    fitted = [f"{name}." for name, module in modules.items() if module in to_fit]
    fitted += [
        f"{name.rpartition('feature_score.')[0]}feature_score."
        for name in unexpected
        if ".feature_score." in name
    ]
    learned = {
        name.partition("[")[0]: None
        for name, value in model.state_dict().items()
        # Counters and positions are integers.
        if isinstance(value, Tensor)
        and value.is_floating_point()
        and not name.startswith(tuple(fitted))
    }
    other_shape = {}
    for message in errors:
        name = next((word for word in re.findall(r"[\w.]+\w", message) if word in shapes), None)
        if name is not None:
            file = tuple(state[name].shape) if name in state else "another shape"
            other_shape[name] = f"{file} in the file, {shapes[name]} in the model"
    spared = [*(f"{part}." for part in training_only(type(model))), *fitted]
    left = tuple(name for name in unexpected if not name.startswith(tuple(spared)))
    return Loaded(
        source,
        target,
        result.note,
        tuple(learned),
        tuple(name for name in missing if name in learned),
        {name: shape for name, shape in other_shape.items() if name in learned},
        left,
        tuple(name for name in left if _is_foreign(name, state.get(name), modules)),
        tuple(spared),
    )


def _is_foreign(name: str, value: Tensor | None, modules: dict[str, nn.Module]) -> bool:
    """Whether a network with the weight ``name`` computes something else than one without it.

    That is so inside a backbone, a neck, a block and a layer, and for one more block of a row; not
    for another head or loss beside those of the model, such as of masks.
    """
    if value is None or not value.is_floating_point():
        return False
    first = name.partition(".")[0]
    if any(f"{part}.{first}" in modules for part in TAKERS):
        return True  # of a file of a backbone alone
    path, rest = name, ""
    while path not in modules:
        path, _, last = path.rpartition(".")
        rest = f"{last}.{rest}"
    is_layer = not list(modules[path].children()) and any(True for _ in modules[path].parameters())
    places = (*path.split("."), rest.partition(".")[0])
    return first in TAKERS or any(map(str.isdigit, places)) or is_layer


@contextlib.contextmanager
def initialization_observed(model: nn.Module) -> Iterator[None]:
    """Inside the block, each ``init_cfg`` of ``model`` that names a file loads what fits.

    Raises:
        CheckpointError: Nothing was loaded from such a file.
    """
    named = {
        name: (module, entries)
        for name, module in model.named_modules()
        if (entries := _pretrained(getattr(module, "init_cfg", None)))
    }
    with contextlib.ExitStack() as stack:
        loads = {
            name: stack.enter_context(
                _observed(module, " and ".join(_files(entries)), name or "the model")
            )
            for name, (module, entries) in named.items()
        }
        failure = None
        try:
            yield
        except Exception as error:
            failure = error
    # Inner modules first: an error passes the outer ones too.
    for name, (module, entries) in reversed(named.items()):
        for loaded in loads[name]:
            loaded.require_any()
            loaded.report()
        if failure is not None and not is_user_error(failure) and _passed(failure, module):
            raise CheckpointError(
                _nothing_loaded(name, entries, f"{type(failure).__name__}: {failure}")
            ) from failure
        # The other kind of mmseg loads into a part of the module.
        in_full = any(entry.get("type") != "Pretrained_Part" for entry in entries)
        if failure is None and not loads[name] and in_full:
            reason = f"{type(module).__name__} initializes itself without it"
            raise CheckpointError(_nothing_loaded(name, entries, reason))
    if failure is not None:
        raise failure


def _pretrained(init_cfg: object) -> list[dict]:
    """The entries of an ``init_cfg`` that name a file."""
    entries = init_cfg if isinstance(init_cfg, list | tuple) else [init_cfg]
    return [entry for entry in entries if isinstance(entry, dict) and entry.get("checkpoint")]


def _files(entries: list[dict]) -> list[str]:
    return [str(entry["checkpoint"]) for entry in entries]


def _passed(error: Exception, module: nn.Module) -> bool:
    """Whether ``error`` was raised while ``module`` was initialized."""
    frames = traceback.walk_tb(error.__traceback__)
    return any(
        frame.f_locals.get(name) is module for frame, _ in frames for name in ("self", "module")
    )


def _nothing_loaded(name: str, entries: list[dict], reason: str) -> str:
    files = " and ".join(map(repr, _files(entries)))
    return (
        f"{'.'.join(filter(None, ('model', name)))}.init_cfg: nothing was loaded from {files}\n"
        f"  {reason}\n"
        "Check the names of its weights; some backbones need convert_weights=True for the files "
        "of their authors. To train from random weights, set init_cfg=None"
    )
