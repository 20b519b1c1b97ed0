"""Networks with their decoding, as modules from one tensor to tensors."""
