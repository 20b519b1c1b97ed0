"""The data sample of a face image."""

from __future__ import annotations

import torch
from mmengine.structures import BaseDataElement


class FaceDataSample(BaseDataElement):
    """One face image: its identity and, after prediction, its embedding.

    The label is pickled as a number: worker processes send each tensor through its own file
    descriptor, which takes longer than loading a face.

    Attributes:
        label: int64 tensor without dimensions, the identity; -1 if unknown.
        embedding: Shape (D,), float32, on the CPU and not normalized: its norm reflects the
            quality of the image, and templates are means of embeddings.
        sample_idx: Metainfo; the index of the image in its dataset.

    Example:
        >>> sample = FaceDataSample(label=torch.tensor(3), metainfo={"sample_idx": 0})
        >>> sample.label.item(), sample.sample_idx
        (3, 0)
    """

    @classmethod
    def of(cls, label: torch.Tensor, metainfo: dict) -> FaceDataSample:
        """A sample that uses ``metainfo`` as it is.

        MMEngine's constructor makes a deep copy and sets field by field, which takes a fifth of the
        time of decoding a face.
        """
        sample = cls.__new__(cls)
        sample.__dict__.update(
            metainfo, label=label, _metainfo_fields=set(metainfo), _data_fields={"label"}
        )
        return sample

    def __getstate__(self) -> dict:
        state = dict(self.__dict__)
        label = state.get("label")
        if isinstance(label, torch.Tensor) and label.dtype == torch.int64 and not label.ndim:
            state["label"] = int(label)
        return state

    def __setstate__(self, state: dict) -> None:
        if isinstance(state.get("label"), int):
            state = {**state, "label": torch.tensor(state["label"])}
        self.__dict__.update(state)
