"""Configs: read, changed by options, and checked before anything is built."""
