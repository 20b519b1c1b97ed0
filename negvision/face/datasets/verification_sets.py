"""Several verification sets, evaluated in one run."""

from collections.abc import Sequence

import numpy as np
from torch.utils.data import ConcatDataset

from negvision.errors import ConfigError
from negvision.registry import DATASETS


@DATASETS.register_module()
class FaceVerificationSets(ConcatDataset):
    """Verification sets side by side, such as LFW, CFP-FP and AgeDB.

    ``metainfo["sets"]`` has the ``metainfo`` of each set by name, whose ``pairs`` refer to samples
    of all sets together. :class:`negvision.face.metrics.verification_metric.VerificationMetric`
    evaluates each set and gives means over the sets, by which the best checkpoint can be chosen.

    Args:
        datasets: Of pairs, such as :class:`negvision.face.datasets.pairs.FacePairDataset` and
            :class:`negvision.face.datasets.bin_file.FaceBinDataset`.
        names: Of the sets, in metrics and reports.

    Raises:
        ConfigError: There is not one name for each set, or a dataset has no pairs.

    In a config::

        val_dataloader = dict(dataset=dict(
            type="negvision.FaceVerificationSets", names=["lfw", "agedb"], datasets=[
                dict(type="negvision.FaceBinDataset", ann_file="data/lfw.bin", pipeline=...),
                dict(type="negvision.FaceBinDataset", ann_file="data/agedb_30.bin", pipeline=...)]))
    """

    def __init__(self, datasets: Sequence, names: Sequence[str]) -> None:
        if len(set(names)) != len(datasets) or len(names) != len(datasets):
            raise ConfigError(
                f"names is {list(names)}; it must have another name for each of the "
                f"{len(datasets)} datasets"
            )
        built = [DATASETS.build(one) if isinstance(one, dict) else one for one in datasets]
        super().__init__(built)
        self.metainfo: dict = {"sets": {}}
        for name, dataset, end in zip(names, built, self.cumulative_sizes, strict=True):
            meta = dict(dataset.metainfo)
            if "pairs" not in meta:
                raise ConfigError(
                    f"{type(dataset).__name__} {name!r} has no pairs. Take "
                    "negvision.FacePairDataset or negvision.FaceBinDataset"
                )
            meta["pairs"] = np.asarray(meta["pairs"]) + (end - len(dataset))
            self.metainfo["sets"][name] = {**meta, "set": name}

    def __getitem__(self, idx: int) -> dict:
        """The sample of a set, with its index among all of them."""
        sample = super().__getitem__(idx)
        sample["data_samples"].set_metainfo({"sample_idx": idx % len(self)})
        return sample
