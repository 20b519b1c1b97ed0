"""Models that leave the suite: written as ONNX, checked against PyTorch, run without it."""
