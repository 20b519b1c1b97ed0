"""Load checkpoints without running code that may be hidden in them."""

import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.error import URLError

import numpy as np
import torch
from mmengine.dist import barrier, get_local_rank, is_distributed
from mmengine.logging import HistoryBuffer
from mmengine.optim import OneCycleParamScheduler
from mmengine.runner.checkpoint import CheckpointLoader, get_torchvision_models

from negvision.compat.patches import replace_checkpoint_loaders
from negvision.engine.checkpoints.fitting import part_of, states_in, weights_in
from negvision.engine.checkpoints.safetensors_file import SUFFIX, read_weights
from negvision.engine.checkpoints.taking import load_part
from negvision.errors import CheckpointError, UserError, did_you_mean

# mmengine's pickles refer to these methods by getattr(owner, name): statistics of logged values,
# and the curve of OneCycleLR.
_METHODS = {
    HistoryBuffer: ("min", "max", "mean", "current"),
    OneCycleParamScheduler: ("_annealing_cos", "_annealing_linear"),
}


def _named_method(owner: type, name: str) -> Callable:
    """Replace ``getattr``, by which a pickle could reach any attribute of allowed objects."""
    if owner not in _METHODS or name not in _METHODS[owner]:
        raise pickle.UnpicklingError(f"getattr({owner!r}, {name!r}) is not allowed")
    return getattr(owner, name)


def _allowed_globals() -> list:
    """What a checkpoint of mmengine holds besides tensors and Python's containers."""
    # NumPy 1 and 2 write different names for the functions that rebuild arrays and scalars.
    arrays = [
        (value.__reduce__()[0], f"numpy.{core}.multiarray.{name}")
        for core in ("_core", "core")
        for value, name in ((np.zeros(0), "_reconstruct"), (np.float64(0), "scalar"))
    ]
    kinds = ("bool", "uint8", "int32", "int64", "uint32", "float32", "float64")
    dtypes = {type(np.dtype(kind)) for kind in kinds}
    methods = [*_METHODS, (_named_method, "builtins.getattr")]
    return [np.ndarray, np.dtype, *dtypes, *arrays, *methods]


def load_checkpoint_file(
    path: str | Path, map_location: Any = None, trust: bool = False, mapped: bool = False
) -> dict[str, Any]:
    """Read a checkpoint of torch.save or mmengine, or a safetensors file.

    Args:
        path: A local file.
        map_location: As in :func:`torch.load`.
        trust: Unpickle any object, which can run any code. Never the default.
        mapped: Leave tensors on the disk until they are used.

    Raises:
        CheckpointError: The file does not exist, is damaged, or names an object that is not on
            the allow-list; no code of it has run.

    Example:
        >>> torch.save({"state_dict": {"weight": torch.ones(2)}}, "last.pth")
        >>> load_checkpoint_file("last.pth", "cpu")["state_dict"]
        {'weight': tensor([1., 1.])}
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise CheckpointError(f"checkpoint {str(path)!r} does not exist{beside(path)}")
    if path.suffix == SUFFIX:
        return read_weights(path, map_location)
    # Files of torch before 1.6 cannot be left on the disk.
    mapped = mapped and zipfile.is_zipfile(path)
    return _unpickle(path, f"checkpoint {str(path)!r}", map_location, trust, mapped)


def _unpickle(file: Any, what: str, map_location: Any, trust: bool, mapped: bool = False) -> dict:
    try:
        with torch.serialization.safe_globals(_allowed_globals()):
            content = torch.load(
                file, map_location=map_location, weights_only=not trust, mmap=mapped
            )
    except pickle.UnpicklingError as error:
        # torch's own message advises weights_only=False, without the risk.
        reason = str(error).partition("WeightsUnpickler error: ")[2] or str(error)
        raise CheckpointError(
            f"{what} was not loaded: it holds more than weights and training state, or is "
            f"damaged.\n  {reason.strip().splitlines()[0]}\n"
            "Loading it could run hidden code. If you trust its source, pass --trust-checkpoint"
        ) from None
    except Exception as error:  # a damaged pickle raises nearly any error
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(
            f"{what} cannot be read ({reason}); it is damaged, incomplete or not a checkpoint. "
            "Take another one"
        ) from None
    if not isinstance(content, dict):
        raise CheckpointError(
            f"{what} holds a {type(content).__name__}; a checkpoint is a dict. Take another one"
        )
    return content


def beside(path: Path) -> str:
    """What to say of a checkpoint that is missing: the nearest in its folder."""
    if not path.parent.is_dir():
        return f": there is no folder {str(path.parent)!r}"
    names = sorted(p.name for p in path.parent.iterdir() if p.suffix in (".pth", SUFFIX))
    if not names:
        return f": no .pth or {SUFFIX} file in {str(path.parent)!r}"
    return did_you_mean(path.name, names) or f"; the folder has {', '.join(names[-5:])}"


def install_loaders(trust: bool = False) -> None:
    """Make mmengine load every local file and download through :func:`load_checkpoint_file`.

    This covers ``load_from``, ``resume`` and ``init_cfg``, and modules that call mmengine's
    functions themselves; :func:`negvision.compat.patches.replace_checkpoint_loaders` says why.
    """
    # mmengine does not say which file it loads into a model.
    opened = ["the checkpoint"]

    def load_from_local(filename, map_location=None):
        opened[0] = str(filename)
        return _with_state_dict(load_checkpoint_file(filename, map_location, trust))

    def load_from_url(filename, map_location=None):
        return load_from_local(_download(filename, filename), map_location)

    def load_from_torchvision(filename, map_location=None):
        name = filename.partition("://")[2]
        urls = get_torchvision_models()
        if name not in urls:
            raise UserError(f"torchvision has no model {name!r}{did_you_mean(name, urls)}")
        return load_from_local(_download(urls[name], filename), map_location)

    def load_from_backend(file, map_location=None, weights_only=None):
        content = _unpickle(file, "the checkpoint of a file backend", map_location, trust)
        return _with_state_dict(content)

    def load_into(model, checkpoint, *args, **kwargs):
        load_part(model, checkpoint, opened[0])
        return checkpoint

    def load_prefixed(prefix, filename, map_location=None):
        content = CheckpointLoader.load_checkpoint(filename, map_location, logger="silent")
        return part_of(content, prefix, filename)

    replace_checkpoint_loaders(
        load_from_local, load_from_url, load_from_torchvision, load_from_backend,
        load_into, load_prefixed,
    )  # fmt: skip


def _with_state_dict(content: dict) -> dict:
    """``content`` with its weights also where modules of OpenMMLab look for them."""
    if "state_dict" not in content and states_in(content).keys() - {""}:
        content["state_dict"] = weights_in(content, "")
    return content


def read_source(source: str, map_location: Any = "cpu") -> dict[str, Any]:
    """Read a local file, a URL, or a name such as ``torchvision://resnet50``.

    Raises:
        UserError: There is no such file or name, or it cannot be read.
    """
    try:
        return CheckpointLoader.load_checkpoint(source, map_location, logger="silent")
    except KeyError as error:
        raise CheckpointError(f"{source!r}: there is no such name ({error})") from None


def _download(url: str, asked_for: str) -> Path:
    """Fetch ``url`` into torch hub's cache once for each machine; the file's path."""
    folder = Path(torch.hub.get_dir()) / "checkpoints"
    target = folder / url.rpartition("/")[2].partition("?")[0]
    if not target.is_file() and get_local_rank() == 0:
        folder.mkdir(parents=True, exist_ok=True)
        try:
            torch.hub.download_url_to_file(url, str(target), progress=False)
        except (URLError, OSError, RuntimeError) as error:
            raise UserError(
                f"the pretrained weights {asked_for!r} are not on this machine and could not be "
                f"downloaded ({error}).\n"
                f"Either fetch\n  {url}\nelsewhere and put the file into\n  {folder}\n"
                "or start from a file of yours (--weights FILE), or, without --weights, from "
                "random ones with\n  --cfg-options model.backbone.init_cfg=None"
            ) from None
    if is_distributed():
        barrier()
    return target
