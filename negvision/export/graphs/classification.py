"""Classifiers as one graph from an image to the probabilities of its classes."""

from torch import Tensor, nn

from negvision.classification.classifier import ScoredClassifier
from negvision.ood import ood_score


class Classifier(nn.Module):
    """``image (B, 3, H, W) -> probabilities (B, C), ood_scores (B,)``.

    Args:
        model: In evaluation mode.
    """

    def __init__(self, model: ScoredClassifier) -> None:
        super().__init__()
        self.model = model

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """See the class."""
        logits, temperature = self.model(image)
        logits = logits.float()
        return logits.softmax(1), ood_score(self.model.score, logits, temperature)
