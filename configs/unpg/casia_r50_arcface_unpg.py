# ArcFace with UNPG, IResNet-50, CASIA-WebFace.
_base_ = "./casia_r50_arcface.py"

model = dict(head=dict(metric_pairs=True))
