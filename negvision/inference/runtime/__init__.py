"""Run exported models on image files with numpy, onnxruntime and opencv alone.

Neither torch nor OpenMMLab is imported. A file says how its images have to be prepared and what
its classes are, so :class:`ExportedModel` needs nothing but a path::

    model = ExportedModel("atss.onnx")
    [found] = model.predict(["street.jpg"])
    print(found.boxes, [model.classes[label] for label in found.labels])
"""

from negvision.inference.runtime.metadata import Metadata
from negvision.inference.runtime.model import ExportedModel
from negvision.inference.runtime.results import Classification, Detections, Embedding, LabelMap

__all__ = [
    "Classification",
    "Detections",
    "Embedding",
    "ExportedModel",
    "LabelMap",
    "Metadata",
]
