"""Images, (H, W, C), on the way to a model: their planes and their colours."""

from collections.abc import Sequence

import torch
from torch import Tensor

from negvision.ops._extension import extension_info, is_compiled_for

# In the order of csrc/cpu/colours.cpp.
COLOUR_STEPS = ("brightness", "contrast", "saturation", "hue")


def image_planes(
    image: Tensor, rows_reversed: bool = False, columns_reversed: bool = False
) -> Tensor:
    """The contiguous (C, H, W) of an image, in memory of its own.

    Torch has no negative strides, so of a mirrored view of NumPy the image is given as it is stored
    and what lies in reverse is said beside it; to mirror costs nothing then.

    Args:
        image: Shape (H, W, C), any type and strides.
        rows_reversed: Whether the last row is stored first.
        columns_reversed: Whether the last column is stored first.

    Returns:
        Shape (C, H, W).

    Raises:
        ValueError: Another number of dimensions.

    Example:
        >>> image = torch.arange(6, dtype=torch.uint8).reshape(1, 2, 3)
        >>> image_planes(image, columns_reversed=True).tolist()
        [[[3, 0]], [[4, 1]], [[5, 2]]]
    """
    if image.dim() != 3:
        raise ValueError(f"an image must have shape (H, W, C), got {tuple(image.shape)}")
    # The kernel is for what loading has: on the CPU, no gradient, numbers of 8 bytes at most.
    plain = image.device.type == "cpu" and not image.requires_grad and image.element_size() <= 8
    if plain and is_compiled_for("cpu"):
        return torch.ops.negvision.image_planes.default(image, rows_reversed, columns_reversed)
    reversed_ = [dim for dim, is_so in enumerate((rows_reversed, columns_reversed)) if is_so]
    return image.flip(reversed_).permute(2, 0, 1).clone(memory_format=torch.contiguous_format)


def distort_colours(
    image: Tensor,
    steps: Sequence[tuple[str, float]],
    block: int,
    rows_reversed: bool = False,
    columns_reversed: bool = False,
) -> Tensor:
    """The planes of an image whose colours were changed, all steps in one pass.

    After each step values are clipped to 0 ... 255 and are whole. Hue and saturation are those of
    OpenCV's 8-bit HSV. It cuts off fractions in as many columns as it works on at once and rounds
    in those that remain, so it takes ``block`` to give the same bits;
    :func:`negvision.data.images.colours.distort_colours` finds it, and is the function to use.

    Args:
        image: Shape (H, W, 3), uint8, BGR, on the CPU; rows without gaps.
        steps: In their order: ``("brightness", added)``, ``("contrast", factor)``,
            ``("saturation", factor)``, ``("hue", turn)`` where ``turn`` is 0 ... 179 of 180.
        block: Columns that OpenCV works on at once on this processor.
        rows_reversed: As of :func:`image_planes`.
        columns_reversed: As of :func:`image_planes`.

    Returns:
        Shape (3, H, W), uint8.

    Raises:
        ValueError: Another device, shape or type, an unknown step, or a turn out of range.
        RuntimeError: No kernel is built.

    Example:
        >>> image = torch.tensor([[[10, 20, 200]]], dtype=torch.uint8)
        >>> distort_colours(image, [("contrast", 1.5), ("hue", 60)], block=32).flatten().tolist()
        [30, 255, 15]
    """
    steps = require_colour_steps(steps)
    if image.device.type != "cpu" or image.dtype != torch.uint8 or image.dim() != 3:
        raise ValueError(
            "an image must be uint8 of shape (H, W, 3) on the CPU, got "
            f"{image.dtype} of {tuple(image.shape)} on {image.device}"
        )
    if not is_compiled_for("cpu"):
        raise RuntimeError(f"distort_colours has no other way: {extension_info()['error']}")
    return torch.ops.negvision.distort_colours.default(
        image,
        rows_reversed,
        columns_reversed,
        [COLOUR_STEPS.index(kind) for kind, _ in steps],
        [amount for _, amount in steps],
        block,
    )


def require_colour_steps(steps: Sequence[tuple[str, float]]) -> list[tuple[str, float]]:
    """Steps of :func:`distort_colours` with Python's own floats as amounts.

    Raises:
        ValueError: An unknown step, or a turn of the hue that is not 0 ... 179.
    """
    checked = [(kind, float(amount)) for kind, amount in steps]
    for kind, amount in checked:
        if kind not in COLOUR_STEPS:
            raise ValueError(f"step {kind!r} must be one of {', '.join(COLOUR_STEPS)}")
        if kind == "hue" and amount not in range(180):
            raise ValueError(f"a turn of the hue is a whole number of 0 ... 179, got {amount:g}")
    return checked
