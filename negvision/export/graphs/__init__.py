"""Networks with their decoding, as modules that take and return tensors."""
