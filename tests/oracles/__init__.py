"""The slow, readable definitions that fast code is compared with."""
