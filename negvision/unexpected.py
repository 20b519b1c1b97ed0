"""Word an exception that no part of negvision expected: what, where, and what to do.

Transforms, builders and libraries raise anything. The local variables along the traceback tell the
step that raised, its place in the config, and the sample, which their messages do not.
"""

import traceback
from collections.abc import Iterator, Mapping, Sequence
from types import FrameType, TracebackType
from typing import Any

from negvision.errors import DatasetError, is_user_error, worker_message

# Top-level entries of a config that hold what is built; others are variables that these repeat.
_BUILT = ("_dataloader", "_evaluator", "_hooks", "_wrapper", "_cfg", "_scheduler")
# Methods by which registries build a component from its entry.
_BUILDERS = ("build_from_cfg", "build_model_from_cfg", "build_runner_from_cfg")
# One of these marks a sample; `data_prefix` of a data set may have the key img_path as well.
_SAMPLE_KEYS = {"sample_idx", "img_id", "img"}
_MOST_LINES, _MOST_NAMES = 12, 4


def describe(error: BaseException) -> str:
    """``error`` as one block of text.

    A user error says everything itself. Otherwise lines are added that name the component that
    raised with its place in the config, and the sample or the images of the batch, if the traceback
    leads through them.

    Example:
        >>> try:
        ...     results = {"img_path": "a.jpg", "sample_idx": 0}
        ...     results["mask"]
        ... except KeyError as error:
        ...     print(describe(error))
        KeyError: 'mask'
          sample: a.jpg
    """
    head = f"{type(error).__name__}: {_message(error)}"
    if is_user_error(error):
        return head
    frames = list(_frames(error.__traceback__))
    places = {"in": _component(frames), "sample": _sample(frames)}
    lines = [head, *(f"  {name}: {place}" for name, place in places.items() if place)]
    if isinstance(error, ImportError) and error.name:
        lines.append(
            f"Install it (pip install {error.name.partition('.')[0]}), or activate the environment "
            "that has it, or remove from the config what needs it."
        )
    return "\n".join(lines)


def of_sample(error: Exception, name: str) -> DatasetError | None:
    """The error to raise instead of one that a dataset raised for sample ``name``.

    Returns:
        None for a user error and for one of the machine (a full disk, a lost mount), which others
        explain.
    """
    if is_user_error(error) or isinstance(error, MemoryError):
        return None
    if isinstance(error, OSError) and error.errno and not isinstance(error, FileNotFoundError):
        return None
    frames = list(_frames(error.__traceback__))
    message = f"{type(error).__name__}: {_message(error)}"
    step = _transform(frames)
    where = f" in {type(step).__name__}" if step is not None else ""
    return DatasetError(
        f"{_sample(frames) or name}: {message}{where}", kind=f"{type(error).__name__}{where}"
    )


def image_names(batch: Any) -> list[str]:
    """Paths or ids of the images of a batch; empty if its samples have neither."""
    samples = batch.get("data_samples", ()) if isinstance(batch, dict) else ()
    found = [getattr(sample, "metainfo", {}) for sample in samples]
    keys = ("img_path", "img_id", "sample_idx")
    names = [next((info[key] for key in keys if key in info), None) for info in found]
    return [str(name) for name in names if name is not None]


def _message(error: BaseException) -> str:
    text = worker_message(str(error), type(error).__name__).strip()
    if not text:  # a bare assertion
        found = traceback.extract_tb(error.__traceback__)
        text = (found[-1].line or "") if found else ""
    lines = text.splitlines()
    return "\n".join([*lines[:_MOST_LINES], *["..."] * (len(lines) > _MOST_LINES)])


def _frames(trace: TracebackType | None) -> Iterator[FrameType]:
    """From the innermost to the outermost."""
    yield from reversed([frame for frame, _ in traceback.walk_tb(trace)])


def _transform(frames: Sequence[FrameType]) -> object | None:
    """The innermost transform of a pipeline."""
    for frame in frames:
        own = frame.f_locals.get("self")
        if any(base.__name__ == "BaseTransform" for base in type(own).__mro__):
            return own
    return None


def _sample(frames: Sequence[FrameType]) -> str:
    """The image of the innermost frame that holds a sample, or the images of the batch."""
    for frame in frames:
        for value in frame.f_locals.values():
            if isinstance(value, dict) and "img_path" in value and _SAMPLE_KEYS & value.keys():
                return str(value["img_path"])
        names = image_names(frame.f_locals.get("data_batch"))
        if names:
            more = f" and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else ""
            return ", ".join(names[:_MOST_NAMES]) + more
    return ""


def _component(frames: Sequence[FrameType]) -> str:
    """The innermost component, and its place in the config that the frames hold."""
    config: Any = next(
        (
            frame.f_locals["cfg"]._cfg_dict
            for frame in reversed(frames)
            if type(frame.f_locals.get("cfg")).__name__ == "Config"
        ),
        {},
    )
    splits = [type(frame.f_locals.get("self")).__name__ for frame in frames]
    split = next((s for s in ("train", "val", "test") if f"{s}loop" in str(splits).lower()), "")
    for frame in frames:
        entry = frame.f_locals.get("cfg") if frame.f_code.co_name in _BUILDERS else None
        if isinstance(entry, Mapping) and "type" in entry:
            name, wanted = _plain(entry["type"]), entry
        else:
            name, wanted = type(frame.f_locals.get("self")).__name__, None
        places = [place for place, found in _entries(config) if _plain(found["type"]) == name]
        same = [place for place, found in _entries(config) if wanted and found == wanted]
        in_split = [place for place in same or places if place.startswith(f"{split}_")]
        places = in_split or same or places
        if places:
            return f"{name} ({places[0]})"
        if wanted:
            return name
    step = _transform(frames)
    return type(step).__name__ if step is not None else ""


def _entries(node: Any, path: str = "") -> Iterator[tuple[str, Mapping]]:
    """The components of a config with their places."""
    if isinstance(node, list | tuple):
        for number, item in enumerate(node):
            yield from _entries(item, f"{path}.{number}")
    elif isinstance(node, Mapping):
        if "type" in node and path:
            yield path, node
        for key, value in node.items():
            if path or key in ("model", "visualizer") or str(key).endswith(_BUILT):
                yield from _entries(value, f"{path}.{key}" if path else str(key))


def _plain(kind: Any) -> str:
    return kind.rpartition(".")[2] if isinstance(kind, str) else getattr(kind, "__name__", "")
