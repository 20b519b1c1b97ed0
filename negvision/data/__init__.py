"""Embedded data sets, generated at first use from what the dependencies ship, and file readers."""
