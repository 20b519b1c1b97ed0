"""Readers and writers of annotation files, and of whole folders in any format."""
