"""The ``negvision`` program, one module per command.

Each module has ``HELP``, ``add_arguments(parser)`` and ``run(args)``, and a ``DESCRIPTION`` where
there is more to say. Importing it is cheap: ``run`` imports torch and OpenMMLab, so that help and
usage errors come at once.
"""
