"""Run trained models: on arrays and files from Python, or on any source by ``negvision predict``.

:class:`~negvision.inference.inferencer.Inferencer` opens an exported model, or a config with its
checkpoint. Exported models need neither torch nor OpenMMLab.
"""
