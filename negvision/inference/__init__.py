"""Use a trained model: on arrays and files from Python, on any source by ``negvision predict``.

Exported models run without torch and OpenMMLab; these are imported where a config is given.

Example:
    >>> model = Inferencer("atss.onnx")
    >>> [found] = model.predict(["street.jpg"])
    >>> found.boxes.shape, [model.classes[label] for label in found.labels[:2]]
    ((17, 4), ['car', 'person'])
"""

from negvision.inference.inferencer import Inferencer

__all__ = ["Inferencer"]
