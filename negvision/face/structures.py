"""What the parts of face recognition hand to one another."""

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
