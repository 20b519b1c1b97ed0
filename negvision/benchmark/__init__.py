"""What a model costs: weights, operations, memory, and images a second in PyTorch and beside it."""
