import torch
from mmengine.structures import InstanceData

STRIDES = (8, 16, 32)
SIZE = (96, 128)
SHAPES = [(-(-SIZE[0] // s), -(-SIZE[1] // s)) for s in STRIDES]
CLASSES = 5


def truth(generator: torch.Generator, count: int) -> InstanceData:
    """Random boxes within the image, of many sizes."""
    low = torch.rand(count, 2, generator=generator) * torch.tensor([90.0, 60.0])
    size = torch.rand(count, 2, generator=generator) ** 2 * 60 + 4
    return InstanceData(
        bboxes=torch.cat([low, low + size], 1),
        labels=torch.randint(CLASSES, (count,), generator=generator),
    )


def batch(seed: int, counts=(4, 0, 9)) -> tuple[list[InstanceData], list[dict]]:
    generator = torch.Generator().manual_seed(seed)
    metas = [{"img_shape": SIZE, "pad_shape": SIZE} for _ in counts]
    return [truth(generator, count) for count in counts], metas


def features(seed: int, images: int = 3, channels: int = 8) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(images, channels, *shape, generator=generator) for shape in SHAPES]


def total(losses: dict) -> dict[str, torch.Tensor]:
    """Losses by name, those of the levels added up."""
    return {
        name: sum(value) if isinstance(value, list | tuple) else value
        for name, value in losses.items()
    }
