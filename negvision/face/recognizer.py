"""The model that turns face images into embeddings."""

import torch
from mmengine.model import BaseModel
from torch import Tensor

from negvision.face.structures import FaceDataSample
from negvision.registry import MODELS

_PREPROCESSOR = {
    "type": "mmengine.ImgDataPreprocessor",
    "mean": [127.5] * 3,
    "std": [127.5] * 3,
    "bgr_to_rgb": True,
}


@MODELS.register_module()
class FaceRecognizer(BaseModel):
    """Backbone, neck and loss of a face recognizer.

    Images are given as BGR in 0 to 255, as OpenCV reads them, and preprocessed to RGB in [-1, 1].

    Args:
        backbone: Any backbone of MMEngine's registries, e.g. ``negvision.IResNet``.
        neck: Turns its output into embeddings (N, D), e.g. ``negvision.FaceEmbeddingNeck``; None if
            the backbone already outputs them.
        head: The loss, e.g. ``negvision.UNPGLoss``; None for a model that only embeds.
        flip_test: In prediction, add the embedding of the mirrored image.
        data_preprocessor: By default MMEngine's ``ImgDataPreprocessor`` with mean and standard
            deviation 127.5 and BGR to RGB.
        init_cfg: As in MMEngine.

    Example:
        >>> model = FaceRecognizer(
        ...     backbone=dict(type="negvision.IResNet", depth=18, widths=(8, 8, 8, 8)),
        ...     neck=dict(type="negvision.FaceEmbeddingNeck", in_channels=8, spatial_size=3,
        ...               embedding_size=16)).eval()
        >>> model(torch.zeros(2, 3, 48, 48)).shape
        torch.Size([2, 16])
    """

    def __init__(
        self,
        backbone: dict,
        neck: dict | None = None,
        head: dict | None = None,
        flip_test: bool = True,
        data_preprocessor: dict | None = None,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(data_preprocessor or _PREPROCESSOR, init_cfg)
        self.backbone = MODELS.build(backbone)
        self.neck = None if neck is None else MODELS.build(neck)
        self.head = None if head is None else MODELS.build(head)
        self.flip_test = flip_test

    def embed(self, inputs: Tensor) -> Tensor:
        """Embeddings, (N, D) and not normalized, of preprocessed images (N, 3, H, W)."""
        features = self.backbone(inputs)
        if self.neck is not None:
            return self.neck(features)
        return features[-1] if isinstance(features, tuple | list) else features

    def forward(
        self, inputs: Tensor, data_samples: list[FaceDataSample] | None = None, mode: str = "tensor"
    ) -> dict[str, Tensor] | list[FaceDataSample] | Tensor:
        """Train, predict or embed preprocessed images (N, 3, H, W).

        ``mode="loss"`` returns ``{"loss": scalar}``, ``"predict"`` the samples, each with its
        ``embedding``, (D,) float32 on the CPU, and ``"tensor"`` embeddings (N, D).
        """
        if mode == "tensor":
            return self.embed(inputs)
        if mode not in ("loss", "predict"):
            raise ValueError(f"mode must be 'loss', 'predict' or 'tensor', got {mode!r}")
        if data_samples is None:
            raise ValueError(f"mode {mode!r} needs data_samples")
        if mode == "loss":
            if self.head is None:
                raise ValueError("mode 'loss' needs a head, e.g. dict(type='negvision.UNPGLoss')")
            labels = torch.stack([sample.label for sample in data_samples])
            return {"loss": self.head(self.embed(inputs), labels.to(inputs.device))}
        embeddings = self.embed(inputs).float()
        if self.flip_test:
            embeddings = embeddings + self.embed(inputs.flip(-1)).float()
        for sample, embedding in zip(data_samples, embeddings.cpu(), strict=True):
            sample.embedding = embedding
        return data_samples
