"""What every head with an OOD score writes beside the boxes that it keeps."""

from mmengine.structures import InstanceData
from torch import Tensor

from negvision.ood import ood_score


def add_ood_fields(
    results: InstanceData, head, logits: Tensor, temperature: Tensor | None
) -> InstanceData:
    """Add ``logits``, ``temperature``, ``ood_score`` and, with a threshold, ``is_ood``, in place.

    The metainfo ``ood_score_name`` says which score it is.

    Args:
        results: N boxes.
        head: With ``score``, ``ood_threshold`` and ``num_classes``.
        logits: (N, K) or (N, K + 1), the K foreground classes first; they alone are scored.
        temperature: (N,), or None for a head without one.
    """
    results.logits = logits
    if temperature is not None:
        results.temperature = temperature
    results.ood_score = ood_score(head.score, logits[:, : head.num_classes], temperature)
    results.set_metainfo({"ood_score_name": head.score})
    if head.ood_threshold is not None:
        results.is_ood = results.ood_score > head.ood_threshold
    return results
