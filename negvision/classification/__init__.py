"""Image classification with scores of the unknown: AbeT on any backbone, data, metric."""
