"""What the metrics of all tasks have in common."""
