"""The cost of a model: weights, operations, memory, and images per second."""
