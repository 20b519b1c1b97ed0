"""Runs after their training: what stands in a work dir, and what its model does on the test set."""
