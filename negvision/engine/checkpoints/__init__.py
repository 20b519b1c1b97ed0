"""Checkpoints: written atomically, found for resuming, and loaded without running code."""
