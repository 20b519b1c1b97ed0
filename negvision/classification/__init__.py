"""Image classification with OOD scores: AbeT on any backbone, data sets, and a metric."""
