"""A local page to try a model: drop an image, move the thresholds, look at the results.

Gradio (requirements/serve.txt) is imported by :mod:`negvision.cli.serving.page` only, after the
environment is set that keeps Gradio from contacting other hosts.
"""
