"""Metrics of face recognition, registered in METRICS as ``negvision.<Name>``."""

from negvision.face.metrics.embeddings import EmbeddingError
from negvision.face.metrics.identification_metric import IdentificationMetric
from negvision.face.metrics.template_metric import TemplateVerificationMetric
from negvision.face.metrics.verification_metric import VerificationMetric

__all__ = [
    "EmbeddingError",
    "IdentificationMetric",
    "TemplateVerificationMetric",
    "VerificationMetric",
]
