"""What the metrics of embeddings have in common."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from negvision.engine.metrics import CollectedMetric
from negvision.errors import ConfigError, DatasetError
from negvision.face.metrics.embeddings import EmbeddingBatch, EmbeddingError, EmbeddingTable


class EmbeddingMetric(CollectedMetric):
    """Keeps the embeddings of all samples and compares them once all are there.

    What is compared stands in the dataset's ``metainfo``. Samples are found by ``sample_idx``, so
    the order in which they come, the number of processes and samples that come twice (padding of
    the sampler) change nothing. An error of the user's is raised on every rank.

    Subclasses implement :meth:`check_protocol` and :meth:`compare`, and name in ``protocol`` the
    entries of ``metainfo`` that they need.

    Args:
        **kwargs: Of :class:`negvision.engine.metrics.CollectedMetric`.
    """

    protocol: tuple[str, ...] = ()
    # Named where the dataset of the config has no protocol.
    datasets = ""

    @property
    def dataset_meta(self) -> dict | None:
        """Meta information of the dataset; setting it checks what is to be compared."""
        return self._dataset_meta

    @dataset_meta.setter
    def dataset_meta(self, dataset_meta: Mapping) -> None:
        absent = [name for name in self.protocol if name not in dataset_meta]
        if absent:
            raise ConfigError(
                f"{type(self).__name__} needs {' and '.join(map(repr, absent))} in the dataset's "
                f"metainfo, which has {sorted(dataset_meta)}. Evaluate on {self.datasets}."
            )
        self.check_protocol(dataset_meta)
        self._dataset_meta = dataset_meta

    def check_protocol(self, meta: Mapping) -> None:
        """Raise DatasetError where the entries of ``metainfo`` do not fit one another."""
        raise NotImplementedError

    def compare(self, table: EmbeddingTable) -> dict[str, float]:
        """Compare as ``self.dataset_meta`` says; log a table, return figures without prefix."""
        raise NotImplementedError

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        """Keep the embeddings of a batch, in float32 on the CPU.

        Args:
            data_batch: Not used.
            data_samples: ``embedding`` (D,), ``sample_idx`` and, if known, ``label`` and
                ``img_path`` each.
        """
        if not data_samples:
            return
        absent = {"embedding", "sample_idx"} - set(data_samples[0])
        if absent:
            raise EmbeddingError(
                f"{type(self).__name__}: the predictions have no {' and no '.join(sorted(absent))}"
                f", only {sorted(data_samples[0])}. Use a model such as negvision.FaceRecognizer "
                "and negvision.PackFaceInputs at the end of the pipeline."
            )
        vectors = [torch.as_tensor(sample["embedding"]).detach() for sample in data_samples]
        embeddings = torch.stack(vectors).to("cpu", torch.float32).numpy()
        sample_idx = np.array([int(sample["sample_idx"]) for sample in data_samples])
        labels = np.array([int(sample.get("label", -1)) for sample in data_samples])
        comparable = np.isfinite(embeddings).all(axis=1) & embeddings.any(axis=1)
        faulty = {
            int(sample_idx[row]): str(data_samples[row].get("img_path", ""))
            for row in np.flatnonzero(~comparable)
        }
        self.results.append(EmbeddingBatch(sample_idx, labels, embeddings, faulty))

    def compute_metrics(self, results: list[EmbeddingBatch]) -> dict[str, float]:
        """Evaluate what all ranks collected; see the class for the keys."""
        if self.dataset_meta is None:
            raise ValueError("dataset_meta is not set: assign the dataset's metainfo first")
        return self.compare(EmbeddingTable(results))


def checked_pairs(meta: Mapping, pairs_name: str, same_name: str) -> tuple[np.ndarray, np.ndarray]:
    """The pairs and their kinds, where they fit one another and both kinds are there.

    Returns:
        Shape (P, 2), integers, and shape (P,), bool.

    Raises:
        DatasetError: They do not.
    """
    pairs, same = np.asarray(meta[pairs_name]), np.asarray(meta[same_name])
    if not len(pairs):
        raise DatasetError(f"metainfo[{pairs_name!r}] is empty: there is nothing to compare.")
    if pairs.ndim != 2 or pairs.shape[1] != 2 or not np.issubdtype(pairs.dtype, np.integer):
        raise DatasetError(
            f"metainfo[{pairs_name!r}] must be integers of shape (P, 2), got {pairs.dtype} of "
            f"shape {pairs.shape}."
        )
    if same.shape != pairs.shape[:1]:
        raise DatasetError(
            f"metainfo[{same_name!r}] must have one entry a pair, shape ({len(pairs)},), got "
            f"{same.shape}."
        )
    same = same.astype(bool)
    if same.all() or not same.any():
        raise DatasetError(
            f"verification needs pairs of one person and pairs of two; the data has "
            f"{int(same.sum()):,} and {int((~same).sum()):,}."
        )
    return pairs, same
