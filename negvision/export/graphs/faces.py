"""Face recognizers as one graph from a crop to its embedding."""

import torch
from torch import Tensor, nn

from negvision.errors import ExportError, UserError
from negvision.face.recognizer import FaceRecognizer

# The stride of face backbones, and the largest side to try.
_STEP, _LARGEST = 16, 512


class FaceEmbedder(nn.Module):
    """``image (B, 3, H, W) -> embeddings (B, D)``, not normalized.

    With ``flip_test`` of the model, the embedding of the mirrored image is added, as in PyTorch.
    H and W are fixed: the neck has weights for each position.

    Args:
        model: In evaluation mode.
    """

    def __init__(self, model: FaceRecognizer) -> None:
        super().__init__()
        self.model = model

    def forward(self, image: Tensor) -> tuple[Tensor]:
        """See the class."""
        embeddings = self.model.embed(image).float()
        if self.model.flip_test:
            embeddings = embeddings + self.model.embed(image.flip(-1)).float()
        return (embeddings,)


def face_size(model: FaceRecognizer, resized: tuple[int, int] | None) -> tuple[int, int]:
    """Height and width of the crops that ``model`` takes.

    Args:
        model: In evaluation mode.
        resized: The size to which the test pipeline resizes, or None without resizing.

    Raises:
        ExportError: The model does not take that size, or no square of a multiple of 16 pixels.
    """
    tried = [resized] if resized else [(side, side) for side in range(_STEP, _LARGEST + 1, _STEP)]
    for size in tried:
        try:
            with torch.no_grad():
                model.embed(torch.zeros(1, 3, *size))
        except (RuntimeError, ValueError, UserError) as error:
            reason = error
            continue
        return size
    raise ExportError(
        f"{type(model).__name__} takes no image of "
        + (
            f"{resized[1]} x {resized[0]} pixels, which the test pipeline resizes to: {reason}"
            if resized
            else f"{_STEP} to {_LARGEST} pixels a side: {reason}"
        )
    )
