"""Read the config stored in a checkpoint without running it.

A config file in Python is a program. The text that a training run stores in its checkpoints is
not: it assigns literals, and its ``type`` entries name registered components. Only such a text is
accepted here, and it is checked in full before anything is built, since MMEngine would import
whatever else a ``type`` spells, such as ``os.system``, and call it with the rest of the dict.
"""

import ast
import json
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from typing import Any

from mmengine.config import Config

from negvision.engine.checkpoints.fitting import face_in
from negvision.engine.checkpoints.loading import load_checkpoint_file
from negvision.engine.config.check import MODE_FIELDS
from negvision.engine.config.components import (
    NAMESPACES,
    component_names,
    find_components,
    is_registered,
    split_scope,
)
from negvision.errors import CheckpointError, ConfigError, did_you_mean

# The property of negvision.inference.runtime.metadata.
_METADATA = "negvision"
# The largest config in configs/ has some 10 kB.
_MAX_BYTES = 1 << 18
_SCOPES = ("mmengine", "mmcv", "mmdet", "mmseg", "negvision")
# Keys whose text becomes the `type` of a component.
_TYPE_KEYS = ("type", "constructor", "ema_type", "runner_type")
# Registered components that evaluate text of their config or unpickle files that it names.
_RUN_CODE = {
    "RFSearchHook": "evaluates text of the config",
    "CameraMotionCompensation": "evaluates text of the config",
    "OpenImagesDataset": "unpickles its hierarchy file",
    "OpenImagesChallengeDataset": "unpickles its hierarchy file",
    "LoadBiomedicalImageFromFile": "may unpickle images",
    "LoadBiomedicalAnnotation": "may unpickle annotations",
    "LoadBiomedicalData": "may unpickle data",
}


def config_from_text(text: str, source: str) -> Config:
    """The config that ``text`` assigns, which is ``Config.pretty_text`` of another one.

    Args:
        text: Assignments of literals and ``dict(...)``.
        source: The file that holds the text, for error messages.

    Raises:
        ConfigError: The text is no such config, imports modules, or has a ``type`` that is not
            registered or that runs code of the config's choosing. Nothing has been imported then
            but the packages of MMEngine's scopes.

    Example:
        >>> cfg = config_from_text("model = dict(type='mmdet.ResNet', depth=18)", "a.pth")
        >>> cfg.model.depth
        18
    """
    where = f"config stored in {source!r}"
    if len(text) > _MAX_BYTES:
        raise ConfigError(f"{where} has {len(text):,} characters; at most {_MAX_BYTES:,} are read")
    try:
        content = dict(_assignments(ast.parse(text)))
        problem = next(_problems(content, "", "", content.get("default_scope") or "mmengine"), None)
        if problem is None:
            return Config(content, cfg_text=text)
    except (SyntaxError, ValueError, TypeError, RecursionError, MemoryError, KeyError) as error:
        problem = str(error) or type(error).__name__
    raise ConfigError(f"{where}: {problem}")


def stored_config(file: str, trust: bool = False) -> Config:
    """The config that a checkpoint, published weights or an exported model hold.

    Of face recognizers as others publish them, it is that of their network
    (:mod:`negvision.engine.checkpoints.face_layouts`).

    Raises:
        CheckpointError: The file cannot be read, or holds no config.
        ConfigError: As of :func:`config_from_text`.
    """
    content = {}
    if file.endswith(".onnx"):
        text = _text_in_onnx(file)
    else:
        content = load_checkpoint_file(file, "cpu", trust, mapped=True)
        text = (content.get("meta") or {}).get("cfg")
    if not isinstance(text, str) or not text.strip():
        face = face_in(content)
        if face is not None:
            pipeline = [
                {"type": "negvision.LoadImageFromFile"},
                # As large as the network takes it.
                {"type": "Resize", "scale": (112, 112)},
                {"type": "negvision.PackFaceInputs"},
            ]
            test = {"dataset": {"type": "negvision.FacePairDataset", "pipeline": pipeline}}
            return Config({"model": face.model, "test_dataloader": test})
        raise CheckpointError(
            f"{file} holds a model but not its config. Name the config in front of it:\n"
            f"  CONFIG.py {file}"
        )
    return config_from_text(text, file)


def _text_in_onnx(file: str) -> object:
    """The config in the metadata of an exported model, whose weights and graph are not used."""
    try:
        import onnx
        from google.protobuf.message import DecodeError
    except ImportError as error:
        raise ConfigError(
            f"{error.name} is not installed, which reads the config in {file}:\n"
            "  pip install -r requirements/export.txt -c requirements/constraints.txt"
        ) from None
    try:
        properties = onnx.load(file, load_external_data=False).metadata_props
        metadata = json.loads(next((p.value for p in properties if p.key == _METADATA), "{}"))
    except (DecodeError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise CheckpointError(f"{file}: not an exported model: {reason}") from None
    return metadata.get("config") if isinstance(metadata, dict) else None


def _assignments(tree: ast.Module) -> Iterator[tuple[str, Any]]:
    for statement in tree.body:
        match statement:
            case ast.Assign(targets=[ast.Name(id=name)], value=value):
                yield name, literal(value)
            case _:
                raise ValueError(f"line {statement.lineno} is not an assignment of a literal")


def literal(node: ast.expr) -> Any:
    """The value of a literal whose dicts may be written ``dict(key=value)``.

    Raises:
        ValueError: It is something else.
    """
    match node:
        case ast.Call(func=ast.Name(id="dict"), args=[], keywords=pairs) if all(
            pair.arg for pair in pairs
        ):
            return {pair.arg: literal(pair.value) for pair in pairs}
        case ast.Call(func=ast.Name(id="dict"), args=[ast.Dict() as pairs], keywords=[]):
            return literal(pairs)  # keys that are no names, such as those of layers
        case ast.Dict(keys=keys, values=values) if None not in keys:
            return {
                literal(key): literal(value)
                for key, value in zip(keys, values, strict=True)
                if key is not None
            }
        case ast.List(elts=items):
            return [literal(item) for item in items]
        case ast.Tuple(elts=items):
            return tuple(map(literal, items))
    try:
        return ast.literal_eval(node)
    except ValueError:
        raise ValueError(f"line {node.lineno}: {ast.unparse(node)[:60]!r} is no literal") from None


def _problems(node: Any, path: str, field: str, scope: str) -> Iterator[str]:
    """What keeps ``node``, which stands at ``path`` under the key ``field``, from being built."""
    if isinstance(node, list | tuple | set):
        for index, item in enumerate(node):
            yield from _problems(item, f"{path}.{index}", field, scope)
    elif isinstance(node, str) and _is_importable(node):
        yield f"{path} = {node!r} names an object that Python can import"
    if not isinstance(node, Mapping):
        return
    if "custom_imports" in node:
        yield "custom_imports would import Python modules"
    for key in ("default_scope", "_scope_"):
        if node.get(key) is not None:
            if node[key] not in _SCOPES:
                yield f"{_join(path, key)} is {node[key]!r}; it is one of {', '.join(_SCOPES)}"
                return
            scope = node[key]
    for key, value in node.items():
        if key in _TYPE_KEYS and not (key == "constructor" and isinstance(value, bool)):
            yield from _type_problems(value, _join(path, key), field, scope)
        else:
            yield from _problems(value, _join(path, key), key, scope)


def _type_problems(kind: Any, path: str, field: str, scope: str) -> Iterator[str]:
    if not isinstance(kind, str):
        yield f"{path} is {kind!r}; it must be the name of a registered component"
        return
    target, name = split_scope(kind, scope)
    if name in _RUN_CODE:
        yield f"{path}: {name} {_RUN_CODE[name]}"
    elif field in MODE_FIELDS:
        # A word that the component compares with its own.
        if not kind.isidentifier():
            yield f"{path} is {kind!r}, which is no word"
    elif field in NAMESPACES and kind.isidentifier() and find_components(kind, scope, field):
        return
    elif target not in _SCOPES or not is_registered(kind, scope):
        close = did_you_mean(name, component_names(target)) if target in _SCOPES else ""
        yield (
            f"{path} = {kind!r} is not registered{close}. A stored config names registered "
            "components only; for others use a config file"
        )


def _is_importable(text: str) -> bool:
    """Whether ``text`` is a dotted name below a module; components may build what it names."""
    first, *rest = text.split(".")
    if not rest or not all(part.isidentifier() for part in (first, *rest)) or first in _SCOPES:
        return False
    spec = find_spec(first)
    return spec is not None and spec.loader is not None


def _join(path: str, key: object) -> str:
    return f"{path}.{key}" if path else str(key)
