"""EfficientNet-Lite0 as its authors describe it, computed from the weights of a published file."""

import torch
from torch.nn import functional as F

# Kernel, stride and expansion of each of the 16 blocks.
BLOCKS = [
    (3, 1, 1),
    (3, 2, 6), (3, 1, 6),
    (5, 2, 6), (5, 1, 6),
    (3, 2, 6), (3, 1, 6), (3, 1, 6),
    (5, 1, 6), (5, 1, 6), (5, 1, 6),
    (5, 2, 6), (5, 1, 6), (5, 1, 6), (5, 1, 6),
    (3, 1, 6),
]  # fmt: skip
ENDS_OF_STAGES = (0, 2, 4, 10, 15)


def same_convolution(image, weight, stride, dilation=1):
    """TensorFlow's definition of "same", one output pixel at a time.

    Args:
        image: (H, W).
        weight: (k, k).
        stride: Of the output.
        dilation: Pixels from one weight to the next.
    """
    extent = (len(weight) - 1) * dilation + 1
    sides = [-(-size // stride) for size in image.shape]
    before = [
        max((side - 1) * stride + extent - size, 0) // 2
        for side, size in zip(sides, image.shape, strict=True)
    ]
    out = torch.zeros(sides, dtype=image.dtype)
    for row in range(sides[0]):
        for column in range(sides[1]):
            for i in range(len(weight)):
                for j in range(len(weight)):
                    y = row * stride - before[0] + i * dilation
                    x = column * stride - before[1] + j * dilation
                    if 0 <= y < image.shape[0] and 0 <= x < image.shape[1]:
                        out[row, column] += weight[i, j] * image[y, x]
    return out


def levels_and_logits(weights, images):
    """The five stages, the last convolution, and the logits of ImageNet's 1,000 classes.

    Args:
        weights: By published name.
        images: (N, 3, H, W), normalized.
    """

    def layer(x, conv, norm, stride=1, linear=False):
        weight = weights[f"{conv}.weight"].to(x.dtype)
        pads = []
        for size in (x.shape[3], x.shape[2]):
            total = max((-(-size // stride) - 1) * stride + weight.shape[-1] - size, 0)
            pads += [total // 2, total - total // 2]
        groups = x.shape[1] // weight.shape[1]
        x = F.conv2d(F.pad(x, pads), weight, stride=stride, groups=groups)
        gamma, beta, mean, variance = (
            weights[f"{norm}.{name}"].to(x.dtype)[:, None, None]
            for name in ("weight", "bias", "running_mean", "running_var")
        )
        x = (x - mean) / torch.sqrt(variance + 1e-3) * gamma + beta
        return x if linear else x.clamp(0, 6)

    x, found = layer(images, "_conv_stem", "_bn0", 2), []
    for number, (_, stride, expansion) in enumerate(BLOCKS):
        block, before = f"_blocks.{number}.", x
        if expansion > 1:
            x = layer(x, f"{block}_expand_conv", f"{block}_bn0")
        x = layer(x, f"{block}_depthwise_conv", f"{block}_bn1", stride)
        x = layer(x, f"{block}_project_conv", f"{block}_bn2", linear=True)
        if x.shape == before.shape:
            x = x + before
        if number in ENDS_OF_STAGES:
            found.append(x)
    found.append(layer(x, "_conv_head", "_bn1"))
    classifier = (weights[f"_fc.{name}"].to(x.dtype) for name in ("weight", "bias"))
    return found, F.linear(found[-1].mean((2, 3)), *classifier)
