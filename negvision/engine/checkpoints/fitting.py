"""Find the weights in a file, whatever is wrapped around them, and name them as a model does."""

import itertools
import math
import re
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from negvision.engine.checkpoints.face_layouts import PublishedFace, published_face
from negvision.engine.parallel.sharded import find_row_shards
from negvision.errors import CheckpointError, listed

State = dict[str, Tensor]
Shape = tuple[int, ...]

# Where files keep weights, by preference: averages are what their authors evaluate. MMEngine's
# `ema_state_dict` is not among them: its `state_dict` holds the averages.
_WRAPPERS = (
    "state_dict_ema", "model_ema", "ema", "params_ema", "teacher", "state_dict",
    "model_state_dict", "state_dict_backbone", "model", "module", "net", "network", "backbone",
    "params", "student",
)  # fmt: skip
# Training states, whose tensors may have the names of weights.
_NO_WEIGHTS = re.compile(r"meta$|message_hub$|.*(optim|sched|scaler|grad|random|rng)")
# Modules around a network, whose names come first, ...
_AROUND = {"module", "model", "net", "network", "backbone", "encoder", "ema", "ema_model"}
# ... and those that torch puts around a part of it.
_AROUND_PARTS = {"_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"}
# Parts that take the weights of a file without them, such as of a classifier.
TAKERS = ("backbone", "neck")
# Layers with rows of weights for each class; RPNs score objects, whatever their class.
_CLASS_ROWS = re.compile(
    r"(.*\.)?(?!rpn_)(\w*cls\w*|conv_seg|conv_logits|fc_reg|head)\.(weight|bias)"
)


def states_in(content: Mapping[str, Any]) -> dict[str, State]:
    """All weights in what a checkpoint file holds, by their place, the preferred ones first.

    Example:
        >>> import torch
        >>> content = {"epoch": 3, "net": {"module": {"w": torch.ones(1)}}}
        >>> {place: list(state) for place, state in states_in(content).items()}
        {'net.module': ['w']}
    """
    found: dict[str, State] = {}
    own: Any = OrderedDict((k, v) for k, v in content.items() if isinstance(v, Tensor))
    if own and all(isinstance(key, str) for key in own):
        own._metadata = getattr(content, "_metadata", {})
        found[""] = own
    nested = {
        key: value.state_dict() if isinstance(value, nn.Module) else value
        for key, value in content.items()
        if isinstance(key, str)
        and isinstance(value, Mapping | nn.Module)
        and not _NO_WEIGHTS.match(key)
    }
    rank = {key: place for place, key in enumerate(_WRAPPERS)}
    for key in sorted(nested, key=lambda key: rank.get(key, len(rank))):
        for place, state in states_in(nested[key]).items():
            found[f"{key}.{place}".rstrip(".")] = state
    return found


def weights_in(content: Mapping[str, Any], source: str) -> State:
    """The weights in what a checkpoint file holds, under the file's own names.

    Raises:
        CheckpointError: There are none.
    """
    states = states_in(content)
    if not states:
        raise CheckpointError(
            f"checkpoint {source!r} holds no weights; it has "
            f"{listed(list(content), 5) or 'nothing'}. Take another file"
        )
    # Not a few tensors beside them, nor those of a head alone.
    enough = max(map(len, states.values())) / 2
    return next(state for state in states.values() if len(state) >= enough)


def last_step_weights(checkpoint: Mapping[str, Any]) -> State | None:
    """The weights of the last step of a checkpoint of MMEngine with averages; None without."""
    last = checkpoint.get("ema_state_dict")
    if last is None:
        return None
    return OrderedDict((k, last.get(f"module.{k}", v)) for k, v in checkpoint["state_dict"].items())


@dataclass(frozen=True)
class Fit:
    """Weights of a file under the names of a model, and how they were found."""

    state: State
    note: str


def fit(model: nn.Module, content: Mapping[str, Any], source: str) -> Fit:
    """Find the weights of a file that fit a model best, whatever is wrapped around them.

    Args:
        model: Without a wrapper.
        content: Of the file.
        source: Name of the file.

    Raises:
        CheckpointError: The file holds no weights.
    """
    shapes = shapes_of(model)
    best, most = Fit(weights_in(content, source), ""), -1
    for place, state in states_in(content).items():
        for prefix, takers, names in _namings(state, shapes):
            count = sum(_same(v.shape, shapes.get(names[k])) for k, v in state.items())
            if count > most:
                notes = [repr(place)] * (place not in ("", "state_dict"))
                notes += [f"without {prefix!r}"] * bool(prefix)
                notes += [f"as {' and '.join(takers)}"] * bool(takers)
                best, most = Fit(_renamed(state, names, prefix), ", ".join(notes)), count
        face = published_face(state)
        if face is not None:
            count = sum(_same(v.shape, shapes.get(name)) for name, v in face.state.items())
            if count > most:
                best, most = Fit(face.state, f"layout of {face.origin}"), count
    return best


def face_in(content: Mapping[str, Any]) -> PublishedFace | None:
    """The published face recognizer in what a checkpoint file holds; None for anything else."""
    return next(filter(None, map(published_face, states_in(content).values())), None)


def by_class(fitted: Fit, model: nn.Module, content: Mapping[str, Any], new: Sequence[str]) -> Fit:
    """``fitted`` with the rows of its classification layers moved to the classes of their names.

    Classes that the file does not have keep the rows of the model. Without a name in common, or
    for layers with other rows than those of :func:`is_of_classes`, nothing changes.

    Args:
        fitted: From :func:`fit`.
        model: As there.
        content: As there; ``meta`` names its classes.
        new: The classes of the model.
    """
    meta = (content.get("meta") or {}).get("dataset_meta") or {}
    # MMDetection 2 has them beside the rest.
    old = meta.get("classes") or meta.get("CLASSES") or (content.get("meta") or {}).get("CLASSES")
    old = (old,) if isinstance(old, str) else old or ()
    rows: dict[str, int] = {name: row for row, name in enumerate(old)}
    taken = [name for name in new if name in rows]
    if not taken or list(rows) == list(new):
        return fitted
    own, moved = model.state_dict(), {}
    for name, value in fitted.state.items():
        if not (is_of_classes(name) and value.ndim and isinstance(own.get(name), Tensor)):
            continue
        for anchors, rest, numbers in _layouts(name, len(value), len(rows)):
            shape = (anchors, len(new) + rest, numbers, *value.shape[1:])
            if own[name].shape == (math.prod(shape[:3]), *shape[3:]):
                result = own[name].detach().to(value, copy=True).view(shape)
                given = value.reshape(anchors, len(rows) + rest, numbers, *shape[3:])
                for row, wanted in enumerate(new):
                    if wanted in rows:
                        result[:, row] = given[:, rows[wanted]]
                result[:, len(new) :] = given[:, len(rows) :]
                moved[name] = result.view_as(own[name])
                break
    if not moved:
        return fitted
    fitted.state.update(moved)
    anew = [name for name in new if name not in rows]
    note = f"classes by name: {listed(taken, 5)}" + f"; new: {listed(anew, 5)}" * bool(anew)
    return Fit(fitted.state, ", ".join(filter(None, (fitted.note, note))))


def is_of_classes(name: str) -> bool:
    """Whether a weight has rows for each class of its model, by its name.

    These are the scores of each class, perhaps for each anchor, or with one for the background;
    the four numbers of its box; its mask.

    Example:
        >>> [is_of_classes(f"{name}.weight") for name in ("bbox_head.atss_cls", "rpn_head.rpn_cls")]
        [True, False]
    """
    return _CLASS_ROWS.fullmatch(name) is not None


def _layouts(name: str, length: int, classes: int) -> Iterator[tuple[int, int, int]]:
    """How ``length`` rows may be made up: anchors, rows beside those of classes, rows of each."""
    if ".fc_reg." in f".{name}":
        if length == 4 * classes:
            yield 1, 0, 4
        return
    if length in (classes, classes + 1):
        yield 1, length - classes, 1
    if length % classes == 0:
        yield length // classes, 0, 1


def part_of(content: Mapping[str, Any], prefix: str, source: str) -> State:
    """The weights of a file whose names start with ``prefix``, without it.

    Raises:
        CheckpointError: There are none.
    """
    prefix = f"{prefix.rstrip('.')}."
    parts: dict[str, None] = {}
    for state in states_in(content).values():
        for around in ["", *_prefixes(list(state))]:
            full = f"{around}{prefix}"
            found = {k.removeprefix(full): v for k, v in state.items() if k.startswith(full)}
            if found:
                return found
        parts |= dict.fromkeys(f"{name.partition('.')[0]}." for name in state)
    raise CheckpointError(
        f"{source!r} has no weights with the prefix {prefix!r}; its names start with "
        f"{listed(list(parts), 8) or 'nothing'}"
    )


def shapes_of(model: nn.Module) -> dict[str, Shape]:
    """The shapes of all weights and buffers of a model, over all ranks."""
    state = model.state_dict()
    shapes = {name.partition("[")[0]: tuple(value.shape) for name, value in state.items()}
    for shard in find_row_shards(model):
        shapes[shard.path] = (shard.total, *shard.parameter.shape[1:])
    return shapes


def _same(one: Shape, other: Shape | None) -> bool:
    # Scalars may be saved with and without a dimension.
    return other is not None and (tuple(one) == other or {tuple(one), other} <= {(), (1,)})


def _namings(
    state: State, shapes: dict[str, Shape]
) -> Iterator[tuple[str, list[str], dict[str, str]]]:
    """Ways to name ``state``: a prefix left out, the parts that take it, and new names by old."""
    plain = {key: _inner(key, shapes) for key in state}
    takers = [part for part in TAKERS if any(name.startswith(f"{part}.") for name in shapes)]

    def place(key: str, name: str) -> str:
        full = (f"{part}.{name}" for part in takers)
        return next((one for one in full if _same(state[key].shape, shapes.get(one))), name)

    for prefix in ["", *_prefixes(list(plain.values()))]:
        names = {key: name.removeprefix(prefix) for key, name in plain.items()}
        yield prefix, [], names
        yield prefix, takers, {key: place(key, name) for key, name in names.items()}


def _inner(name: str, shapes: dict[str, Shape]) -> str:
    """``name`` without the modules that torch puts around a part."""
    if name in shapes:
        return name
    inner = ".".join(part for part in name.split(".") if part not in _AROUND_PARTS)
    without_module = ".".join(part for part in inner.split(".") if part != "module")
    return without_module if without_module in shapes else inner


def _prefixes(names: list[str]) -> list[str]:
    """Prefixes of names that stand for modules around the network."""
    paths = [name.split(".")[:-1] for name in names]
    common = itertools.takewhile(lambda parts: len(set(parts)) == 1, zip(*paths, strict=False))
    found = dict.fromkeys(itertools.accumulate(f"{parts[0]}." for parts in common))
    for name in names:
        prefix = ""
        for part in name.split(".")[:-1]:
            if part not in _AROUND:
                break
            prefix += f"{part}."
            found[prefix] = None
    return list(found)


def _renamed(state: State, names: dict[str, str], prefix: str) -> State:
    renamed: Any = OrderedDict((names[key], value) for key, value in state.items())
    # The versions of modules, by which they convert what older ones saved.
    renamed._metadata = {
        f"{path}.".removeprefix(prefix)[:-1]: version
        for path, version in getattr(state, "_metadata", {}).items()
    }
    return renamed
