"""Images, (H, W, C), on the way to a model: their planes and their colors."""

from collections.abc import Sequence

import torch
from torch import Tensor

from negvision.ops._extension import is_compiled_for

# In the order of csrc/cpu/colors.cpp.
_STEPS = ("brightness", "contrast", "saturation", "hue")


def image_planes(
    image: Tensor, rows_reversed: bool = False, columns_reversed: bool = False
) -> Tensor:
    """Copy an image into contiguous planes, (C, H, W).

    Torch has no negative strides. For a mirrored NumPy view, pass the image as it is stored and
    flag what is reversed; mirroring then costs nothing.

    Args:
        image: Shape (H, W, C), any type and strides.
        rows_reversed: Whether the last row is stored first.
        columns_reversed: Whether the last column is stored first.

    Returns:
        Shape (C, H, W), in memory of its own.

    Raises:
        ValueError: The image does not have three dimensions.

    Example:
        >>> image = torch.arange(6, dtype=torch.uint8).reshape(1, 2, 3)
        >>> image_planes(image, columns_reversed=True).tolist()
        [[[3, 0]], [[4, 1]], [[5, 2]]]
    """
    if image.dim() != 3:
        raise ValueError(f"an image must have shape (H, W, C), got {tuple(image.shape)}")
    # The kernel covers what data loading needs: CPU, no gradient, values of at most 8 bytes.
    plain = image.device.type == "cpu" and not image.requires_grad and image.element_size() <= 8
    if plain and is_compiled_for("cpu"):
        return torch.ops.negvision.image_planes.default(image, rows_reversed, columns_reversed)
    return _upright(image, rows_reversed, columns_reversed).clone(
        memory_format=torch.contiguous_format
    )


def distort_colors(
    image: Tensor,
    steps: Sequence[tuple[str, float]],
    rows_reversed: bool = False,
    columns_reversed: bool = False,
) -> Tensor:
    """Change brightness, contrast, saturation and hue of an image, all steps in one pass.

    Every step maps integers to integers in [0, 255], **rounded to nearest, halves up**; brightness,
    contrast and saturation compute in float32. HSV is OpenCV's 8-bit form: hue in [0, 179] and
    saturation as quotients of 12-bit fractions; the way back to BGR is exact before rounding.
    mmseg's ``PhotoMetricDistortion`` truncates instead, so each step, given the same input, is
    within one gray level of mmseg's.

    Args:
        image: Shape (H, W, 3), uint8, BGR, on the CPU, packed: the channels of a pixel, and the
            pixels of a row, lie next to each other.
        steps: Applied in order: ``("brightness", added)``, ``("contrast", factor)``,
            ``("saturation", factor)``, ``("hue", turn)`` with an integer turn in units of 2 degrees
            (180 is a full turn).
        rows_reversed: As in :func:`image_planes`.
        columns_reversed: As in :func:`image_planes`.

    Returns:
        Shape (3, H, W), uint8.

    Raises:
        ValueError: Wrong device, shape, type or layout, an unknown step, or a fractional turn.

    Source:
        Smith, SIGGRAPH 1978, "Color gamut transform pairs" (HSV).

    Example:
        >>> image = torch.tensor([[[10, 20, 200]]], dtype=torch.uint8)
        >>> distort_colors(image, [("contrast", 1.5), ("hue", 60)]).flatten().tolist()
        [31, 255, 15]
    """
    if image.device.type != "cpu" or image.dtype != torch.uint8 or image.shape[2:] != (3,):
        raise ValueError(
            "an image must be uint8 of shape (H, W, 3) on the CPU, got "
            f"{image.dtype} of {tuple(image.shape)} on {image.device}"
        )
    if image.stride()[1:] != (3, 1):
        raise ValueError(f"an image must be packed, got strides {image.stride()}")
    kinds, amounts = [], []
    for kind, amount in steps:
        if kind not in _STEPS:
            raise ValueError(f"step {kind!r} must be one of {', '.join(_STEPS)}")
        if kind == "hue":
            if amount != int(amount):
                raise ValueError(f"hue turns by an integer, got {amount:g}")
            amount %= 180
        kinds.append(_STEPS.index(kind))
        amounts.append(float(amount))
    # A library built before this operator existed lacks it.
    if is_compiled_for("cpu") and hasattr(torch.ops.negvision, "distort_colors"):
        return torch.ops.negvision.distort_colors.default(
            image, rows_reversed, columns_reversed, kinds, amounts
        )
    return _distort_in_torch(_upright(image, rows_reversed, columns_reversed), kinds, amounts)


def _upright(image: Tensor, rows_reversed: bool, columns_reversed: bool) -> Tensor:
    """A view or copy of shape (C, H, W) that is not mirrored."""
    mirrored = [dim for dim, flag in enumerate((rows_reversed, columns_reversed)) if flag]
    return image.flip(mirrored).permute(2, 0, 1)


def _distort_in_torch(planes: Tensor, kinds: list[int], amounts: list[float]) -> Tensor:
    """The same bits as the kernel."""
    bgr = planes.int()
    for kind, amount in zip(kinds, amounts, strict=True):
        if _STEPS[kind] == "brightness":
            bgr = _to_byte(bgr.float() + amount)
        elif _STEPS[kind] == "contrast":
            bgr = _to_byte(bgr.float() * amount)
        else:
            hue, saturation, value = _to_hsv(*bgr)
            if _STEPS[kind] == "saturation":
                saturation = _to_byte(saturation.float() * amount)
            else:
                hue = (hue + int(amount)) % 180
            bgr = _to_bgr(hue, saturation, value)
    return bgr.to(torch.uint8, memory_format=torch.contiguous_format)


def _to_byte(values: Tensor) -> Tensor:
    return (values.clamp(0, 255) + 0.5).int()


def _to_hsv(b: Tensor, g: Tensor, r: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    value = torch.maximum(b, torch.maximum(g, r))
    span = value - torch.minimum(b, torch.minimum(g, r))

    def inverse(scale: float, of: Tensor) -> Tensor:
        divisor = of.clamp(min=1).float()
        return (torch.full_like(divisor, scale) / divisor).round().int()

    of_green = torch.where(value == g, b - r + 2 * span, r - g + 4 * span)
    sector = torch.where(value == r, g - b, of_green)
    hue = (sector * inverse(30 * 4096, span) + 2048) >> 12
    saturation = (span * inverse(255 * 4096, value) + 2048) >> 12
    return hue % 180, saturation, value


def _to_bgr(hue: Tensor, saturation: Tensor, value: Tensor) -> Tensor:
    shares = torch.stack(
        [
            torch.maximum(90 - hue, hue - 150),
            torch.maximum(30 - hue, hue - 90),
            torch.minimum(hue - 30, 150 - hue),
        ]
    )
    return (value * (7650 - saturation * shares.clamp(0, 30)) + 3825) // 7650
