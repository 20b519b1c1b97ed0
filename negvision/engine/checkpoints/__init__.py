"""Checkpoints: written whole or not at all, found again, and loaded without running them."""
