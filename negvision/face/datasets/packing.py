"""The end of every pipeline of faces."""

import numpy as np
import torch
from mmcv.transforms import BaseTransform

from negvision.data.images.planes import to_planes
from negvision.face.structures import FaceDataSample
from negvision.registry import TRANSFORMS


@TRANSFORMS.register_module()
class PackFaceInputs(BaseTransform):
    """Make ``results`` what a model takes.

    Required keys: ``img`` (H, W, 3), uint8, BGR; ``label`` is -1 where it is missing.

    Args:
        meta_keys: Of ``results``; those present become metainfo of the data sample.

    Example:
        >>> packed = PackFaceInputs()(
        ...     {"img": np.zeros((112, 112, 3), np.uint8), "label": 3, "sample_idx": 0})
        >>> packed["inputs"].shape, packed["data_samples"].label
        (torch.Size([3, 112, 112]), tensor(3))
    """

    def __init__(self, meta_keys: tuple[str, ...] = ("sample_idx", "img_path", "img_shape")):
        self.meta_keys = meta_keys

    def transform(self, results: dict) -> dict:
        """Pack one sample.

        Returns:
            ``inputs``, a uint8 tensor of shape (3, H, W), and ``data_samples``, a
            :class:`negvision.face.structures.FaceDataSample`.

        Raises:
            ValueError: the image is not uint8 with three channels; normalising it is for the
                model's data preprocessor.
        """
        image = results["img"]
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
            raise ValueError(
                f"the image has shape {image.shape} and type {image.dtype}; pipelines of faces "
                "keep (H, W, 3) and uint8, and the model's data_preprocessor normalises"
            )
        label = torch.scalar_tensor(int(results.get("label", -1)), dtype=torch.int64)
        metainfo = {key: results[key] for key in self.meta_keys if key in results}
        return {
            "inputs": to_planes(image),
            "data_samples": FaceDataSample.of(label, metainfo),
        }

    def __repr__(self) -> str:
        return f"{type(self).__name__}(meta_keys={self.meta_keys})"
