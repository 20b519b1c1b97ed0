"""The ``negvision`` program, one module per command.

Each module has ``HELP``, ``DESCRIPTION``, ``add_arguments(parser)`` and ``run(args)``. Importing it
is cheap: ``run`` imports torch and OpenMMLab, so that help and usage errors come at once.
"""
