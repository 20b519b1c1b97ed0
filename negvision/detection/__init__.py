"""Detection: assigners, heads, datasets, metrics and hooks that plug into mmdet configs."""
