"""Segmentation for mmseg configs: segmentors with an OOD map, data sets, a metric and a hook."""
