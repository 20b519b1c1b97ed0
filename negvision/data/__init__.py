"""Read, check and split datasets."""
