# ArcFace with UNPG, IResNet-34, K-FACE.
_base_ = "./kface_r34_arcface.py"

model = dict(head=dict(metric_pairs=True))
