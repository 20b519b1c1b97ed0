"""Detection for mmdet configs: assigners, heads, losses, data sets, metrics and hooks."""
