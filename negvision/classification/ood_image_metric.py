"""OOD metrics of images, over all OOD sets together and for each separately."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from mmengine.logging import print_log

from negvision.engine.metrics import OODMetricBase
from negvision.errors import ConfigError
from negvision.ood import OODValues, ood_metrics, ood_score
from negvision.ood.records import METRIC_HEADINGS, OODRecords, metric_cells
from negvision.ood.scores import computable
from negvision.registry import METRICS


@METRICS.register_module()
class OODImageMetric(OODMetricBase):
    """Evaluates the OOD scores of a classifier, and its accuracy on the ID images.

    Each OOD set, named by the ``source`` of its samples, is evaluated against all ID images, after
    all OOD sets together. Images are identified by path and source, so their order, the number of
    processes and repeated images change nothing.

    Args:
        **kwargs: Of :class:`negvision.engine.metrics.OODMetricBase`.

    Returned keys: also ``accuracy`` of the ID images in [0, 1]; ``<source>/auroc`` and so on of
    the model's own score for each OOD set, and ``<source>/<score>/auroc`` and so on of others.

    Raises:
        OODDataError: There is no OOD or no ID image, or a score is not finite.

    Example::

        val_evaluator = dict(type="negvision.OODImageMetric")
    """

    # The second: of one OOD set.
    added = ("accuracy", "*/*")

    def process(self, data_batch: Any, data_samples: Sequence[Mapping]) -> None:
        """Store the scores of a batch of :class:`ImageDataSample` as dicts.

        Raises:
            ConfigError: The predictions have no OOD score, or the samples no path.
        """
        if not data_samples:
            return
        needed = {"ood_score", "img_path"} | ({"logits"} if self.scores else set())
        absent = needed - set(data_samples[0])
        if absent:
            raise ConfigError(
                f"{type(self).__name__}: the predictions have no {' and no '.join(sorted(absent))}"
                f", only {sorted(data_samples[0])}. Use a model such as negvision.AbeTClassifier "
                "and negvision.PackImageInputs at the end of the pipeline"
            )
        columns = {
            name: torch.stack([sample[name] for sample in data_samples])
            for name in ("ood_score", "logits", "temperature")
            if name in data_samples[0]
        }
        own = data_samples[0]["ood_score_name"]
        scores = {own: columns["ood_score"]}
        for name in self.scores:
            if name not in scores and computable(name, own):
                scores[name] = ood_score(name, columns["logits"], columns.get("temperature"))
        listed = {name: values.tolist() for name, values in scores.items()}
        for row, sample in enumerate(data_samples):
            kept = {
                "path": str(sample["img_path"]),
                "source": str(sample.get("source", "")),
                "is_ood": bool(sample.get("is_ood", False)),
                "label": int(sample.get("label", -1)),
                "pred_label": int(sample["pred_label"]),
                "scores": {name: values[row] for name, values in listed.items()},
            }
            self.results.append(((kept["path"], kept["source"], kept["is_ood"]), kept))

    def records(self, results: Sequence[Mapping]) -> OODRecords:
        """See the base class; the strata are the predicted classes."""
        # With no image at all, the evaluation reports that there are no samples.
        names = results[0]["scores"] if results else ("ood_score",)
        predicted = np.array([kept["pred_label"] for kept in results], dtype=np.int64)
        names_of_classes = (self.dataset_meta or {}).get("classes")
        classes = list(names_of_classes or map(str, range(predicted.max(initial=-1) + 1)))
        right = [kept["pred_label"] == kept["label"] for kept in results if kept["label"] >= 0]
        return OODRecords(
            task="images",
            scores={name: _column(results, name) for name in names},
            is_ood=np.array([kept["is_ood"] for kept in results], dtype=bool),
            image=np.arange(len(results)),
            paths=[kept["path"] for kept in results],
            classes=classes,
            labels=predicted,
            strata={"predicted class": (classes, predicted)},
            notes={"accuracy": float(np.mean(right))} if right else {},
        )

    def compute_metrics(self, results: list[tuple[Any, Any]]) -> dict[str, float]:
        """Evaluate the images of all ranks; see the class for the keys."""
        scalars = super().compute_metrics(results)
        by_source = _by_source(list(dict(results).values()))
        print_log(_sources_table(by_source), logger="current")
        for source, by_score in by_source.items():
            for number, (name, metrics) in enumerate(by_score.items()):
                prefix = f"{source}/{name}/" if number else f"{source}/"
                scalars |= {prefix + key: value for key, value in metrics.as_dict().items()}
        return scalars


def _by_source(results: Sequence[Mapping]) -> dict[str, dict[str, OODValues]]:
    """Each OOD set against all ID images: source to score to values, the own score first."""
    sources = np.array([kept["source"] for kept in results])
    is_ood = np.array([kept["is_ood"] for kept in results])
    scores = {name: torch.from_numpy(_column(results, name)) for name in results[0]["scores"]}
    found = {}
    for source in dict.fromkeys(sources[is_ood].tolist()):
        rows = torch.from_numpy(~is_ood | (sources == source))
        kinds = torch.from_numpy(is_ood)[rows]
        found[source] = {name: ood_metrics(values[rows], kinds) for name, values in scores.items()}
    return found


def _sources_table(by_source: Mapping[str, Mapping[str, OODValues]]) -> str:
    """One row per OOD set and score."""
    names = [name for by_score in by_source.values() for name in by_score]
    width, score_width = max(map(len, [*by_source, "OOD set"])), max(map(len, [*names, "score"]))
    lines = [
        f"\n{'OOD set':<{width}}  {'score':<{score_width}}{'OOD':>9}{'ID':>9}{METRIC_HEADINGS}"
    ]
    for source, by_score in by_source.items():
        for name, metrics in by_score.items():
            lines.append(
                f"{source:<{width}}  {name:<{score_width}}{metrics.num_ood:>9,.0f}"
                f"{metrics.num_id:>9,.0f}{metric_cells(metrics)}"
            )
    return "\n".join(lines)


def _column(results: Sequence[Mapping], name: str) -> np.ndarray:
    return np.array([kept["scores"][name] for kept in results], dtype=np.float64)
