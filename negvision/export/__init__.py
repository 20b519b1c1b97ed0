"""Write models for other runtimes, and compare them with PyTorch."""
