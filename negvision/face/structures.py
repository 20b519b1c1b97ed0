"""What the parts of face recognition hand to one another."""

from __future__ import annotations

import torch
from mmengine.structures import BaseDataElement


class FaceDataSample(BaseDataElement):
    """One face image: whose it is, and after prediction its embedding.

    Pickled, the label is a number: worker processes send each tensor through a file descriptor of
    its own, which takes longer than to load a face.

    Attributes:
        label: int64 tensor without dimensions, the identity; -1 where it is not known.
        embedding: Shape (D,), float32, on the CPU and not normalised: its norm tells about the
            quality of the image, and templates are means of embeddings.
        sample_idx: Metainfo; the index of the image in its dataset, by which metrics find it.

    Example:
        >>> sample = FaceDataSample(label=torch.tensor(3), metainfo={"sample_idx": 0})
        >>> sample.label.item(), sample.sample_idx
        (3, 0)
    """

    @classmethod
    def of(cls, label: torch.Tensor, metainfo: dict) -> FaceDataSample:
        """A sample that takes its metainfo over as it is.

        MMEngine's own constructor copies metainfo deeply and sets field by field, in a fifth of
        the time that the decoding of a face takes.
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
