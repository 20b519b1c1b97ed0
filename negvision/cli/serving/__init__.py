"""A local page to try a model on: drop an image, move the thresholds, look at what is found.

Gradio (requirements/serve.txt) is imported by :mod:`negvision.cli.serving.page` and ``components``
alone, and these only once the environment is set that keeps Gradio from asking other hosts.
"""
