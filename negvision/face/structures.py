"""What the parts of face recognition hand to one another."""

from mmengine.structures import BaseDataElement


class FaceDataSample(BaseDataElement):
    """One face image: whose it is, and after prediction its embedding.

    Attributes:
        label: int64 tensor without dimensions, the identity; -1 where it is not known.
        embedding: Shape (D,), float32, on the CPU and not normalised: its norm tells about the
            quality of the image, and templates are means of embeddings.
        sample_idx: Metainfo; the index of the image in its dataset, by which metrics find it.

    Example:
        >>> import torch
        >>> sample = FaceDataSample(label=torch.tensor(3), metainfo={"sample_idx": 0})
        >>> sample.label.item(), sample.sample_idx
        (3, 0)
    """
