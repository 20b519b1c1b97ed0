"""Run trained models: on arrays and files from Python, or on any source by ``negvision predict``.

:class:`~negvision.inference.inferencer.Inferencer` opens an exported model, or a config with its
checkpoint. Exported models need neither torch nor OpenMMLab.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from negvision.inference.inferencer import Inferencer

__all__ = ["Inferencer"]


def __getattr__(name: str) -> object:
    if name != "Inferencer":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from negvision.inference.inferencer import Inferencer

    return Inferencer
