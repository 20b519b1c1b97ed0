"""Transforms of classification pipelines."""

import numpy as np
import torch
from mmcv.transforms import BaseTransform
from PIL import Image
from torchvision.transforms import v2

from negvision.classification.structures import ImageDataSample
from negvision.data.images.planes import to_planes
from negvision.registry import TRANSFORMS


@TRANSFORMS.register_module()
class RandomPadCrop(BaseTransform):
    """Shift an image by up to ``padding`` pixels in each direction, with black borders.

    Equivalent to padding all sides and cropping the original size at random.

    Required and changed key: ``img``. Uses NumPy's global generator, which MMEngine seeds.

    Args:
        padding: Pixels.

    Source: He et al., Deep Residual Learning for Image Recognition (CVPR 2016), section 4.2.
    """

    def __init__(self, padding: int = 4) -> None:
        if padding < 1:
            raise ValueError(f"padding is {padding}; it must be 1 or more")
        self.padding = padding

    def transform(self, results: dict) -> dict:
        """Shift ``results["img"]``, (H, W, C)."""
        image, side = results["img"], self.padding
        height, width = image.shape[:2]
        padded = np.zeros((height + 2 * side, width + 2 * side, image.shape[2]), image.dtype)
        padded[side : side + height, side : side + width] = image
        top, left = np.random.randint(0, 2 * side + 1, 2)  # noqa: NPY002
        results["img"] = padded[top : top + height, left : left + width]
        return results


@TRANSFORMS.register_module()
class TrivialAugment(BaseTransform):
    """One random operation of random strength per image: torchvision's TrivialAugmentWide.

    Required and changed key: ``img`` (H, W, 3), uint8, BGR. Uses torch's global generator.

    Source: Müller and Hutter, TrivialAugment (ICCV 2021), section 3.
    """

    def __init__(self) -> None:
        self._augment = v2.TrivialAugmentWide()

    def transform(self, results: dict) -> dict:
        """Change ``results["img"]``."""
        # Saturation and contrast weight the channels, so their order matters.
        image = Image.fromarray(np.ascontiguousarray(results["img"][..., ::-1]))
        results["img"] = np.asarray(self._augment(image))[..., ::-1]
        return results


@TRANSFORMS.register_module()
class PackImageInputs(BaseTransform):
    """Pack ``results`` for a classifier.

    Required keys: ``img`` (H, W, 3), uint8, BGR; a missing ``label`` becomes -1.

    Args:
        meta_keys: Keys of ``results`` to store as metainfo of the data sample, if present.

    Example:
        >>> packed = PackImageInputs()({"img": np.zeros((32, 32, 3), np.uint8), "label": 3})
        >>> packed["inputs"].shape, packed["data_samples"].label
        (torch.Size([3, 32, 32]), tensor(3))
    """

    def __init__(
        self,
        meta_keys: tuple[str, ...] = ("sample_idx", "img_path", "ori_shape", "is_ood", "source"),
    ) -> None:
        self.meta_keys = meta_keys

    def transform(self, results: dict) -> dict:
        """Return ``inputs`` (3, H, W), uint8, and ``data_samples``, an ``ImageDataSample``.

        Raises:
            ValueError: The image is not uint8 with three channels.
        """
        image = results["img"]
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
            raise ValueError(
                f"the image has shape {image.shape} and type {image.dtype}, but must be (H, W, 3) "
                "uint8; the data_preprocessor of the model normalizes it"
            )
        label = torch.tensor(int(results.get("label", -1)), dtype=torch.int64)
        metainfo = {key: results[key] for key in self.meta_keys if key in results}
        return {
            "inputs": to_planes(image),
            "data_samples": ImageDataSample(label=label, metainfo=metainfo),
        }
