"""The metadata of a model that is about to be exported."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from mmengine.config import Config
from torch import nn

from negvision.engine.checkpoints.provenance import provenance
from negvision.errors import ExportError
from negvision.export.graphs.choice import Exportable, choose_graph
from negvision.inference.from_config import named_classes, ood_of
from negvision.inference.pipeline import read_preprocessing
from negvision.inference.runtime.metadata import Metadata


def graph_and_metadata(
    cfg: Config, model: nn.Module, meta: Mapping[str, Any], precision: str = "fp32"
) -> tuple[Exportable, Metadata]:
    """The graph of a model, and everything that its file will say about itself.

    Args:
        cfg: The whole config.
        model: With its weights and, if there is one, its OOD threshold; may be changed in place.
        meta: Of the checkpoint.
        precision: "fp32", "fp16" or "int8".

    Raises:
        ExportError: The model has no graph, the number of classes is not that of the model, or the
            preprocessing cannot be described.
    """
    own = read_preprocessing(cfg, model)
    resized = None if own.scale is None or own.keep_ratio else own.scale[::-1]
    graph = choose_graph(model, resized or own.size)
    own = replace(own, size=graph.size)
    found = provenance()
    versions = {**found["versions"], **({"git": found["git"]} if found["git"] else {})}
    score, threshold = ood_of(model) if graph.has_ood else (None, None)
    return graph, Metadata(
        task=graph.task,
        preprocessing=own,
        classes=_classes(cfg, meta, graph.num_classes),
        precision=precision,
        ood_score=score,
        ood_threshold=threshold,
        flip_sum=bool(getattr(model, "flip_test", False)),
        versions=versions,
        config=cfg.pretty_text,
        **graph.limits,
    )


def _classes(cfg: Config, meta: Mapping[str, Any], count: int) -> tuple[str, ...]:
    """Names of ``count`` classes; numbers where nobody knows."""
    if not count:
        return ()
    names = named_classes(cfg, meta)
    if names and len(names) != count:
        raise ExportError(
            f"the model tells {count} classes apart, and the checkpoint or the config names "
            f"{len(names)}: {', '.join(names[:5])}... Give the config that it was trained with"
        )
    return names or tuple(str(number) for number in range(count))
