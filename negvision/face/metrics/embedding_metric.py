"""The base class of the face metrics."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from negvision.bootstrap import bootstrap, interval
from negvision.engine.metrics import CollectedMetric
from negvision.errors import ConfigError, DatasetError
from negvision.face.metrics.embeddings import EmbeddingBatch, EmbeddingError, EmbeddingTable


class EmbeddingMetric(CollectedMetric):
    """Collects the embeddings of all samples, then compares them.

    The dataset's ``metainfo`` says what to compare. Samples are identified by ``sample_idx``, so
    their order, the number of processes and duplicates (padding of the sampler) make no
    difference. A user error is raised on every rank.

    Subclasses implement :meth:`check_protocol` and :meth:`compare`, and list the entries of
    ``metainfo`` that they need in ``protocol``.

    Args:
        resamples: For 95 % intervals: how often the people are drawn anew with replacement. 0:
            none. None: 1,000 in ``negvision test``, none in a validation.
        **kwargs: Of :class:`negvision.engine.metrics.CollectedMetric`.
    """

    protocol: tuple[str, ...] = ()
    # The keys of `compare`: patterns of fnmatch.
    keys: tuple[str, ...] = ()
    # Suggested if the dataset of the config has no protocol.
    datasets = ""

    def __init__(self, resamples: int | None = None, **kwargs) -> None:
        super().__init__(**kwargs)
        if resamples is not None and resamples < 0:
            raise ValueError(f"resamples must be at least 0, got {resamples!r}")
        self.resamples = resamples

    def intervals(
        self,
        values: Mapping[str, float],
        figures: Callable[[np.ndarray], np.ndarray],
        units: int,
        drawn: str,
    ) -> tuple[dict[str, float], str]:
        """95 % intervals: limits by key, and lines for the log that start with a line break.

        Args:
            values: The figures of all, by key.
            figures: The same of how often each unit is drawn, as :func:`.bootstrap` takes it.
            units: Number of people, or of what is drawn.
            drawn: Their name.
        """
        if not self.resamples or units < 2 or not values:
            return {}, ""
        draws = bootstrap(figures, np.arange(units), self.resamples)
        self.draws, self.units = dict(zip(values, draws.T, strict=True)), units
        found = interval(np.array(list(values.values())), draws)
        limits = {}
        lines = f"\n\n95 % intervals, {self.resamples:,} resamples of {units:,} {drawn}"
        for name, low, high in zip(values, *found.tolist(), strict=True):
            limits |= {f"{name}_low": low, f"{name}_high": high}
            lines += f"\n{name:<16}{low:.4f} to {high:.4f}"
        return limits, lines

    @property
    def dataset_meta(self) -> dict | None:
        """Metainfo of the dataset; setting it checks the protocol."""
        return self._dataset_meta

    @dataset_meta.setter
    def dataset_meta(self, dataset_meta: Mapping) -> None:
        for meta in sets_of(dataset_meta).values():
            absent = [name for name in self.protocol if name not in meta]
            if absent:
                raise ConfigError(
                    f"{type(self).__name__} needs {' and '.join(map(repr, absent))} in the "
                    f"dataset's metainfo, which has {sorted(meta)}. Evaluate on {self.datasets}."
                )
            self.check_protocol(meta)
        self._dataset_meta = dataset_meta

    def names(self) -> list[str]:
        """See the base class."""
        return [*self.keys, *(f"*/{key}" for key in self.keys)]

    def check_protocol(self, meta: Mapping) -> None:
        """Raise DatasetError if the entries of ``metainfo`` do not fit each other."""
        raise NotImplementedError

    def compare(self, table: EmbeddingTable, meta: Mapping, title: str) -> dict[str, float]:
        """Compare as ``meta`` says; log a table under ``title``, return metrics without prefix."""
        raise NotImplementedError

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        """Keep the embeddings of a batch, in float32 on the CPU.

        Each sample has ``embedding`` (D,), ``sample_idx`` and, if known, ``label`` and
        ``img_path``.
        """
        if not data_samples:
            return
        absent = {"embedding", "sample_idx"} - set(data_samples[0])
        if absent:
            raise EmbeddingError(
                f"{type(self).__name__}: the predictions have no {' and no '.join(sorted(absent))}"
                f", only {sorted(data_samples[0])}. Use a model such as negvision.FaceRecognizer, "
                "and negvision.PackFaceInputs at the end of the pipeline."
            )
        vectors = [torch.as_tensor(sample["embedding"]).detach() for sample in data_samples]
        embeddings = torch.stack(vectors).to("cpu", torch.float32).numpy()
        sample_idx = np.array([int(sample["sample_idx"]) for sample in data_samples])
        labels = np.array([int(sample.get("label", -1)) for sample in data_samples])
        comparable = np.isfinite(embeddings).all(axis=1) & embeddings.any(axis=1)
        invalid = {
            int(sample_idx[row]): str(data_samples[row].get("img_path", ""))
            for row in np.flatnonzero(~comparable)
        }
        self.results.append(EmbeddingBatch(sample_idx, labels, embeddings, invalid))

    def compute_metrics(self, results: list[EmbeddingBatch]) -> dict[str, float]:
        """Evaluate the results of all ranks; see the class for the keys."""
        table, meta = EmbeddingTable(results), self.dataset_meta or {}
        if "sets" not in meta:
            return self.compare(table, meta, self.prefix)
        found = {
            name: self.compare(table, one, f"{self.prefix}/{name}")
            for name, one in meta["sets"].items()
        }
        first, *rest = found.values()
        values = {
            key: float(np.mean([own[key] for own in found.values()]))
            for key in first
            if not key.endswith(_NO_MEANS) and all(key in own for own in rest)
        }
        for name, own in found.items():
            values |= {f"{name}/{key}": value for key, value in own.items()}
        return values


# The mean over sets says nothing of these.
_NO_MEANS = ("_std", "_stderr", "_low", "_high", "_pairs", "threshold")


def sets_of(meta: Mapping) -> dict[str, Mapping]:
    """The ``metainfo`` of each set by name; of a dataset that is one set, by ""."""
    return meta.get("sets") or {"": meta}


# Keys of PairReport.values.
PAIR_KEYS = ("auc", "auc_*", "eer", "overlap", "positive_*", "negative_*", "tar@far=*")


def checked_pairs(meta: Mapping, pairs_name: str, same_name: str) -> tuple[np.ndarray, np.ndarray]:
    """Pairs (P, 2) and whether they are positive (P,); ``DatasetError`` if they are unusable."""
    pairs, same = np.asarray(meta[pairs_name]), np.asarray(meta[same_name])
    if not len(pairs):
        raise DatasetError(f"metainfo[{pairs_name!r}] is empty: there is nothing to compare.")
    if pairs.shape[1:] != (2,) or pairs.dtype.kind not in "iu" or same.shape != pairs.shape[:1]:
        raise DatasetError(
            f"metainfo[{pairs_name!r}] must be integers of shape (P, 2) and "
            f"metainfo[{same_name!r}] of shape (P,), got {pairs.dtype} {pairs.shape} and "
            f"{same.shape}."
        )
    same = same.astype(bool)
    if same.all() or not same.any():
        raise DatasetError(
            "verification needs pairs of one person and pairs of two people; the data has "
            f"{int(same.sum()):,} and {int((~same).sum()):,}."
        )
    return pairs, same
