"""Run exported models on image files: numpy, onnxruntime, and opencv or pillow are all it takes.

Neither torch nor OpenMMLab is imported. :class:`ExportedModel` reads from a file how images have to
be prepared and what the classes are, so a path is all that it asks for.

Example:
    >>> model = ExportedModel("atss.onnx")
    >>> [found] = model.predict(["street.jpg"])
    >>> found.boxes.shape, [model.classes[label] for label in found.labels[:2]]
    ((17, 4), ['car', 'person'])
"""

from negvision.inference.runtime.metadata import Metadata
from negvision.inference.runtime.model import ExportedModel
from negvision.inference.runtime.results import Detections, Embedding, LabelMap

__all__ = ["Detections", "Embedding", "ExportedModel", "LabelMap", "Metadata"]
