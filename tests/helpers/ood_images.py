"""Predictions for images of three sources, two of them OOD."""

import torch

from negvision.classification.structures import ImageDataSample
from negvision.ood import ood_score

# Without a file: tests write nothing into the current folder.
QUIET = {"scores_file": None, "resamples": 10}
SHIFTS = {"in": 1.5, "near": 0.8, "far": 0.0}


def sample(number, source, own="abet", temperature=True):
    """A prediction; the logits of images farther out are smaller."""
    generator = torch.Generator().manual_seed(1000 * list(SHIFTS).index(source) + number)
    # Rounded, so that there are ties.
    logits = (torch.randn(4, generator=generator) * 4).round() / 4
    logits[number % 4] += SHIFTS[source]
    t = torch.rand((), generator=generator) * 0.9 + 0.1 if temperature else None
    fields = {
        "label": torch.tensor(number % 4 if source == "in" else -1),
        "logits": logits,
        "pred_label": logits.argmax(),
        "pred_score": logits.softmax(0).max(),
        "ood_score": ood_score(own, logits, t),
    }
    if temperature:
        fields["temperature"] = t
    metainfo = {
        "img_path": f"{source}.npz:{number}",
        "source": source,
        "is_ood": source != "in",
        "ood_score_name": own,
    }
    return ImageDataSample(**fields, metainfo=metainfo)


def samples(counts=(40, 25, 15), **options):
    return [
        sample(number, source, **options)
        for source, count in zip(SHIFTS, counts, strict=True)
        for number in range(count)
    ]
