"""Semantic segmentations with ground truth and OOD scores."""

import torch
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample

from negvision.ood import ood_score

CLASSES = ("sky", "road", "car")
# Without a file: tests write nothing into the current folder.
QUIET = {"scores_file": None, "resamples": 20, "min_component_size": 4, "min_object_size": 3}


def prediction(seed, size=(24, 30), ood_share=0.1, temperature=True, shift=1.0):
    """A sample with truth and prediction; OOD pixels score higher by ``shift``."""
    generator = torch.Generator().manual_seed(seed)

    def random(*shape):
        return torch.rand(*shape, generator=generator)

    coarse = random(-(-size[0] // 3), -(-size[1] // 3))
    coarse = coarse.repeat_interleave(3, 0).repeat_interleave(3, 1)[: size[0], : size[1]]
    truth = (coarse < ood_share).byte()
    truth[random(*size) < 0.1] = 255
    logits = torch.randn(3, *size, generator=generator) - shift * (truth == 1)
    labels = torch.randint(0, 3, size, generator=generator)
    labels[truth != 0] = 255
    t = random(*size) * 0.9 + 0.05 if temperature else None
    sample = SegDataSample(
        gt_sem_seg=PixelData(data=labels[None]),
        seg_logits=PixelData(data=logits),
        pred_sem_seg=PixelData(data=logits.argmax(0, keepdim=True)),
        metainfo={"img_path": f"{seed}.png"},
    )
    scores = ood_score("abet", logits, t, dim=0)
    sample.ood_map = PixelData(metainfo={"score": "abet"}, data=scores[None])
    sample.gt_ood_map = PixelData(data=truth[None])
    if temperature:
        sample.temperature = PixelData(data=t[None])
    return sample
