"""Go through the data sets of a config without training, and tell what is at fault in them."""
