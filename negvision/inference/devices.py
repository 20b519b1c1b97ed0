"""Devices by the names that torch gives them, also where torch is not there."""

import re

from negvision.errors import UserError


def providers_of(device: str) -> list:
    """What runs an exported model on ``device``, for ONNX Runtime.

    Raises:
        UserError: No such device, or this ONNX Runtime has nothing for it.

    Example:
        >>> providers_of("cpu")
        ['CPUExecutionProvider']
    """
    match = re.fullmatch(r"cpu|cuda(?::(\d+))?", device)
    if match is None:
        raise UserError(f"device {device!r}: exported models run on cpu, cuda or cuda:NUMBER")
    if device == "cpu":
        return ["CPUExecutionProvider"]
    import onnxruntime

    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        raise UserError(
            f"device {device!r}: this ONNX Runtime has no CUDA: pip install onnxruntime-gpu in the "
            "place of onnxruntime, or use --device cpu"
        )
    return [("CUDAExecutionProvider", {"device_id": match[1] or "0"}), "CPUExecutionProvider"]
