"""Check the data of a config without training."""
