"""Segmentation: segmentors with an OOD map, datasets, metrics and pictures for mmseg configs."""
